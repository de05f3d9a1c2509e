// The write lock of a store: one writer among all processes, taken before LMDB's own.
//
// LMDB's writer mutex is waited for without end, also when its holder is stopped. This one has a time limit
// and tells who holds it. It is a POSIX record lock on the file `write.lock`: the kernel releases it when its
// holder dies, and a forked child does not inherit it. POSIX drops a process's locks on a file when any
// descriptor of it is closed, so all WriteLocks of a process on one file share one descriptor; and because
// POSIX does not exclude threads of a process from each other, they share a mutex too.
//
// Its content is for people alone: u64 pid of who took it last, u64 when, in nanoseconds since the Unix
// epoch, little-endian. Nobody needs it, and it is believed only when the kernel says that the same process
// holds the lock: a process that was killed leaves its own behind.
#pragma once

#include <chrono>
#include <filesystem>
#include <mutex>
#include <string>
#include <utility>

#include <tokcask/error.h>

namespace tokcask {

class WriteLock {
 public:
  // Opens or creates `file`. Throws Error(kIo), also when it is a link or no regular file.
  explicit WriteLock(std::filesystem::path file);
  ~WriteLock();
  WriteLock(const WriteLock&) = delete;
  WriteLock& operator=(const WriteLock&) = delete;

  // Held until destroyed, by the thread that took it.
  class Hold {
   public:
    Hold(WriteLock& lock, std::unique_lock<std::mutex> mutex) noexcept
        : lock_(&lock), mutex_(std::move(mutex)) {}
    ~Hold() { lock_->release(); }
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;

   private:
    WriteLock* lock_;
    std::unique_lock<std::mutex> mutex_;
  };

  // Throws Error(kBusy), naming the holder and since when, when it is not free within `timeout`; and
  // Error(kInterrupted).
  [[nodiscard]] Hold acquire(std::chrono::milliseconds timeout);

 private:
  struct Shared;
  struct Registry;
  static Registry& registry();

  bool try_lock() const;
  void note_taken() const noexcept;
  [[nodiscard]] std::string holder() const;
  [[nodiscard]] Error busy(const std::string& who, std::chrono::milliseconds waited) const;
  void release() const noexcept;

  std::filesystem::path file_;
  Shared* shared_;
};

}  // namespace tokcask
