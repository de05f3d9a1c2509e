#include "cache/write_lock.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <list>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

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

// One descriptor per file and process.
struct WriteLock::Shared {
  std::pair<dev_t, ino_t> id;
  int fd = -1;
  std::vector<int> spare;  // of the same file; closed with `fd`
  unsigned users = 0;
  std::mutex mutex;
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
  shared_ = stat(file_.c_str(), &status) == 0 ? registry.find(status) : nullptr;
  if (shared_ == nullptr) {
    const int fd = open(file_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    const int error = fd < 0 || fstat(fd, &status) != 0 ? errno : 0;
    if (error != 0) {
      if (fd >= 0) close(fd);
      throw Error(Errc::kIo, fmt::format("{}: cannot open: {}", file_.string(), std::strerror(error)));
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

int WriteLock::holder() const noexcept {
  auto lock = whole_file(F_WRLCK);
  return fcntl(shared_->fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK ? lock.l_pid : 0;
}

WriteLock::Hold WriteLock::acquire(std::chrono::milliseconds timeout) {
  constexpr std::chrono::milliseconds kLongest = std::chrono::hours(24);
  // The one that waits is not served in turn, so it looks often: whoever lets go for a moment lets it in.
  constexpr std::chrono::milliseconds kLongestPause{4};
  const auto deadline = std::chrono::steady_clock::now() + std::min(timeout, kLongest);
  const auto busy = [&](std::string_view who) {
    return Error(
        Errc::kBusy,
        fmt::format(
            "{}: {} has held the write lock for {:.1f} s; if it is stopped or hangs, continue or end it",
            file_.string(), who, static_cast<double>(timeout.count()) / 1000.0));
  };
  std::unique_lock mutex(shared_->mutex, std::defer_lock);
  // Not a timed mutex: the thread sanitizer of g++ 12 does not see its clock lock.
  for (std::chrono::milliseconds pause{1}; !mutex.try_lock(); pause = std::min(2 * pause, kLongestPause)) {
    if (std::chrono::steady_clock::now() >= deadline) throw busy("another thread of this process");
    std::this_thread::sleep_for(pause);
  }
  // The kernel can wait for a lock, but not for a limited time.
  for (std::chrono::milliseconds pause{1}; !try_lock(); pause = std::min(2 * pause, kLongestPause)) {
    if (std::chrono::steady_clock::now() >= deadline) {
      const int pid = holder();
      throw busy(pid > 0 ? fmt::format("process {}", pid) : "another process");
    }
    std::this_thread::sleep_for(pause);
  }
  return Hold(*this, std::move(mutex));
}

void WriteLock::release() const noexcept {
  auto lock = whole_file(F_UNLCK);
  fcntl(shared_->fd, F_SETLK, &lock);
}

}  // namespace tokcask
