// Formats of other programs: `export` and `import`. Their readers and writers are Python packages, so the
// Python package does the work; the command line has the verbs, their options, help, output and exit codes.
#pragma once

#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>
#include <string_view>

namespace tokcask::cli {

// What the work tells meanwhile. One thread.
class FormatMonitor {
 public:
  virtual ~FormatMonitor() = default;
  virtual void warning(std::string_view text) = 0;
  // Steps done so far, of `total` (0: not known). Returns whether to go on; once false, stays false.
  [[nodiscard]] virtual bool advance(std::string_view phase, std::uint64_t done, std::uint64_t total) = 0;
};

// Does what the verb ("export" or "import") asks for in `request`, a JSON object of its arguments, and
// returns a JSON object of figures; empty when the monitor stopped it. Throws tokcask::Error.
using FormatRunner =
    std::function<std::string(const std::string& verb, const std::string& request, FormatMonitor& monitor)>;

}  // namespace tokcask::cli
