#include "os/patience.h"

#include <thread>

#include <tokcask/error.h>

namespace tokcask {

namespace {

thread_local const InterruptScope* newest = nullptr;

}  // namespace

InterruptScope::InterruptScope(Asked asked, void* context) noexcept
    : asked_(asked), context_(context), outer_(newest) {
  newest = this;
}

InterruptScope::~InterruptScope() { newest = outer_; }

bool Patience::is_limited() noexcept { return newest != nullptr && newest->asked_ != nullptr; }

void Patience::check() {
  if (!is_limited()) return;
  const auto now = std::chrono::steady_clock::now();
  if (now < next_) return;
  next_ = now + kPause;
  if (newest->asked_(newest->context_)) {
    throw Error(Errc::kInterrupted, "interrupted while it waited for the store; what is pending still is");
  }
}

std::unique_lock<std::mutex> lock_patiently(std::mutex& mutex) {
  if (!Patience::is_limited()) return std::unique_lock(mutex);
  std::unique_lock lock(mutex, std::defer_lock);
  for (Patience patience; !lock.try_lock(); patience.check())
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  return lock;
}

}  // namespace tokcask
