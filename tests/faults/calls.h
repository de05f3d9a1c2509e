// System calls and allocations of this program that fail when a test says so, and that tell what they did.
//
// calls.cc defines open(), pwrite(), malloc() and so on; being the program's own, they come before those of
// the C library, for liblmdb and libstdc++ too. Each does what it always does, unless it is the n-th of its
// kind that the library makes (between Inside's begin and end) on a path below the watched directory; calls
// without a path (threads, allocations, anonymous maps) count wherever they are made.
//
// Under a sanitizer allocations are left to it.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace tokcask::test {

enum class Call {
  kOpen,      // open, openat
  kRead,      // read, pread
  kWrite,     // write, pwrite, writev
  kSync,      // fsync, fdatasync, msync
  kAllocate,  // fallocate, posix_fallocate, ftruncate
  kMap,       // mmap
  kName,      // rename, link, symlink, unlink, unlinkat, mkdir, rmdir
  kLook,      // stat, lstat, fstat, statfs, fstatfs, access
  kLock,      // fcntl for a lock
  kThread,    // pthread_create
  kMemory,    // malloc, calloc, realloc, posix_memalign, aligned_alloc
};
inline constexpr std::size_t kCalls = 11;
// Whether allocations can be made to fail.
extern const bool kMallocIsOurs;
[[nodiscard]] std::string_view name_of(Call call);
// What this kind of call fails with, most often.
[[nodiscard]] int usual_error_of(Call call);

struct Failure {
  Call call = Call::kWrite;
  std::uint64_t nth = 1;  // from 1 on
  int error = 0;          // errno
  bool from_then_on = false;
  bool half = false;  // a write writes half, and fails at nothing
};

// ---- Failing ----

// Calls count, and fail, on paths below this directory.
void watch_calls(const std::filesystem::path& directory);
// Forgets what was counted. Nothing: counts alone.
void arm_calls(const std::optional<Failure>& failure);
void disarm_calls();
// How many there were since they were armed, and how many of them failed.
[[nodiscard]] std::uint64_t calls_made(Call call);
[[nodiscard]] std::uint64_t calls_failed();

// While one lives, calls of all threads count.
class Inside {
 public:
  Inside();
  ~Inside();
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;
};

// ---- Telling ----

// Is told of changes below the watched directory, and of directories there and above, when they have
// succeeded; by the thread that made them.
class CallLog {
 public:
  virtual ~CallLog() = default;
  virtual void made_file(const std::string& path, int fd) = 0;
  virtual void wrote(int fd, std::uint64_t offset, std::span<const std::byte> bytes) = 0;
  virtual void resized(int fd, std::uint64_t size, bool may_shrink) = 0;
  // Begins and has succeeded: what was written before it began is durable.
  virtual void syncing(int fd) = 0;
  virtual void synced(int fd) = 0;
  virtual void linked(const std::string& from, const std::string& to) = 0;
  virtual void renamed(const std::string& from, const std::string& to) = 0;
  virtual void removed(const std::string& path) = 0;
  virtual void made_symlink(const std::string& target, const std::string& path) = 0;
  virtual void made_directory(const std::string& path) = 0;
};
// Null: nobody.
void log_calls(CallLog* log);

// ---- The clock ----

// Added to what the real-time clock says, in nanoseconds.
void shift_clock(std::int64_t nanoseconds);

}  // namespace tokcask::test
