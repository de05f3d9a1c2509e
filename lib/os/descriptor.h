// Owns a file descriptor.
#pragma once

#include <unistd.h>

namespace tokcask::os {

class Descriptor {
 public:
  // Takes what open() returned; one less than 0 is nothing to close.
  explicit Descriptor(int fd) noexcept : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  [[nodiscard]] int get() const noexcept { return fd_; }

 private:
  const int fd_;
};

}  // namespace tokcask::os
