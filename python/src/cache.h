// TokenizedCache in Python.
#pragma once

#include <nanobind/nanobind.h>

#include <memory>
#include <optional>
#include <string>

#include <tokcask/cache.h>

#include "messages.h"

namespace tokcask::python {

namespace nb = nanobind;

// What open() was told, so that a pickle can open the same store elsewhere.
struct OpenArguments {
  std::string path;  // absolute
  Options options;   // without on_message
};

// A store as Python holds it. Every call that may wait does so without the GIL. Messages of the store are
// logged when a call ends.
class Handle {
 public:
  explicit Handle(OpenArguments arguments);
  ~Handle();
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;

  // Calls `work(store)` without the GIL.
  template <typename Work>
  auto without_gil(Work work) {
    const LogAtEnd log(messages_);
    const nb::gil_scoped_release release;
    return work(*store_);
  }
  // Calls `work(store)` with it, for what is over before the GIL could be given away.
  template <typename Work>
  auto with_gil(Work work) {
    const LogAtEnd log(messages_);
    return work(*store_);
  }

  void close();
  [[nodiscard]] bool closed() const noexcept { return closed_; }

  // Also of a closed store: the figures it had then.
  [[nodiscard]] Stats stats();
  [[nodiscard]] const OpenArguments& arguments() const noexcept { return arguments_; }
  [[nodiscard]] const std::filesystem::path& root() const noexcept { return store_->root(); }

 private:
  const OpenArguments arguments_;
  const std::shared_ptr<Messages> messages_ = std::make_shared<Messages>();
  std::optional<TokenizedCache> store_;
  // Guarded by the GIL.
  bool closed_ = false;
  std::optional<Stats> last_stats_;
};

void bind_cache(nb::module_& module);

}  // namespace tokcask::python
