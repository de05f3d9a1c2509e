// Both names of each function are defined, for callers with and without _FILE_OFFSET_BITS.
#undef _FILE_OFFSET_BITS
#include "calls.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <atomic>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define TOKCASK_TEST_OWN_MALLOC 0
#else
#define TOKCASK_TEST_OWN_MALLOC 1
#endif

namespace tokcask::test {

namespace {

constexpr std::array<std::string_view, kCalls> kNames = {"open", "read", "write", "sync",   "allocate", "map",
                                                         "name", "look", "lock",  "thread", "memory"};
constexpr std::array<int, kCalls> kErrors = {EMFILE, EIO, ENOSPC, EIO,    ENOSPC, ENOMEM,
                                             EACCES, EIO, ENOLCK, EAGAIN, ENOMEM};

// Read by every thread; changed while only one runs.
char watched[PATH_MAX];
std::size_t watched_bytes = 0;
Failure failure;
std::atomic<bool> armed{false};
std::atomic<int> inside{0};
std::array<std::atomic<std::uint64_t>, kCalls> made{};
std::atomic<std::uint64_t> failed{0};
std::atomic<CallLog*> log{nullptr};
std::atomic<std::int64_t> clock_shift{0};

// The function that this program's hides.
template <typename Function>
Function* next(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

// Counts a call. True when it is to fail, and then errno is set.
bool fails(Call call) {
  if (inside.load(std::memory_order_relaxed) == 0) return false;
  const std::uint64_t count = made[static_cast<std::size_t>(call)].fetch_add(1) + 1;
  if (!armed.load(std::memory_order_relaxed) || call != failure.call) return false;
  if (failure.from_then_on ? count < failure.nth : count != failure.nth) return false;
  failed.fetch_add(1);
  errno = failure.error;
  return true;
}

bool is_watched(const char* path) {
  return watched_bytes > 0 && strncmp(path, watched, watched_bytes) == 0 &&
         (path[watched_bytes] == '/' || path[watched_bytes] == '\0');
}

// A path as an absolute one.
struct Path {
  char text[PATH_MAX] = {};
  Path(int directory, const char* path) {
    if (path[0] == '/' || directory == AT_FDCWD) {
      snprintf(text, sizeof text, "%s", path);
      return;
    }
    of(directory);
    const std::size_t size = strlen(text);
    snprintf(text + size, sizeof text - size, "/%s", path);
  }
  explicit Path(int fd) { of(fd); }

 private:
  void of(int fd) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    const ssize_t size = readlink(link, text, sizeof text - 1);
    text[size > 0 ? size : 0] = '\0';
  }
};

bool is_active() { return inside.load(std::memory_order_relaxed) > 0 || log.load() != nullptr; }
bool is_watched(int fd) { return fd >= 0 && is_active() && is_watched(Path(fd).text); }
bool fails(Call call, int fd) { return is_watched(fd) && fails(call); }
bool fails(Call call, int directory, const char* path) {
  return is_active() && is_watched(Path(directory, path).text) && fails(call);
}

CallLog* log_of(int fd) {
  CallLog* const to = log.load();
  return to != nullptr && is_watched(fd) ? to : nullptr;
}
CallLog* log_of(const char* path) {
  CallLog* const to = log.load();
  return to != nullptr && is_watched(path) ? to : nullptr;
}

bool halves(int fd, std::size_t size) { return failure.half && size > 1 && fails(Call::kWrite, fd); }

int do_open(int directory, const char* path, int flags, mode_t mode) {
  static auto* const real = next<int(int, const char*, int, ...)>("openat64");
  const Path absolute(directory, path);
  if (is_active() && is_watched(absolute.text) && fails(Call::kOpen)) return -1;
  struct stat status;
  const bool is_new = (flags & O_CREAT) != 0 && fstatat(directory, path, &status, AT_SYMLINK_NOFOLLOW) != 0;
  const int fd = real(directory, path, flags, mode);
  if (fd >= 0 && is_new) {
    if (CallLog* const to = log_of(absolute.text)) to->made_file(absolute.text, fd);
  }
  return fd;
}

ssize_t do_pwrite(int fd, const void* data, size_t size, off64_t offset) {
  static auto* const real = next<ssize_t(int, const void*, size_t, off64_t)>("pwrite64");
  if (failure.half ? halves(fd, size) : fails(Call::kWrite, fd)) {
    if (!failure.half) return -1;
    size /= 2;
  }
  const ssize_t n = real(fd, data, size, offset);
  if (CallLog* const to = n > 0 ? log_of(fd) : nullptr) {
    to->wrote(fd, static_cast<std::uint64_t>(offset),
              {static_cast<const std::byte*>(data), static_cast<std::size_t>(n)});
  }
  return n;
}

int do_sync(int fd, int (*real)(int)) {
  if (fails(Call::kSync, fd)) return -1;
  CallLog* const to = log_of(fd);
  if (to != nullptr) to->syncing(fd);
  const int result = real(fd);
  if (to != nullptr && result == 0) to->synced(fd);
  return result;
}

void log_size(int fd, off64_t size, bool may_shrink) {
  if (CallLog* const to = log_of(fd)) to->resized(fd, static_cast<std::uint64_t>(size), may_shrink);
}

int do_truncate(int fd, off64_t size) {
  static auto* const real = next<int(int, off64_t)>("ftruncate64");
  if (fails(Call::kAllocate, fd)) return -1;
  const int result = real(fd, size);
  if (result == 0) log_size(fd, size, true);
  return result;
}

int do_fallocate(int fd, int mode, off64_t offset, off64_t size) {
  static auto* const real = next<int(int, int, off64_t, off64_t)>("fallocate64");
  if (fails(Call::kAllocate, fd)) return -1;
  const int result = real(fd, mode, offset, size);
  if (result == 0 && mode == 0) log_size(fd, offset + size, false);
  return result;
}

// Returns an error and leaves errno alone.
int do_posix_fallocate(int fd, off64_t offset, off64_t size) {
  static auto* const real = next<int(int, off64_t, off64_t)>("posix_fallocate64");
  const int before = errno;
  if (fails(Call::kAllocate, fd)) {
    errno = before;
    return failure.error;
  }
  const int result = real(fd, offset, size);
  if (result == 0) log_size(fd, offset + size, false);
  return result;
}

void* do_mmap(void* address, size_t size, int protection, int flags, int fd, off64_t offset) {
  static auto* const real = next<void*(void*, size_t, int, int, int, off64_t)>("mmap64");
  const bool counts = (flags & MAP_ANONYMOUS) != 0 || fd < 0 || is_watched(fd);
  if (counts && fails(Call::kMap)) return MAP_FAILED;
  return real(address, size, protection, flags, fd, offset);
}

int do_fcntl(int fd, int command, void* argument) {
  static auto* const real = next<int(int, int, ...)>("fcntl64");
  const bool locks = command == F_SETLK || command == F_SETLKW || command == F_GETLK;
  if (locks && fails(Call::kLock, fd)) return -1;
  return real(fd, command, argument);
}

int do_unlink(int directory, const char* path, int flags) {
  static auto* const real = next<int(int, const char*, int)>("unlinkat");
  const Path absolute(directory, path);
  if (is_active() && is_watched(absolute.text) && fails(Call::kName)) return -1;
  const int result = real(directory, path, flags);
  if (CallLog* const to = result == 0 ? log_of(absolute.text) : nullptr) to->removed(absolute.text);
  return result;
}

}  // namespace

const bool kMallocIsOurs = TOKCASK_TEST_OWN_MALLOC != 0;

std::string_view name_of(Call call) { return kNames[static_cast<std::size_t>(call)]; }
int usual_error_of(Call call) { return kErrors[static_cast<std::size_t>(call)]; }

void watch_calls(const std::filesystem::path& directory) {
  snprintf(watched, sizeof watched, "%s", directory.c_str());
  watched_bytes = strlen(watched);
}

void arm_calls(const std::optional<Failure>& wanted) {
  for (auto& count : made) count = 0;
  failed = 0;
  failure = wanted.value_or(Failure{});
  armed = wanted.has_value();
}

void disarm_calls() {
  armed = false;
  failure = Failure{};
}

std::uint64_t calls_made(Call call) { return made[static_cast<std::size_t>(call)]; }
std::uint64_t calls_failed() { return failed; }

Inside::Inside() { ++inside; }
Inside::~Inside() { --inside; }

void log_calls(CallLog* to) { log = to; }

void shift_clock(std::int64_t nanoseconds) { clock_shift = nanoseconds; }

}  // namespace tokcask::test

