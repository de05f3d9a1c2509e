// Times: as they are stored, nanoseconds since the Unix epoch; and as they are compared within a process.
#pragma once

#include <time.h>

#include <chrono>
#include <cstdint>

namespace tokcask::os {

[[nodiscard]] inline std::uint64_t now_ns() noexcept {
  using namespace std::chrono;
  return static_cast<std::uint64_t>(
      duration_cast<nanoseconds>(system_clock::now().time_since_epoch()).count());
}

[[nodiscard]] inline std::int64_t ns_of(const timespec& time) noexcept {
  return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

// Of a clock that only goes on; to within milliseconds, for the price of a few loads.
[[nodiscard]] inline std::int64_t coarse_now_ns() noexcept {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  return ns_of(now);
}

// Stored times further ahead than this are those of a clock that was wrong, or damage.
inline constexpr std::uint64_t kMostAheadNs = 366ULL * 24 * 3600 * 1'000'000'000;

}  // namespace tokcask::os
