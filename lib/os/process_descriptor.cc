#include "os/process_descriptor.h"

#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <mutex>
#include <utility>

namespace tokcask::os {

// A descriptor is opened with the mutex held, and fork() takes the mutex, so no child has one that is not in
// the list yet.
struct ProcessDescriptor::Registry {
  std::mutex mutex;
  ProcessDescriptor* first = nullptr;

  Registry() {
    pthread_atfork([] { get().mutex.lock(); }, [] { get().mutex.unlock(); },
                   [] {
                     get().close_all();
                     get().mutex.unlock();
                   });
  }
  // Never destroyed: descriptors may be closed while the process ends.
  static Registry& get() {
    static auto* const registry = new Registry;
    return *registry;
  }

  void add(ProcessDescriptor& descriptor) noexcept {
    descriptor.next_ = std::exchange(first, &descriptor);
    if (descriptor.next_ != nullptr) descriptor.next_->previous_ = &descriptor;
  }
  void remove(ProcessDescriptor& descriptor) noexcept {
    (descriptor.previous_ != nullptr ? descriptor.previous_->next_ : first) = descriptor.next_;
    if (descriptor.next_ != nullptr) descriptor.next_->previous_ = descriptor.previous_;
    descriptor.next_ = descriptor.previous_ = nullptr;
  }
  void close_all() noexcept {
    while (first != nullptr) {
      ::close(std::exchange(first->fd_, -1));
      remove(*first);
    }
  }
};

ProcessDescriptor::ProcessDescriptor(const char* path, int flags, mode_t mode) noexcept {
  open(path, flags, mode);
}

ProcessDescriptor::~ProcessDescriptor() { close(); }

void ProcessDescriptor::open(const char* path, int flags, mode_t mode) noexcept {
  close();
  Registry& registry = Registry::get();
  const std::lock_guard lock(registry.mutex);
  fd_ = ::open(path, flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, mode);
  if (fd_ >= 0) registry.add(*this);
}

void ProcessDescriptor::close() noexcept {
  Registry& registry = Registry::get();
  const std::lock_guard lock(registry.mutex);
  if (fd_ < 0) return;
  ::close(std::exchange(fd_, -1));
  registry.remove(*this);
}

namespace {

struct flock range_of(short type, off_t from, off_t end) noexcept {
  struct flock lock{};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = from;
  lock.l_len = end - from;
  return lock;
}

}  // namespace

int set_lock(int fd, short type, off_t from, off_t end) noexcept {
  if (from >= end) return 0;  // a length of 0 would be all that follows
  struct flock lock = range_of(type, from, end);
  int result = 0;
  do {
    result = fcntl(fd, F_OFD_SETLK, &lock);
  } while (result != 0 && errno == EINTR);
  return result == 0 ? 0 : errno == EACCES ? EAGAIN : errno;
}

off_t find_lock(int fd, off_t from, off_t end) noexcept {
  if (from >= end) return -1;
  struct flock lock = range_of(F_WRLCK, from, end);
  if (fcntl(fd, F_OFD_GETLK, &lock) != 0 || lock.l_type == F_UNLCK) return -1;
  return std::max(lock.l_start, from);
}

}  // namespace tokcask::os
