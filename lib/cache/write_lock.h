// The write lock of a store: one writer among all processes, taken before LMDB's own.
//
// LMDB's writer mutex is waited for without end, also when its holder is stopped. This one has a time limit
// and tells who holds it. It is a POSIX record lock on the file `write.lock`: the kernel releases it when its
// holder dies, and a forked child does not inherit it. POSIX drops a process's locks on a file when any
// descriptor of it is closed, so a process has one WriteLock per store.
#pragma once

#include <chrono>
#include <filesystem>

namespace tokcask {

class WriteLock {
 public:
  // Opens or creates `file`. Throws Error(kIo).
  explicit WriteLock(std::filesystem::path file);
  ~WriteLock();
  WriteLock(const WriteLock&) = delete;
  WriteLock& operator=(const WriteLock&) = delete;

  // Held until destroyed. Excludes other processes only; threads of this one exclude each other themselves.
  class Hold {
   public:
    explicit Hold(WriteLock& lock) noexcept : lock_(&lock) {}
    ~Hold() { lock_->release(); }
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;

   private:
    WriteLock* lock_;
  };

  // Throws Error(kBusy), naming the holder, when it is not free within `timeout`.
  [[nodiscard]] Hold acquire(std::chrono::milliseconds timeout);

 private:
  bool try_lock() const;
  [[nodiscard]] int holder() const noexcept;
  void release() const noexcept;

  std::filesystem::path file_;
  int fd_;
};

}  // namespace tokcask
