// Whom a long operation tells how far it is, and asks whether to go on.
#pragma once

#include <cstdint>
#include <string_view>

namespace tokcask::warm {

// All calls come from the thread that runs the operation.
class Monitor {
 public:
  virtual ~Monitor() = default;

  // A new phase of `total` steps begins; 0 when that is not known.
  virtual void begin(std::string_view phase, std::uint64_t total) = 0;
  virtual void advance(std::uint64_t done) = 0;
  // Once true, stays true: finish what is at hand and return.
  [[nodiscard]] virtual bool stopped() = 0;
};

}  // namespace tokcask::warm
