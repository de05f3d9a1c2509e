#include "cache/write_lock.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <thread>
#include <utility>

#include <tokcask/error.h>

namespace tokcask {

namespace {

struct flock whole_file(short type) {
  struct flock lock{};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  return lock;
}

}  // namespace

WriteLock::WriteLock(std::filesystem::path file)
    : file_(std::move(file)), fd_(open(file_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)) {
  if (fd_ < 0)
    throw Error(Errc::kIo, fmt::format("{}: cannot open: {}", file_.string(), std::strerror(errno)));
}

WriteLock::~WriteLock() { close(fd_); }

bool WriteLock::try_lock() const {
  auto lock = whole_file(F_WRLCK);
  if (fcntl(fd_, F_SETLK, &lock) == 0) return true;
  if (errno == EACCES || errno == EAGAIN || errno == EINTR) return false;
  throw Error(Errc::kIo, fmt::format("{}: cannot lock: {}", file_.string(), std::strerror(errno)));
}

int WriteLock::holder() const noexcept {
  auto lock = whole_file(F_WRLCK);
  return fcntl(fd_, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK ? lock.l_pid : 0;
}

WriteLock::Hold WriteLock::acquire(std::chrono::milliseconds timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  // The kernel can wait for a lock, but not for a limited time.
  for (std::chrono::milliseconds pause{1}; !try_lock();
       pause = std::min(2 * pause, std::chrono::milliseconds{20})) {
    if (std::chrono::steady_clock::now() >= deadline) {
      const int pid = holder();
      throw Error(
          Errc::kBusy,
          fmt::format(
              "{}: {} has held the write lock for {:.1f} s; if it is stopped or hangs, continue or end it",
              file_.string(), pid > 0 ? fmt::format("process {}", pid) : "another process",
              static_cast<double>(timeout.count()) / 1000.0));
    }
    std::this_thread::sleep_for(pause);
  }
  return Hold(*this);
}

void WriteLock::release() const noexcept {
  auto lock = whole_file(F_UNLCK);
  fcntl(fd_, F_SETLK, &lock);
}

}  // namespace tokcask
