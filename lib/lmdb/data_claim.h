// Who has a data file open: said in the file itself, which is one file whatever its names and its mounts are.
//
// Two processes that have one data file open with two lock files do not see each other: one reuses pages that
// the other reads. That comes about when lock.mdb is removed or replaced while it is in use, when the data
// file has two names (a hard link), or when a read-only mount keeps a reader from the lock file. So whoever
// opens a data file has read locks (F_OFD_SETLK) on bytes of it that lie far beyond its end:
//
//   [0, 2^62)       the byte whose offset is the inode number of the lock file, modulo 2^62
//   2^62            instead of it, a reader that has no lock file
//   2^62 + 1        with those before: a writer that is stuck
//   2^62 + 2 + pid  the process; of a reader that has no lock file, 2^32 bytes further
//
// Who wants the store alone has a write lock on all bytes up to 2^62 + 1. Such locks go with the last
// descriptor of their holder. Other descriptors of the same process do not disturb them, and see them.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <tokcask/error.h>

#include "os/process_descriptor.h"

namespace tokcask::lmdb {

// Threads: the const members may be called concurrently.
class DataClaim {
 public:
  // Opens `data`, which has to be there, and claims nothing. Throws Error(kIo).
  explicit DataClaim(std::filesystem::path data);
  DataClaim(const DataClaim&) = delete;
  DataClaim& operator=(const DataClaim&) = delete;

  // Both throw Error(kBusy) when somebody has the file alone for longer than `timeout`. Where the file system
  // has no such locks, nobody is refused.
  //
  // With the lock file `lock`: throws also when others have it open with another one, when the lock file was
  // cut short while others have it, and when another copy of the library in this process has the file open.
  // Throws Error(kIo) when the lock file is not there.
  void claim(const std::filesystem::path& lock, std::chrono::milliseconds timeout);
  // Without a lock file, for reading: throws also when anybody has it open with one.
  void claim_without_lock_file(std::chrono::milliseconds timeout);

  // A sentence, when nothing may be written now: somebody reads the file without a lock file, where LMDB does
  // not see that; or somebody is stuck in the middle of a write, with LMDB's mutex locked, for which LMDB
  // would wait without end.
  [[nodiscard]] std::optional<std::string> why_not_to_write() const;
  // That this process is stuck so, until it ends.
  void note_stuck_writer() noexcept;

  // Processes that have the file open, but not by this object.
  [[nodiscard]] std::vector<pid_t> others() const;
  // That what is `doing` ("compacted") wants the file alone, and who has it.
  [[nodiscard]] Error not_alone(std::string_view doing) const;

 private:
  friend class Alone;
  enum class Obstacle { kNone, kAlone, kOtherLockFile, kThisProcess, kLockFile };
  [[nodiscard]] Obstacle try_claim(const std::filesystem::path& lock);
  [[nodiscard]] Obstacle try_claim_without_lock_file();
  template <typename Try>
  void wait(const Try& attempt, const std::filesystem::path& lock, std::chrono::milliseconds timeout);
  void withdraw() noexcept;
  [[nodiscard]] Error error_of(Obstacle obstacle, const std::filesystem::path& lock,
                               std::chrono::milliseconds timeout) const;
  [[nodiscard]] std::string names_of_others() const;

  const std::filesystem::path data_;
  os::ProcessDescriptor fd_;
  off_t byte_ = -1;  // that of the lock file, or of a reader without one; -1: none
};

// While it lives, nobody else opens the data file: whoever tries waits for it.
class Alone {
 public:
  // Tries to have it alone. False when somebody else has it open, or this process may not write to the file.
  explicit Alone(DataClaim& claim) noexcept;
  ~Alone();
  Alone(const Alone&) = delete;
  Alone& operator=(const Alone&) = delete;
  explicit operator bool() const noexcept { return claim_ != nullptr; }

 private:
  DataClaim* claim_ = nullptr;
};

}  // namespace tokcask::lmdb