// ---- The program's own ----

using namespace tokcask::test;

extern "C" {

// NOLINTBEGIN
int open(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = va_arg(arguments, mode_t);
  va_end(arguments);
  return do_open(AT_FDCWD, path, flags, mode);
}
int open64(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = va_arg(arguments, mode_t);
  va_end(arguments);
  return do_open(AT_FDCWD, path, flags, mode);
}
int openat(int directory, const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = va_arg(arguments, mode_t);
  va_end(arguments);
  return do_open(directory, path, flags, mode);
}
int openat64(int directory, const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = va_arg(arguments, mode_t);
  va_end(arguments);
  return do_open(directory, path, flags, mode);
}

ssize_t read(int fd, void* data, size_t size) {
  static auto* const real = next<ssize_t(int, void*, size_t)>("read");
  return fails(Call::kRead, fd) ? -1 : real(fd, data, size);
}
ssize_t pread(int fd, void* data, size_t size, off_t offset) {
  static auto* const real = next<ssize_t(int, void*, size_t, off_t)>("pread");
  return fails(Call::kRead, fd) ? -1 : real(fd, data, size, offset);
}
ssize_t pread64(int fd, void* data, size_t size, off64_t offset) { return pread(fd, data, size, offset); }

ssize_t pwrite(int fd, const void* data, size_t size, off_t offset) {
  return do_pwrite(fd, data, size, offset);
}
ssize_t pwrite64(int fd, const void* data, size_t size, off64_t offset) {
  return do_pwrite(fd, data, size, offset);
}
ssize_t write(int fd, const void* data, size_t size) {
  static auto* const real = next<ssize_t(int, const void*, size_t)>("write");
  if (!is_watched(fd)) return real(fd, data, size);
  const off_t at = lseek(fd, 0, SEEK_CUR);
  const ssize_t n = do_pwrite(fd, data, size, at);
  if (n > 0) lseek(fd, at + n, SEEK_SET);
  return n;
}
ssize_t writev(int fd, const iovec* parts, int count) {
  static auto* const real = next<ssize_t(int, const iovec*, int)>("writev");
  if (!is_watched(fd)) return real(fd, parts, count);
  // As one call: what it writes is put together first.
  size_t size = 0;
  for (int i = 0; i < count; ++i) size += parts[i].iov_len;
  static auto* const map = next<void*(void*, size_t, int, int, int, off64_t)>("mmap64");
  void* const all = map(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (all == MAP_FAILED) abort();
  size_t at = 0;
  for (int i = 0; i < count; ++i) {
    memcpy(static_cast<char*>(all) + at, parts[i].iov_base, parts[i].iov_len);
    at += parts[i].iov_len;
  }
  const ssize_t n = write(fd, all, size);
  munmap(all, size);
  return n;
}

int fsync(int fd) {
  static auto* const real = next<int(int)>("fsync");
  return do_sync(fd, real);
}
int fdatasync(int fd) {
  static auto* const real = next<int(int)>("fdatasync");
  return do_sync(fd, real);
}
int msync(void* address, size_t size, int flags) {
  static auto* const real = next<int(void*, size_t, int)>("msync");
  return fails(Call::kSync) ? -1 : real(address, size, flags);
}

int ftruncate(int fd, off_t size) noexcept { return do_truncate(fd, size); }
int ftruncate64(int fd, off64_t size) noexcept { return do_truncate(fd, size); }
int fallocate(int fd, int mode, off_t offset, off_t size) { return do_fallocate(fd, mode, offset, size); }
int fallocate64(int fd, int mode, off64_t offset, off64_t size) {
  return do_fallocate(fd, mode, offset, size);
}
int posix_fallocate(int fd, off_t offset, off_t size) { return do_posix_fallocate(fd, offset, size); }
int posix_fallocate64(int fd, off64_t offset, off64_t size) { return do_posix_fallocate(fd, offset, size); }

void* mmap(void* address, size_t size, int protection, int flags, int fd, off_t offset) noexcept {
  return do_mmap(address, size, protection, flags, fd, offset);
}
void* mmap64(void* address, size_t size, int protection, int flags, int fd, off64_t offset) noexcept {
  return do_mmap(address, size, protection, flags, fd, offset);
}

int fcntl(int fd, int command, ...) {
  va_list arguments;
  va_start(arguments, command);
  void* const argument = va_arg(arguments, void*);
  va_end(arguments);
  return do_fcntl(fd, command, argument);
}
int fcntl64(int fd, int command, ...) {
  va_list arguments;
  va_start(arguments, command);
  void* const argument = va_arg(arguments, void*);
  va_end(arguments);
  return do_fcntl(fd, command, argument);
}

int rename(const char* from, const char* to) noexcept {
  static auto* const real = next<int(const char*, const char*)>("rename");
  if (fails(Call::kName, AT_FDCWD, to)) return -1;
  const int result = real(from, to);
  if (CallLog* const told = result == 0 ? log_of(to) : nullptr) told->renamed(from, to);
  return result;
}
int link(const char* from, const char* to) noexcept {
  static auto* const real = next<int(const char*, const char*)>("link");
  if (fails(Call::kName, AT_FDCWD, to)) return -1;
  const int result = real(from, to);
  if (CallLog* const told = result == 0 ? log_of(to) : nullptr) told->linked(from, to);
  return result;
}
int symlink(const char* target, const char* path) noexcept {
  static auto* const real = next<int(const char*, const char*)>("symlink");
  if (fails(Call::kName, AT_FDCWD, path)) return -1;
  const int result = real(target, path);
  if (CallLog* const told = result == 0 ? log_of(path) : nullptr) told->made_symlink(target, path);
  return result;
}
int mkdir(const char* path, mode_t mode) noexcept {
  static auto* const real = next<int(const char*, mode_t)>("mkdir");
  if (fails(Call::kName, AT_FDCWD, path)) return -1;
  const int result = real(path, mode);
  if (CallLog* const told = result == 0 ? log_of(path) : nullptr) told->made_directory(path);
  return result;
}
int unlink(const char* path) noexcept { return do_unlink(AT_FDCWD, path, 0); }
int rmdir(const char* path) noexcept { return do_unlink(AT_FDCWD, path, AT_REMOVEDIR); }
int unlinkat(int directory, const char* path, int flags) noexcept {
  return do_unlink(directory, path, flags);
}

int stat(const char* path, struct stat* status) noexcept {
  static auto* const real = next<int(const char*, struct stat*)>("stat");
  return fails(Call::kLook, AT_FDCWD, path) ? -1 : real(path, status);
}
int stat64(const char* path, struct stat64* status) noexcept {
  static auto* const real = next<int(const char*, struct stat64*)>("stat64");
  return fails(Call::kLook, AT_FDCWD, path) ? -1 : real(path, status);
}
int lstat(const char* path, struct stat* status) noexcept {
  static auto* const real = next<int(const char*, struct stat*)>("lstat");
  return fails(Call::kLook, AT_FDCWD, path) ? -1 : real(path, status);
}
int lstat64(const char* path, struct stat64* status) noexcept {
  static auto* const real = next<int(const char*, struct stat64*)>("lstat64");
  return fails(Call::kLook, AT_FDCWD, path) ? -1 : real(path, status);
}
int fstat(int fd, struct stat* status) noexcept {
  static auto* const real = next<int(int, struct stat*)>("fstat");
  return fails(Call::kLook, fd) ? -1 : real(fd, status);
}
int fstat64(int fd, struct stat64* status) noexcept {
  static auto* const real = next<int(int, struct stat64*)>("fstat64");
  return fails(Call::kLook, fd) ? -1 : real(fd, status);
}
int __fxstat(int version, int fd, struct stat* status) noexcept {
  static_cast<void>(version);
  return fstat(fd, status);
}
int statfs64(const char* path, struct statfs64* status) noexcept {
  static auto* const real = next<int(const char*, struct statfs64*)>("statfs64");
  return fails(Call::kLook, AT_FDCWD, path) ? -1 : real(path, status);
}
int fstatfs(int fd, struct statfs* status) noexcept {
  static auto* const real = next<int(int, struct statfs*)>("fstatfs");
  return fails(Call::kLook, fd) ? -1 : real(fd, status);
}
int access(const char* path, int mode) noexcept {
  static auto* const real = next<int(const char*, int)>("access");
  return fails(Call::kLook, AT_FDCWD, path) ? -1 : real(path, mode);
}

int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*run)(void*),
                   void* argument) noexcept {
  static auto* const real =
      next<int(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*)>("pthread_create");
  return fails(Call::kThread) ? errno : real(thread, attributes, run, argument);
}

