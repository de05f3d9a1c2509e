// What a movable handle points to. No part of the interface.
#pragma once

#include <memory>
#include <utility>

#include <tokcask/export.h>

namespace tokcask::detail {

// Throws Error(kClosed).
[[noreturn]] TOKCASK_API void throw_moved_from();

// A std::unique_ptr that throws where it is used empty: its handle was moved from.
template <typename T>
class ImplPtr {
 public:
  explicit ImplPtr(std::unique_ptr<T> impl) noexcept : impl_(std::move(impl)) {}

  T* operator->() const {
    if (!impl_) throw_moved_from();
    return impl_.get();
  }
  explicit operator bool() const noexcept { return impl_ != nullptr; }

 private:
  std::unique_ptr<T> impl_;
};

}  // namespace tokcask::detail
