// Waiting that heeds the thread's InterruptScope.
#pragma once

#include <chrono>
#include <mutex>

#include <tokcask/interrupt.h>

namespace tokcask {

// Of one wait. No lock may be held at check() that a look-up takes: the one who is asked may wait for a
// thread that looks something up.
class Patience {
 public:
  static constexpr std::chrono::milliseconds kPause{50};  // between two questions

  // Whether there is somebody to ask.
  [[nodiscard]] static bool is_limited() noexcept;
  // Throws Error(kInterrupted) when the wait is to end. Cheap: it asks now and then.
  void check();

 private:
  std::chrono::steady_clock::time_point next_ = std::chrono::steady_clock::now() + kPause;
};

// A lock on `mutex`, waited for with patience.
[[nodiscard]] std::unique_lock<std::mutex> lock_patiently(std::mutex& mutex);

}  // namespace tokcask
