#include "cache/write_lock.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <ctime>
#include <list>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "cache/patience.h"
#include "os/clock.h"

namespace tokcask {

namespace {

struct flock whole_file(short type) {
  struct flock lock{};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  return lock;
}

struct Content {
  std::uint64_t pid = 0;
  std::uint64_t since_ns = 0;
};

// " since 2026-01-31 23:59:59 UTC (12 s)", or nothing for a time that is none.
std::string since(std::uint64_t then_ns) {
  constexpr std::uint64_t kSecond = 1'000'000'000;
  const std::uint64_t now = os::now_ns();
  const auto seconds = static_cast<std::time_t>(then_ns / kSecond);
  std::tm parts{};
  char text[32];
  if (then_ns == 0 || then_ns > now || gmtime_r(&seconds, &parts) == nullptr ||
      std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S UTC", &parts) == 0) {
    return {};
  }
  return fmt::format(" since {} ({} s)", text, (now - then_ns) / kSecond);
}

// For reading and writing, made if it is not there. Not through a link, and without waiting: what somebody
// put there in its place may be anything. Returns -1 with errno.
int open_regular(const std::filesystem::path& file, struct stat& status) {
  const int fd = open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0600);
  if (fd < 0) return -1;
  if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode)) return fd;
  close(fd);
  errno = EINVAL;
  return -1;
}

}  // namespace

// One descriptor per file and process.
struct WriteLock::Shared {
  std::pair<dev_t, ino_t> id;
  int fd = -1;
  std::vector<int> spare;  // of the same file; closed with `fd`
  unsigned users = 0;
  std::mutex mutex;
  std::atomic<std::uint64_t> since_ns{0};  // when this process took it last
};

struct WriteLock::Registry {
  std::mutex mutex;  // held while a descriptor is opened or closed
  std::list<Shared> files;

  Shared* find(const struct stat& status) {
    const auto found = std::find_if(files.begin(), files.end(), [&](const Shared& shared) {
      return shared.id == std::pair(status.st_dev, status.st_ino);
    });
    return found == files.end() ? nullptr : &*found;
  }
};

WriteLock::Registry& WriteLock::registry() {
  // A child has locks of its own. What it inherited is left as it is: a thread of the parent may have held
  // it.
  static std::atomic<Registry*> current{new Registry};
  static const int renewed = pthread_atfork(nullptr, nullptr, [] { current.store(new Registry); });
  static_cast<void>(renewed);
  return *current;
}

WriteLock::WriteLock(std::filesystem::path file) : file_(std::move(file)) {
  Registry& registry = WriteLock::registry();
  const std::lock_guard lock(registry.mutex);
  struct stat status{};
  shared_ = lstat(file_.c_str(), &status) == 0 ? registry.find(status) : nullptr;
  if (shared_ == nullptr) {
    const int fd = open_regular(file_, status);
    if (fd < 0) {
      const bool replaced = errno == ELOOP || errno == EINVAL || errno == ENXIO;
      throw Error(Errc::kIo, fmt::format("{}: {}", file_.string(),
                                         replaced ? "not a regular file; remove it, and it is made anew"
                                                  : fmt::format("cannot open: {}", std::strerror(errno))));
    }
    shared_ = registry.find(status);
    if (shared_ != nullptr) {
      shared_->spare.push_back(fd);  // it was put there a moment ago; closing it would drop the lock
    } else {
      shared_ = &registry.files.emplace_back();
      shared_->id = {status.st_dev, status.st_ino};
      shared_->fd = fd;
    }
  }
  ++shared_->users;
}

WriteLock::~WriteLock() {
  Registry& registry = WriteLock::registry();
  const std::lock_guard lock(registry.mutex);
  if (--shared_->users > 0) return;
  for (const int fd : shared_->spare) close(fd);
  close(shared_->fd);
  registry.files.remove_if([&](const Shared& shared) { return &shared == shared_; });
}

bool WriteLock::try_lock() const {
  auto lock = whole_file(F_WRLCK);
  if (fcntl(shared_->fd, F_SETLK, &lock) == 0) return true;
  if (errno == EACCES || errno == EAGAIN || errno == EINTR) return false;
  throw Error(Errc::kIo, fmt::format("{}: cannot lock: {}", file_.string(), std::strerror(errno)));
}

// Failing is no harm, nor is a full disk: then nobody is told since when.
void WriteLock::note_taken() const noexcept {
  const Content content{static_cast<std::uint64_t>(getpid()), os::now_ns()};
  shared_->since_ns = content.since_ns;
  static_cast<void>(pwrite(shared_->fd, &content, sizeof content, 0) == sizeof content);
}

std::string WriteLock::holder() const {
  auto lock = whole_file(F_WRLCK);
  if (fcntl(shared_->fd, F_GETLK, &lock) != 0 || lock.l_type == F_UNLCK || lock.l_pid <= 0)
    return "another process";
  Content content;
  if (pread(shared_->fd, &content, sizeof content, 0) != sizeof content ||
      content.pid != static_cast<std::uint64_t>(lock.l_pid)) {
    content.since_ns = 0;
  }
  return fmt::format("process {}{}", lock.l_pid, since(content.since_ns));
}

Error WriteLock::busy(const std::string& who, std::chrono::milliseconds waited) const {
  return {Errc::kBusy,
          fmt::format("{}: busy, held by {}; waited {:.1f} s for it. If the holder is stopped or hangs, "
                      "continue or end it",
                      file_.string(), who, static_cast<double>(waited.count()) / 1000.0)};
}

WriteLock::Hold WriteLock::acquire(std::chrono::milliseconds timeout) {
  constexpr std::chrono::milliseconds kLongest = std::chrono::hours(24);
  // The one that waits is not served in turn, so it looks often: whoever lets go for a moment lets it in.
  constexpr std::chrono::milliseconds kLongestPause{4};
  const auto deadline = std::chrono::steady_clock::now() + std::min(timeout, kLongest);
  Patience patience;
  std::unique_lock mutex(shared_->mutex, std::defer_lock);
  // Not a timed mutex: the thread sanitizer of g++ 12 does not see its clock lock.
  for (std::chrono::milliseconds pause{1}; !mutex.try_lock(); pause = std::min(2 * pause, kLongestPause)) {
    if (std::chrono::steady_clock::now() >= deadline)
      throw busy("another thread of this process" + since(shared_->since_ns), timeout);
    patience.check();
    std::this_thread::sleep_for(pause);
  }
  // The kernel can wait for a lock, but not for a limited time.
  for (std::chrono::milliseconds pause{1}; !try_lock(); pause = std::min(2 * pause, kLongestPause)) {
    if (std::chrono::steady_clock::now() >= deadline) throw busy(holder(), timeout);
    patience.check();
    std::this_thread::sleep_for(pause);
  }
  note_taken();
  return Hold(*this, std::move(mutex));
}

void WriteLock::release() const noexcept {
  auto lock = whole_file(F_UNLCK);
  if (fcntl(shared_->fd, F_SETLK, &lock) == 0) return;
  // Closing any descriptor of a file drops all that this process has locked of it.
  if (const int other = dup(shared_->fd); other >= 0) close(other);
}

}  // namespace tokcask
