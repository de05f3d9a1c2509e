#include "corpus/file.h"

#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>

namespace tokcask::corpus {
namespace {

constexpr std::int64_t kNanosPerSecond = 1'000'000'000;

std::int64_t nanoseconds(const struct timespec& time) noexcept {
  return std::int64_t{time.tv_sec} * kNanosPerSecond + std::int64_t{time.tv_nsec};
}

}  // namespace

UniqueFd& UniqueFd::operator=(UniqueFd&& other) noexcept {
  if (this != &other) {
    reset();
    fd_ = other.release();
  }
  return *this;
}

void UniqueFd::reset() noexcept {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

FileIdentity identity_of(const struct stat& status) noexcept {
  FileIdentity identity;
  identity.size = static_cast<std::uint64_t>(status.st_size);
  identity.mtime_ns = nanoseconds(status.st_mtim);
  identity.ctime_ns = nanoseconds(status.st_ctim);
  identity.inode = status.st_ino;
  return identity;
}

std::int64_t realtime_ns() noexcept {
  struct timespec now = {};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return nanoseconds(now);
}

Settling settling(const FileIdentity& identity, std::int64_t now_ns) noexcept {
  const bool whole_seconds =
      identity.mtime_ns % kNanosPerSecond == 0 && identity.ctime_ns % kNanosPerSecond == 0;
  const std::chrono::nanoseconds age(now_ns - identity.ctime_ns);
  if (age.count() < 0) return {Recency::kUnsettled};
  if (whole_seconds && age < kCoarseTimestampTick) return {Recency::kUnsettled};
  if (age < kTimestampTick) return {Recency::kSoon, kTimestampTick - age};
  return {Recency::kSettled};
}

bool SettleBudget::sleep(std::chrono::nanoseconds wait) noexcept {
  if (left_.fetch_sub(wait.count(), std::memory_order_relaxed) < wait.count()) {
    left_.fetch_add(wait.count(), std::memory_order_relaxed);
    return false;
  }
  struct timespec left = {};
  left.tv_sec = static_cast<time_t>(wait.count() / kNanosPerSecond);
  left.tv_nsec = static_cast<long>(wait.count() % kNanosPerSecond);
  while (::nanosleep(&left, &left) != 0 && errno == EINTR) {
  }
  return true;
}

bool settle(int fd, SettleBudget& budget, FileIdentity& identity) noexcept {
  constexpr int kAttempts = 3;
  for (int attempt = 0;; ++attempt) {
    struct stat status;
    if (::fstat(fd, &status) != 0) return false;
    identity = identity_of(status);
    const Settling state = settling(identity, realtime_ns());
    if (state.recency == Recency::kSettled) return true;
    if (state.recency == Recency::kUnsettled || attempt == kAttempts || !budget.sleep(state.wait)) {
      return false;
    }
  }
}

int read_all(int fd, std::uint64_t expected_bytes, std::uint64_t max_bytes, std::string& text) {
  if (expected_bytes > max_bytes) return EFBIG;
  // One byte more than expected, so that the end of an unchanged file shows without growing the buffer.
  text.resize(static_cast<std::size_t>(expected_bytes) + 1);
  std::size_t filled = 0;
  for (;;) {
    const ssize_t count = ::pread(fd, text.data() + filled, text.size() - filled, static_cast<off_t>(filled));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno;
    if (count == 0) break;
    filled += static_cast<std::size_t>(count);
    if (filled > max_bytes) return EFBIG;
    if (filled == text.size()) text.resize(filled * 2);
  }
  text.resize(filled);
  return 0;
}

FileContent read_file(const std::string& path, SettleBudget& budget, std::uint64_t max_bytes) {
  constexpr int kAttempts = 3;
  FileContent result;
  // O_NONBLOCK: a FIFO that took a file's place must not hold the run up. It does nothing to regular files.
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  struct stat status;
  if (!fd.valid() || ::fstat(fd.get(), &status) != 0) {
    result.error = errno;
    return result;
  }
  if (!S_ISREG(status.st_mode)) {
    result.status = ReadStatus::kSpecial;
    return result;
  }
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const bool settled = settle(fd.get(), budget, result.identity);
    if (!settled && ::fstat(fd.get(), &status) == 0) result.identity = identity_of(status);
    result.error = read_all(fd.get(), result.identity.size, max_bytes, result.text);
    if (result.error != 0) break;
    if (::fstat(fd.get(), &status) == 0 && identity_of(status) == result.identity &&
        result.text.size() == result.identity.size) {
      result.sound = settled;
      break;
    }
  }
  if (result.error == 0) {
    result.status = ReadStatus::kOk;
  } else {
    result.status = result.error == EFBIG ? ReadStatus::kTooLarge : ReadStatus::kUnreadable;
    result.text = std::string();
  }
  return result;
}

}  // namespace tokcask::corpus
