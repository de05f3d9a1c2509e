// The write lock of a store: one writer among all processes, taken before LMDB's own.
//
// LMDB's writer mutex is waited for without end, also when its holder is stopped. This one has a time limit
// and tells who holds it. It is an open file description lock (F_OFD_SETLK) on the file `write.lock`, by a
// descriptor of each WriteLock: the kernel releases it when its holder dies, WriteLocks of one process
// exclude each other by it, a forked child does not inherit it (see os/process_descriptor.h), and nothing
// that the process does with other descriptors of the file takes it away.
//
// The file may be removed or replaced while the lock is held. Then two writers can hold the locks of two
// files of that name. LMDB still orders their transactions; who replaces data.mdb asks still_held() first.
//
// Its content is for people alone: u64 pid of who took it last, u64 when, in nanoseconds since the Unix
// epoch, u64 1 once it was released; little-endian. It is believed only when that process is alive and has
// not released the lock: one that was killed leaves its own behind.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <string>

#include <tokcask/error.h>

#include "os/process_descriptor.h"

namespace tokcask {

// Threads: all members may be called concurrently.
class WriteLock {
 public:
  // Opens `file`, or makes it. Throws Error(kIo), also when it is a link or no regular file.
  explicit WriteLock(std::filesystem::path file);
  WriteLock(const WriteLock&) = delete;
  WriteLock& operator=(const WriteLock&) = delete;

  // Held until destroyed.
  class Hold {
   public:
    explicit Hold(WriteLock& lock) noexcept : lock_(&lock) {}
    ~Hold() { lock_->release(); }
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;
    // Whether the file that is locked is still the one by that name, so that nobody else can have the lock.
    [[nodiscard]] bool still_held() const noexcept { return lock_->is_in_place(); }

   private:
    WriteLock* lock_;
  };

  // Throws Error(kBusy), naming the holder and since when, when it is not free within `timeout`; and
  // Error(kInterrupted).
  [[nodiscard]] Hold acquire(std::chrono::milliseconds timeout);

 private:
  [[nodiscard]] bool try_lock();
  [[nodiscard]] bool is_in_place() const noexcept;
  void note(bool released) const noexcept;
  [[nodiscard]] Error busy(std::chrono::milliseconds waited) const;
  void release() noexcept;

  const std::filesystem::path file_;
  std::atomic<bool> taken_{false};  // by a thread, which may use the descriptor then
  os::ProcessDescriptor fd_;
  std::uint64_t since_ns_ = 0;
};

}  // namespace tokcask
