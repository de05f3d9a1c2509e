// What keeps a mapped file that somebody cuts short from ending this process.
#pragma once

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "os/fault_guard.h"

namespace tokcask::shm {

// Threads: may be called concurrently.
class Whole {
 public:
  // From now on a touch of what is gone is answered with zeros (see fault_guard.h). To be called once, before
  // other threads know of this; `release` before the range is unmapped.
  void guard(void* base, std::uint64_t mapped, int protection) noexcept {
    guard_ = os::FaultGuard(base, mapped, protection);
  }
  void release() noexcept { guard_ = os::FaultGuard(); }

  // Looks at the length of `fd` when `tick` is another than the last time. If the file has less than the
  // `needed` bytes that may be touched, what is missing is replaced, up to `mapped` bytes from `base`, by
  // zeros that are this process's own, in place: pointers into it stay good. Returns whether that, or what
  // guard() is for, ever happened.
  bool keep(std::int64_t tick, int fd, void* base, std::uint64_t needed, std::uint64_t mapped,
            int protection) noexcept {
    if (looked_.load(std::memory_order_relaxed) == tick) return is_cut();
    looked_.store(tick, std::memory_order_relaxed);
    // After the first time, of the file only what was left then.
    const std::uint64_t of_file = std::min(needed, left_.load(std::memory_order_acquire));
    struct stat status{};
    if (fstat(fd, &status) != 0) return is_cut();
    const auto bytes = static_cast<std::uint64_t>(status.st_size);
    if (bytes >= of_file) return is_cut();
    const auto page = static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
    // The rest of the last page reads as zeros, and can be written to.
    const std::uint64_t from = (bytes + page - 1) / page * page;
    const std::uint64_t end = std::min(mapped, left_.load(std::memory_order_acquire));
    if (from < end && mmap(static_cast<char*>(base) + from, end - from, protection,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) == MAP_FAILED) {
      return is_cut();
    }
    left_.store(from, std::memory_order_release);
    return true;
  }
  [[nodiscard]] bool is_cut() const noexcept {
    return left_.load(std::memory_order_acquire) != kAll || guard_.hit();
  }

 private:
  static constexpr std::uint64_t kAll = ~std::uint64_t{0};
  std::atomic<std::int64_t> looked_{0};
  std::atomic<std::uint64_t> left_{kAll};
  os::FaultGuard guard_;
};

}  // namespace tokcask::shm
