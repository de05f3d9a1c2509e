// Reading a file so that what was read can be trusted to belong to the stat(2) figures noted for it.
//
// A file's identity is remembered so that it need not be read again while the identity is the same. That is
// sound only if every later change must show in the identity. A change shows in the ctime, but a file system
// stamps with a clock that stands still between ticks (at most 10 ms apart; 1 or 2 s on some file systems),
// so a file changed twice within one tick looks changed once. The same problem in another index is told in
// git's Documentation/technical/racy-git.txt. The rule here: content is read only once the file's ctime lies
// well behind the clock, and is remembered only if the identity was the same before and after.
#pragma once

#include <sys/stat.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>

#include <tokcask/source_index.h>

namespace tokcask::corpus {

// Owns a file descriptor.
class UniqueFd {
 public:
  explicit UniqueFd(int fd = -1) noexcept : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(other.release()) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept;
  ~UniqueFd() { reset(); }

  [[nodiscard]] int get() const noexcept { return fd_; }
  [[nodiscard]] bool valid() const noexcept { return fd_ >= 0; }
  int release() noexcept {
    const int fd = fd_;
    fd_ = -1;
    return fd;
  }
  void reset() noexcept;

 private:
  int fd_;
};

[[nodiscard]] FileIdentity identity_of(const struct stat& status) noexcept;

// How far behind the clock a ctime must lie: twice the longest tick.
inline constexpr std::chrono::nanoseconds kTimestampTick = std::chrono::milliseconds(20);
// The same where time stamps carry whole seconds only.
inline constexpr std::chrono::nanoseconds kCoarseTimestampTick = std::chrono::seconds(2);

enum class Recency {
  kSettled,    // a later change must show
  kSoon,       // will be settled after `wait`
  kUnsettled,  // not within a time worth waiting: whole-second stamps, or a ctime ahead of the clock
};
struct Settling {
  Recency recency;
  std::chrono::nanoseconds wait{0};
};
[[nodiscard]] Settling settling(const FileIdentity& identity, std::int64_t now_ns) noexcept;

[[nodiscard]] std::int64_t realtime_ns() noexcept;

// How long all reads of a run together may wait for files to settle. Shared between threads.
class SettleBudget {
 public:
  explicit SettleBudget(std::chrono::nanoseconds total = std::chrono::seconds(1)) : left_(total.count()) {}

  // Sleeps for `wait` and returns true, or returns false when the budget does not have it.
  bool sleep(std::chrono::nanoseconds wait) noexcept;

 private:
  std::atomic<std::int64_t> left_;
};

// True once `fd`'s ctime is settled, after waiting if that is soon. `identity` is what fstat then tells.
// False: unsettled, and `identity` must not be remembered. -1 from fstat counts as unsettled.
bool settle(int fd, SettleBudget& budget, FileIdentity& identity) noexcept;

enum class ReadStatus {
  kOk,
  kUnreadable,  // error says why
  kSpecial,     // not a regular file (any more)
  kTooLarge,
};

struct FileContent {
  ReadStatus status = ReadStatus::kUnreadable;
  int error = 0;
  std::string text;
  FileIdentity identity;  // of the content in `text`
  bool sound = false;     // whether `identity` may be remembered
};

// A file larger than this is not read: one section of it could not be held in memory beside others.
inline constexpr std::uint64_t kMaxFileBytes = std::uint64_t{1} << 30;

// Reads all of the regular file `fd` into `text`, from its start and whatever its offset. Returns 0, or
// errno; EFBIG when there is more than max_bytes. `expected_bytes` is a hint.
[[nodiscard]] int read_all(int fd, std::uint64_t expected_bytes, std::uint64_t max_bytes, std::string& text);

// Reads all of `path`, following symbolic links. Never blocks on a FIFO. When the file changes while it is
// read, it is read again, a few times; then the last content is returned, not sound. Throws std::bad_alloc.
[[nodiscard]] FileContent read_file(const std::string& path, SettleBudget& budget,
                                    std::uint64_t max_bytes = kMaxFileBytes);

}  // namespace tokcask::corpus
