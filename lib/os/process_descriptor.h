// A file descriptor that belongs to one process: a forked child closes it.
//
// An open file description lock (F_OFD_SETLK) is held by what open() returned, and lives as long as any
// process has that open. So a child that inherits the descriptor would keep the lock of a parent that has
// ended. Here each child closes what it inherited, as the first thing after fork(). A program that is
// executed has none of them either (O_CLOEXEC).
#pragma once

#include <sys/types.h>

namespace tokcask::os {

// Threads: different ones may be made and destroyed concurrently, also while another thread forks.
class ProcessDescriptor {
 public:
  ProcessDescriptor() = default;
  // As open(2), with O_CLOEXEC, and never through a link, nor waiting for what is no regular file. A failure
  // leaves errno.
  ProcessDescriptor(const char* path, int flags, mode_t mode = 0) noexcept;
  ~ProcessDescriptor();
  ProcessDescriptor(const ProcessDescriptor&) = delete;
  ProcessDescriptor& operator=(const ProcessDescriptor&) = delete;

  // Less than 0: open() failed, or this is a child of the process that opened it.
  [[nodiscard]] int get() const noexcept { return fd_; }
  // Closes it. With the arguments of the constructor, opens another file then.
  void close() noexcept;
  void open(const char* path, int flags, mode_t mode = 0) noexcept;

 private:
  struct Registry;
  friend struct Registry;

  int fd_ = -1;
  // Of a list of all that are open in this process.
  ProcessDescriptor* next_ = nullptr;
  ProcessDescriptor* previous_ = nullptr;
};

// Record locks of a descriptor, as of F_OFD_SETLK. The range is [from, end). `type` is F_RDLCK, which wants a
// descriptor that may be read, F_WRLCK, which wants one that may be written, or F_UNLCK. Returns 0, or errno:
// EAGAIN when a lock of somebody else is in the way.
[[nodiscard]] int set_lock(int fd, short type, off_t from, off_t end) noexcept;
inline int set_lock(int fd, short type, off_t byte) noexcept { return set_lock(fd, type, byte, byte + 1); }
// Where the first lock of somebody else in the range begins, also one of another descriptor of this process;
// -1 when there is none, or when that cannot be asked for.
[[nodiscard]] off_t find_lock(int fd, off_t from, off_t end) noexcept;

}  // namespace tokcask::os