int clock_gettime(clockid_t clock, timespec* now) noexcept {
  static auto* const real = next<int(clockid_t, timespec*)>("clock_gettime");
  const int result = real(clock, now);
  if (const std::int64_t shift = clock_shift.load(); shift != 0 && clock == CLOCK_REALTIME) {
    constexpr std::int64_t kSecond = 1'000'000'000;
    const std::int64_t moved = now->tv_sec * kSecond + now->tv_nsec + shift;
    now->tv_sec = moved / kSecond;
    now->tv_nsec = moved % kSecond;
  }
  return result;
}

#if TOKCASK_TEST_OWN_MALLOC
void* __libc_malloc(size_t size);
void* __libc_calloc(size_t count, size_t size);
void* __libc_realloc(void* memory, size_t size);
void* __libc_memalign(size_t alignment, size_t size);

void* malloc(size_t size) noexcept { return fails(Call::kMemory) ? nullptr : __libc_malloc(size); }
void* calloc(size_t count, size_t size) noexcept {
  return fails(Call::kMemory) ? nullptr : __libc_calloc(count, size);
}
void* realloc(void* memory, size_t size) noexcept {
  return fails(Call::kMemory) ? nullptr : __libc_realloc(memory, size);
}
void* aligned_alloc(size_t alignment, size_t size) noexcept {
  return fails(Call::kMemory) ? nullptr : __libc_memalign(alignment, size);
}
int posix_memalign(void** memory, size_t alignment, size_t size) noexcept {
  if (fails(Call::kMemory)) return ENOMEM;
  *memory = __libc_memalign(alignment, size);
  return *memory == nullptr ? ENOMEM : 0;
}
#endif
// NOLINTEND

}  // extern "C"
