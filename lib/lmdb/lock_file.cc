#include "lmdb/lock_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <string>
#include <thread>

#include <tokcask/error.h>

namespace tokcask::lmdb {

namespace {

constexpr off_t kFirstByte = 0;
constexpr off_t kLastByte = std::numeric_limits<off_t>::max() - 1;

// A POSIX lock of this process.
void set_posix_lock(int fd, short type, off_t byte) noexcept {
  struct flock lock{};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = byte;
  lock.l_len = 1;
  while (fcntl(fd, F_SETLK, &lock) != 0 && errno == EINTR) continue;
}

}  // namespace

LockFile::LockFile(const std::filesystem::path& directory, const std::filesystem::path& data,
                   std::chrono::milliseconds timeout)
    : data_(data), path_(directory / "lock.mdb"), claim_(data) {
  if (!directory.empty()) fd_.open(path_.c_str(), O_RDWR);
  if (directory.empty() || (fd_.get() < 0 && errno == EROFS)) {
    claim_.claim_without_lock_file(timeout);
    return;
  }
  struct stat status{};
  if (fd_.get() < 0 || fstat(fd_.get(), &status) != 0)
    throw Error(Errc::kIo, fmt::format("{}: cannot open: {}", path_.string(), std::strerror(errno)));
  inode_ = status.st_ino;
  claim_.claim(path_, timeout);
  wait_for_turn(timeout);
}

void LockFile::wait_for_turn(std::chrono::milliseconds timeout) const {
  constexpr std::chrono::milliseconds kLongestPause{4};
  const auto deadline =
      std::chrono::steady_clock::now() + std::min<std::chrono::milliseconds>(timeout, kLongestWait);
  for (std::chrono::milliseconds pause{1}; os::set_lock(fd_.get(), F_WRLCK, kLastByte) == EAGAIN;
       pause = std::min(2 * pause, kLongestPause)) {
    if (std::chrono::steady_clock::now() >= deadline) {
      throw Error(
          Errc::kBusy,
          fmt::format("{}: another process is opening it; waited {:.1f} s for it. If that one is stopped "
                      "or hangs, continue or end it",
                      data_.string(), static_cast<double>(timeout.count()) / 1000.0));
    }
    std::this_thread::sleep_for(pause);
  }
}

void LockFile::keep_open() const noexcept {
  if (fd_.get() >= 0) static_cast<void>(os::set_lock(fd_.get(), F_RDLCK, kFirstByte));
}

void LockFile::keep_process() const noexcept {
  const int fd = fd_.get();
  if (fd < 0) return;
  // While neither lock is held, others may free this process's slots. None is in use.
  set_posix_lock(fd, F_UNLCK, getpid());
  if (os::set_lock(fd, F_WRLCK, getpid()) != 0) set_posix_lock(fd, F_WRLCK, getpid());
  static_cast<void>(os::set_lock(fd, F_UNLCK, kLastByte));
}

bool LockFile::is_in_place() const noexcept {
  struct stat status{};
  return fd_.get() < 0 || (stat(path_.c_str(), &status) == 0 && status.st_ino == inode_);
}

}  // namespace tokcask::lmdb
