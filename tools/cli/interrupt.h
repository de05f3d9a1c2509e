// Turning SIGINT and SIGTERM into a request that a long operation can meet at a good moment.
#pragma once

#include <csignal>

namespace tokcask::cli {

// While one lives, the first SIGINT or SIGTERM sets a flag; a second one has its usual effect and ends the
// process. The handlers found are put back at the end. At most one at a time in a process.
class InterruptGuard {
 public:
  InterruptGuard();
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;

  // Whether a signal has come since the newest guard was made. Any thread.
  [[nodiscard]] static bool requested() noexcept;

 private:
  struct sigaction old_interrupt_ = {};
  struct sigaction old_terminate_ = {};
};

// While one lives, writing to a pipe that nobody reads fails with EPIPE instead of ending the process.
class IgnoreBrokenPipe {
 public:
  IgnoreBrokenPipe();
  ~IgnoreBrokenPipe();
  IgnoreBrokenPipe(const IgnoreBrokenPipe&) = delete;
  IgnoreBrokenPipe& operator=(const IgnoreBrokenPipe&) = delete;

 private:
  struct sigaction old_ = {};
};

// Opens /dev/null in the place of each closed standard descriptor. Otherwise the next file to be opened, the
// store's data file perhaps, would take that number and receive what is printed.
void fill_standard_descriptors();

}  // namespace tokcask::cli
