#include "lmdb/lock_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <limits>
#include <string>
#include <thread>

#include <tokcask/error.h>

namespace tokcask::lmdb {

namespace {

constexpr off_t kLastByte = std::numeric_limits<off_t>::max() - 1;

// Whether the range can be locked for writing, so nobody else has a lock in it. True also where that cannot
// be asked.
bool is_free(int fd, off_t from, off_t end) {
  if (from >= end) return true;
  struct flock lock{};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = from;
  lock.l_len = end - from;
  return fcntl(fd, F_OFD_GETLK, &lock) != 0 || lock.l_type == F_UNLCK;
}

// False if somebody else's lock is in the way. True also where there are no such locks.
bool set(int fd, short type, off_t byte) {
  struct flock lock{};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = byte;
  lock.l_len = 1;
  int result = 0;
  do {
    result = fcntl(fd, F_OFD_SETLK, &lock);
  } while (result != 0 && errno == EINTR);
  return result == 0 || (errno != EAGAIN && errno != EACCES);
}

bool is_short(const struct stat& status) {
  return static_cast<std::uint64_t>(status.st_size) < kLeastLockFileBytes;
}

}  // namespace

LockFile::LockFile(const std::filesystem::path& directory, const std::filesystem::path& data,
                   std::chrono::milliseconds timeout)
    : path_(directory / "lock.mdb") {
  data_fd_ = open(data.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
  if (data_fd_ < 0)
    throw Error(Errc::kIo, fmt::format("{}: cannot open: {}", data.string(), std::strerror(errno)));
  // Others may be about to close the data file, or to find out the same as this process.
  constexpr int kMostLooks = 8;
  for (int look = 1; !claim(); ++look) {
    if (look < kMostLooks) {
      std::this_thread::sleep_for(std::chrono::milliseconds(look * look));
      continue;
    }
    close(data_fd_);
    throw Error(
        Errc::kBusy,
        fmt::format("{}: others have it open with another lock file than {}, so they and this process would "
                    "not see each other. Either it is open by another name too (a hard link): then copy "
                    "it instead of linking it. Or the lock file was removed, replaced or cut short while it "
                    "was in use: then close the store in all processes, and open it again",
                    data.string(), path_.string()));
  }
  // LMDB's lock file is not to be closed while LMDB has it open: that is before, or after.
  lock_fd_ = open(path_.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
  constexpr std::chrono::milliseconds kLongest = std::chrono::hours(24);
  constexpr std::chrono::milliseconds kLongestPause{4};
  const auto deadline = std::chrono::steady_clock::now() + std::min(timeout, kLongest);
  for (std::chrono::milliseconds pause{1}; !set(lock_fd_, F_WRLCK, kLastByte);
       pause = std::min(2 * pause, kLongestPause)) {
    if (std::chrono::steady_clock::now() >= deadline) {
      close(lock_fd_);
      close(data_fd_);
      throw Error(
          Errc::kBusy,
          fmt::format("{}: another process is opening it; waited {:.1f} s for it. If that one is stopped "
                      "or hangs, continue or end it",
                      data.string(), static_cast<double>(timeout.count()) / 1000.0));
    }
    std::this_thread::sleep_for(pause);
  }
}

// Says which lock file it is, and then looks for others, so of two at the same time one at least sees the
// other.
bool LockFile::claim() {
  struct stat status{};
  if (stat(path_.c_str(), &status) != 0) return false;
  inode_ = status.st_ino;
  const auto byte = static_cast<off_t>(inode_ % static_cast<ino_t>(kLastByte));
  set(data_fd_, F_RDLCK, byte);
  // LMDB makes it long enough when it is the only one.
  if (is_free(data_fd_, 0, byte) && is_free(data_fd_, byte + 1, kLastByte) &&
      (!is_short(status) || is_free(data_fd_, byte, byte + 1))) {
    return true;
  }
  set(data_fd_, F_UNLCK, byte);
  return false;
}

// A child that was forked has the same locks; they end here for it too.
LockFile::~LockFile() {
  if (lock_fd_ >= 0) {
    set(lock_fd_, F_UNLCK, 0);
    set(lock_fd_, F_UNLCK, kLastByte);
    close(lock_fd_);
  }
  close(data_fd_);
}

void LockFile::opened() const noexcept { set(lock_fd_, F_UNLCK, kLastByte); }

void LockFile::closing() const noexcept { set(lock_fd_, F_RDLCK, 0); }

bool LockFile::is_in_place() const noexcept {
  struct stat status{};
  return stat(path_.c_str(), &status) == 0 && status.st_ino == inode_;
}

}  // namespace tokcask::lmdb
