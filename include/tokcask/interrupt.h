// Calls that wait can be asked to stop waiting: for a program that has to answer a signal or a user.
//
//   const tokcask::InterruptScope scope([](void*) { return ctrl_c_came.load(); }, nullptr);
//   cache.flush();   // throws Error(kInterrupted) soon after ctrl_c_came
//
// It concerns calls that this thread makes while the scope lives, and in them the waiting for the store's
// write lock, for a commit, or for room in the batch. A call that was given up has changed nothing, but
// prune() and put_many(), which keep what they had done. What was pending still is, and the next flush()
// commits it. close() is never given up, because what is pending would be lost: call flush() before it.
#pragma once

#include <tokcask/export.h>

namespace tokcask {

// Scopes of a thread nest; the newest one is asked. To be destroyed by the thread that made it.
class TOKCASK_API InterruptScope {
 public:
  // Called some twenty times a second while a call of this thread waits; true: it is to stop. Holds no lock
  // of the store that a look-up takes. Must not call the library, nor throw. Null: calls wait.
  using Asked = bool (*)(void* context);
  explicit InterruptScope(Asked asked, void* context = nullptr) noexcept;
  ~InterruptScope();
  InterruptScope(const InterruptScope&) = delete;
  InterruptScope& operator=(const InterruptScope&) = delete;

 private:
  friend class Patience;
  const Asked asked_;
  void* const context_;
  const InterruptScope* const outer_;
};

}  // namespace tokcask
