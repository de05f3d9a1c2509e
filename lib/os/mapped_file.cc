#include "os/mapped_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include <tokcask/error.h>

namespace tokcask {

MappedFile::MappedFile(const std::filesystem::path& path) {
  const auto fail = [&](const char* doing, int error) {
    return Error(Errc::kIo, fmt::format("{}: cannot {}: {}", path.string(), doing, std::strerror(error)));
  };
  // Without waiting for a FIFO that lies in its place.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0) throw fail("open", errno);
  struct stat status{};
  int error = fstat(fd, &status) == 0 ? 0 : errno;
  const bool regular = error == 0 && S_ISREG(status.st_mode);
  if (regular && status.st_size > 0) {
    size_ = static_cast<std::size_t>(status.st_size);
    base_ = mmap(nullptr, size_, PROT_READ, MAP_SHARED, fd, 0);
    if (base_ == MAP_FAILED) error = errno;
  }
  close(fd);
  if (error != 0) throw fail("read", error);
  if (!regular) {
    throw Error(Errc::kIo, fmt::format("{}: not a regular file, so not a store", path.string()));
  }
}

MappedFile::~MappedFile() {
  if (base_ != nullptr) munmap(base_, size_);
}

}  // namespace tokcask
