// What keeps RLIMIT_FSIZE from ending the host.
//
// A write beyond that limit fails with EFBIG, which becomes Error(kIo), and sends SIGXFSZ to the thread,
// which ends a process that has not provided for it. A library does not decide that: while one of these
// lives, the signal is held back from this thread, and one that came meanwhile is taken away. Costs three
// system calls.
#pragma once

#include <signal.h>

namespace tokcask {

class WithoutFileLimitSignal {
 public:
  WithoutFileLimitSignal() noexcept;
  ~WithoutFileLimitSignal();
  WithoutFileLimitSignal(const WithoutFileLimitSignal&) = delete;
  WithoutFileLimitSignal& operator=(const WithoutFileLimitSignal&) = delete;

 private:
  sigset_t signal_;
  sigset_t before_;
};

}  // namespace tokcask
