// Signals during calls that wait: Python runs their handlers in its main thread, with the GIL, when asked to.
#pragma once

#include <nanobind/nanobind.h>
#include <unistd.h>

#include <tokcask/interrupt.h>

#include "gil.h"

namespace tokcask::python {

// While one lives, a wait of this thread in the library has signal handlers run, and ends when one raises, as
// that of Ctrl-C does. With `released`, the thread has given the GIL away by that; else it has the GIL, and
// gives it away while handlers are asked for, because the one who is waited for may need it.
class Signals {
 public:
  explicit Signals(WithoutGil* released = nullptr) noexcept : released_(released) {}
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;

  // With the GIL: throws what a handler has raised.
  static void raise() {
    if (PyErr_Occurred() != nullptr) throw nanobind::python_error();
  }

 private:
  static bool asked(void* context) {
    auto& self = *static_cast<Signals*>(context);
    if (self.raised_) return true;
    const auto check = [&] { self.raised_ = PyErr_CheckSignals() != 0; };
    if (self.released_ == nullptr) {
      {
        const WithoutGil released;
      }
      check();
    } else if (gettid() == getpid()) {  // no handler runs elsewhere
      self.released_->with_gil(check);
    }
    return self.raised_;
  }

  WithoutGil* const released_;
  bool raised_ = false;
  const InterruptScope scope_{asked, this};
};

}  // namespace tokcask::python
