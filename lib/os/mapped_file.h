// A whole file, mapped to be read as bytes.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

namespace tokcask {

// As long as when it was opened. To touch what another process cuts off meanwhile is a signal (SIGBUS).
class MappedFile {
 public:
  // Throws Error(kIo), also for what is not a regular file.
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  [[nodiscard]] std::span<const std::byte> bytes() const noexcept {
    return {static_cast<const std::byte*>(base_), size_};
  }

 private:
  std::size_t size_ = 0;
  void* base_ = nullptr;
};

}  // namespace tokcask
