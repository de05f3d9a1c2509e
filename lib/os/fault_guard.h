// What keeps a mapped file from ending this process: a page that the file does not have any more, because
// somebody cut it short, or that the disk cannot read, is a signal (SIGBUS) when it is touched.
//
// While a FaultGuard lives, such a page in its range is replaced in place by memory of this process, and the
// touch goes on. Whoever reads asks hit() afterwards, and takes what was read for damage. Faults elsewhere go
// to the handler that was there before, or end the process as if there were no guard.
//
// The handler is the process's: it is set with the first guard, stays, and calls the one before it. A host
// that sets its own later, and does not call ours, has the signal again until the next guard is made. See
// sigaction(2): BUS_ADRERR.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace tokcask::os {

// Threads: may be used concurrently. Forked children inherit what is guarded.
class FaultGuard {
 public:
  FaultGuard() = default;
  // Guards `size` bytes from `base`, which is aligned to the system's pages. `protection` as for mmap(2). A
  // page that is replaced begins with `head`, of static storage, and is filled up with `fill`. Guards nothing
  // when more than a thousand ranges are guarded, or the handler cannot be set.
  FaultGuard(const void* base, std::size_t size, int protection, std::span<const std::byte> head = {},
             std::byte fill = std::byte{0}) noexcept;
  // Before the range is unmapped.
  ~FaultGuard();
  FaultGuard(FaultGuard&& other) noexcept;
  FaultGuard& operator=(FaultGuard&& other) noexcept;

  // The range is never unmapped, and is guarded from now on without this object.
  void keep() noexcept { range_ = nullptr; }

  // Whether a page was replaced, for ever.
  [[nodiscard]] bool hit() const noexcept;

 private:
  struct Range;
  friend struct Handler;
  Range* range_ = nullptr;
};

}  // namespace tokcask::os
