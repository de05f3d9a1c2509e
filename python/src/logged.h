// Something of the library that Python holds, with its messages going to Python's logging.
#pragma once

#include <nanobind/nanobind.h>

#include <memory>
#include <optional>
#include <utility>

#include "gil.h"
#include "messages.h"

namespace tokcask::python {

// Every call that may wait is made without the GIL. Messages are logged when a call ends. Threads: as T.
template <typename T>
class Logged {
 public:
  // `open(sink)` makes the T, without the GIL.
  template <typename Open>
  explicit Logged(Open open) {
    const LogAtEnd log(messages_);
    const WithoutGil released;
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
    const WithoutGil released;
    return work(*value_);
  }
  // Calls `work(value)` with it, for what is over before the GIL could be given away.
  template <typename Work>
  auto with_gil(Work work) {
    const LogAtEnd log(messages_);
    return work(*value_);
  }
  [[nodiscard]] const T& value() const noexcept { return *value_; }

 private:
  const std::shared_ptr<Messages> messages_ = std::make_shared<Messages>();
  std::optional<T> value_;
};

}  // namespace tokcask::python
