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

// Stored times further ahead than this are those of a clock that was wrong, or damage.
inline constexpr std::uint64_t kMostAheadNs = 366ULL * 24 * 3600 * 1'000'000'000;

}  // namespace tokcask
