#include "os/file_limit.h"

#include <time.h>

namespace tokcask {

WithoutFileLimitSignal::WithoutFileLimitSignal() noexcept {
  sigemptyset(&signal_);
  sigaddset(&signal_, SIGXFSZ);
  pthread_sigmask(SIG_BLOCK, &signal_, &before_);
}

WithoutFileLimitSignal::~WithoutFileLimitSignal() {
  if (sigismember(&before_, SIGXFSZ) != 0) return;  // the host holds it back itself
  constexpr timespec kNoWait{};
  sigtimedwait(&signal_, nullptr, &kNoWait);
  pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

}  // namespace tokcask
