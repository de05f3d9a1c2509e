// What keeps a mapped file that somebody cuts short from ending this process: touching a page beyond the end
// of its file is a signal.
#pragma once

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace tokcask::shm {

// Threads: may be called concurrently.
class Whole {
 public:
  // Looks at the length of `fd` when `tick` is another than the last time. If the file has less than the
  // `needed` bytes that may be touched, what is missing is replaced, up to `mapped` bytes from `base`, by
  // zeros that are this process's own, in place: pointers into it stay good. Returns whether that ever
  // happened. What is cut off and touched within the same tick is a signal all the same.
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
  [[nodiscard]] bool is_cut() const noexcept { return left_.load(std::memory_order_acquire) != kAll; }

 private:
  static constexpr std::uint64_t kAll = ~std::uint64_t{0};
  std::atomic<std::int64_t> looked_{0};
  std::atomic<std::uint64_t> left_{kAll};
};

}  // namespace tokcask::shm
