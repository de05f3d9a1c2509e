// The store's messages on their way to Python's logging.
//
// The commit thread must never wait for the GIL: at interpreter exit it would wait for ever, and closing the
// store waits for it. So it only queues; whoever next leaves a call with the GIL logs what is there.
#pragma once

#include <nanobind/nanobind.h>

#include <atomic>
#include <memory>
#include <string>
#include <string_view>

#include <tokcask/options.h>

namespace tokcask::python {

// Threads: push from any thread, without the GIL. Lock-free, since a lock could be held by the commit thread
// at the moment of a fork and would then stay locked in the child.
class Messages {
 public:
  Messages() = default;
  ~Messages();
  Messages(const Messages&) = delete;
  Messages& operator=(const Messages&) = delete;

  void push(Severity severity, std::string_view text);

  // Hands all messages, oldest first, to logging.getLogger("tokcask"); to standard error when the interpreter
  // is shutting down. Needs the GIL. Whatever a log handler raises is reported as unraisable. The Python
  // error that may be set is kept.
  void log() noexcept;

 private:
  struct Node {
    Severity severity;
    std::string text;
    Node* next;
  };
  // Oldest first; to be deleted by the caller.
  [[nodiscard]] Node* take() noexcept;

  std::atomic<Node*> newest_{nullptr};
};

// Logs when a call ends, whether it returns or throws.
class LogAtEnd {
 public:
  explicit LogAtEnd(std::shared_ptr<Messages> messages) noexcept : messages_(std::move(messages)) {}
  ~LogAtEnd() { messages_->log(); }
  LogAtEnd(const LogAtEnd&) = delete;
  LogAtEnd& operator=(const LogAtEnd&) = delete;

 private:
  const std::shared_ptr<Messages> messages_;
};

}  // namespace tokcask::python
