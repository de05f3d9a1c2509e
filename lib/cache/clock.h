// Wall-clock time as it is stored: nanoseconds since the Unix epoch.
#pragma once

#include <chrono>
#include <cstdint>

namespace tokcask {

[[nodiscard]] inline std::uint64_t now_ns() noexcept {
  using namespace std::chrono;
  return static_cast<std::uint64_t>(
      duration_cast<nanoseconds>(system_clock::now().time_since_epoch()).count());
}

}  // namespace tokcask
