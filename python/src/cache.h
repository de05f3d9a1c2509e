// TokenizedCache in Python.
#pragma once

#include <nanobind/nanobind.h>

#include <optional>
#include <string>

#include <tokcask/cache.h>

#include "logged.h"

namespace tokcask::python {

namespace nb = nanobind;

// What open() was told, so that a pickle can open the same store elsewhere.
struct OpenArguments {
  std::string path;  // absolute
  Options options;   // without on_message
};

// A store as Python holds it.
class Handle : public Logged<TokenizedCache> {
 public:
  explicit Handle(OpenArguments arguments);

  void close();
  [[nodiscard]] bool closed() const noexcept { return closed_; }

  // Also of a closed store: the figures it had then.
  [[nodiscard]] Stats stats();
  [[nodiscard]] std::uint64_t run_id();
  [[nodiscard]] const OpenArguments& arguments() const noexcept { return arguments_; }
  [[nodiscard]] const std::filesystem::path& root() const noexcept { return value().root(); }

 private:
  const OpenArguments arguments_;
  // Guarded by the GIL.
  bool closed_ = false;
  std::optional<Stats> last_stats_;
};

void bind_cache(nb::module_& module);

}  // namespace tokcask::python
