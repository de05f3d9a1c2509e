// LMDB's lock file, lock.mdb, from outside: what keeps its reader table true.
//
// In the file are LMDB's mutexes, the number of the newest transaction and the table of readers. LMDB guards
// them by POSIX record locks: a shared one on byte 0 while the file is open, without which the next opener
// believes that it is alone and makes the table anew; and one on the byte whose offset is the process's id,
// without which others take the process for dead and free its slots. POSIX drops all locks of a process on a
// file when the process closes any descriptor of that file: a backup made by the process itself does that, or
// a checksum of a directory. Pages under held views would be reused then.
//
// So a LockFile has both locks as open file description locks (F_OFD_SETLK), by a descriptor of its own.
// Nothing else in the process disturbs those, the kernel drops them when the process ends, and LMDB's
// questions (F_SETLK, F_GETLK) see them as it sees its own. The lock on the process's byte takes the place of
// LMDB's, because the two would be in each other's way: LMDB sets its own once, when an environment begins
// its first read transaction, and never asks for it again.
//
// LMDB 0.9.26 to 0.9.31 destroys the mutexes when it closes the file and nobody else has it open: it asks for
// that by its write lock on byte 0. Who opens the file at that moment waits for this lock, and then takes the
// mutexes as they are: no transaction begins there (EINVAL) until all have closed it. The lock on byte 0
// outlives LMDB's, so LMDB never sees itself as the last one and destroys nothing. Whoever comes next finds
// mutexes that work, or is alone and makes them again. Opening may fail after LMDB has found itself alone,
// and then it destroys them too. So one opens at a time, by a write lock on the last byte. Where an opener is
// stopped there, others wait for that lock, and only for a limited time.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <filesystem>

#include "lmdb/data_claim.h"
#include "os/process_descriptor.h"

namespace tokcask::lmdb {

// What every opener asks for; the first fixes it. A slot takes 64 bytes of the lock file.
inline constexpr unsigned kMaxReaders = 4096;
inline constexpr std::uint64_t kLeastLockFileBytes = std::uint64_t{kMaxReaders} * 64;
// What a lock file of so many takes, rounded up.
inline constexpr std::uint64_t kLockFileBytes = kLeastLockFileBytes + 4096;
// So that a time limit of any size can be added to a time.
inline constexpr std::chrono::hours kLongestWait{24};

// Threads: the const members may be called concurrently.
class LockFile {
 public:
  // Claims `data` (see DataClaim) for an opener with `directory`/lock.mdb, which is there, and waits until it
  // is this process's turn to open it: `timeout` at most, then Error(kBusy). On a read-only file system, and
  // with an empty `directory`, there is no lock file to be had, and the claim is that of a reader without
  // one. Throws Error(kIo).
  LockFile(const std::filesystem::path& directory, const std::filesystem::path& data,
           std::chrono::milliseconds timeout);
  // LMDB has closed it, or never opened it.
  ~LockFile() = default;
  LockFile(const LockFile&) = delete;
  LockFile& operator=(const LockFile&) = delete;

  // LMDB has opened it.
  void keep_open() const noexcept;
  // LMDB has also begun a read transaction and ended it, and none is under way. From now on others may open
  // it.
  void keep_process() const noexcept;

  // Whether the file by that name is the one that was claimed.
  [[nodiscard]] bool is_in_place() const noexcept;
  [[nodiscard]] DataClaim& claim() noexcept { return claim_; }
  [[nodiscard]] const DataClaim& claim() const noexcept { return claim_; }

 private:
  void wait_for_turn(std::chrono::milliseconds timeout) const;

  const std::filesystem::path data_;
  const std::filesystem::path path_;
  DataClaim claim_;
  os::ProcessDescriptor fd_;  // less than 0: no lock file
  ino_t inode_ = 0;
};

}  // namespace tokcask::lmdb
