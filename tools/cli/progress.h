// A one-line progress bar on standard error, drawn only on a terminal and erased at the end.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "cli/console.h"
#include "warm/monitor.h"

namespace tokcask::cli {

// The line for a phase: what, a bar, a percentage, the counts. At most `width` columns, so that it never
// wraps. A total of 0 means that the end is not known.
[[nodiscard]] std::string progress_line(std::string_view phase, std::uint64_t done, std::uint64_t total,
                                        unsigned width);

// Also tells the operation to stop once the user has interrupted the program. One thread.
class Progress final : public warm::Monitor {
 public:
  // `shown` false: draws nothing. The console must outlive this.
  Progress(Console& console, bool shown) : console_(console), shown_(shown && console.is_terminal()) {}
  ~Progress() override { finish(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void begin(std::string_view phase, std::uint64_t total) override;
  void advance(std::uint64_t done) override;
  [[nodiscard]] bool stopped() override;

  void finish();

 private:
  Console& console_;
  const bool shown_;
  std::string phase_;
  std::uint64_t total_ = 0;
  std::chrono::steady_clock::time_point next_draw_{};
};

}  // namespace tokcask::cli
