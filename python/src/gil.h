// Doing without the GIL for a while.
#pragma once

#include <Python.h>
#include <unistd.h>

namespace tokcask::python {

// Gives the GIL away and takes it back at the end of its life.
//
// When the interpreter ends, up to Python 3.13 it ends the thread that asks for the GIL then (a daemon
// thread) by unwinding its stack, which a C++ frame that does not throw turns into std::terminate. So this
// thread is held here instead, as Python 3.14 does itself, until the process is gone: see "Cautions regarding
// runtime finalization" in Python's C API. It holds no lock of ours by then.
class WithoutGil {
 public:
  WithoutGil() : state_(PyEval_SaveThread()) {}
  ~WithoutGil() { take_back(); }
  WithoutGil(const WithoutGil&) = delete;
  WithoutGil& operator=(const WithoutGil&) = delete;

  // Takes it back for the time of `act`.
  template <typename Act>
  void with_gil(const Act& act) {
    take_back();
    act();
    state_ = PyEval_SaveThread();
  }

 private:
  void take_back() noexcept {
    try {
      PyEval_RestoreThread(state_);
    } catch (...) {
      for (;;) pause();
    }
  }

  PyThreadState* state_;
};

}  // namespace tokcask::python
