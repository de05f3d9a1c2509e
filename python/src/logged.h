// Something of the library that Python holds, with its messages going to Python's logging.
#pragma once

#include <nanobind/nanobind.h>

#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

#include "gil.h"
#include "messages.h"
#include "signals.h"

namespace tokcask::python {

// Every call that may wait is made without the GIL, and ends when a signal's handler raises. Messages are
// logged when a call ends. Threads: as T.
template <typename T>
class Logged {
 public:
  // `open(sink)` makes the T, without the GIL.
  template <typename Open>
  explicit Logged(Open open) {
    const LogAtEnd log(messages_);
    WithoutGil released;
    const Signals signals(&released);
    value_.emplace(open(MessageSink([messages = messages_](Severity severity, std::string_view text) {
      messages->push(severity, text);
    })));
  }
  ~Logged() {
    const LogAtEnd log(messages_);
    const WithoutGil released;
    value_.reset();
  }
  Logged(const Logged&) = delete;
  Logged& operator=(const Logged&) = delete;

  // Calls `work(value)` without the GIL.
  template <typename Work>
  auto without_gil(Work work) {
    const LogAtEnd log(messages_);
    return heeding([&] {
      WithoutGil released;
      const Signals signals(&released);
      return work(*value_);
    });
  }
  // Calls `work(value)` with it, for what is over before the GIL could be given away.
  template <typename Work>
  auto with_gil(Work work) {
    const LogAtEnd log(messages_);
    return heeding([&] {
      const Signals signals;
      return work(*value_);
    });
  }
  [[nodiscard]] const T& value() const noexcept { return *value_; }

 private:
  // What a handler raised is thrown, also where the call came to its end.
  template <typename Call>
  static auto heeding(const Call& call) {
    if constexpr (std::is_void_v<std::invoke_result_t<Call>>) {
      call();
      Signals::raise();
    } else {
      auto result = call();
      Signals::raise();
      return result;
    }
  }

  const std::shared_ptr<Messages> messages_ = std::make_shared<Messages>();
  std::optional<T> value_;
};

}  // namespace tokcask::python
