// LMDB's lock file, lock.mdb, from outside: that all who have a data file open share one.
//
// In it are LMDB's mutexes, the number of the newest transaction and the table of readers, in shared memory
// that LMDB believes. Two processes with two lock files for one data file do not see each other: one would
// reuse pages that the other reads. That may come about when lock.mdb is removed or replaced while it is in
// use, or when the data file is reached by two names (a hard link).
//
// So whoever opens a lock file says so in the data file itself, which is one whatever its names are: by a
// read lock (F_OFD_SETLK) on the byte whose offset is the number of the lock file's inode. Such locks go with
// the last descriptor of their holder, and do not mix with the process's other locks.
//
// LMDB 0.9.26 to 0.9.31 destroys the mutexes when it closes the lock file and nobody else has it open: it
// asks for that by its write lock on byte 0. Who opens the file at that moment waits for this lock, and then
// takes the mutexes as they are: no transaction begins there (EINVAL) until all have closed it. So two locks
// on the lock file keep that from happening among processes of this library, whatever their LMDB is.
//
// Who is about to close has a read lock on byte 0. So LMDB never sees itself as the last one, destroys
// nothing, and whoever comes next finds mutexes that work, or is alone and makes them again.
//
// Opening may fail after LMDB has found itself alone, and then it destroys them too. So one opens at a time,
// by a write lock on the last byte. The kernel releases it after LMDB's own when its holder is killed.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <filesystem>

namespace tokcask::lmdb {

// What every opener asks for; the first fixes it. A slot takes 64 bytes of the lock file.
inline constexpr unsigned kMaxReaders = 4096;
inline constexpr std::uint64_t kLeastLockFileBytes = std::uint64_t{kMaxReaders} * 64;
// What a lock file of so many takes, rounded up.
inline constexpr std::uint64_t kLockFileBytes = kLeastLockFileBytes + 4096;

// Threads: the const members may be called concurrently.
class LockFile {
 public:
  // Says that `directory`/lock.mdb, which is there, is about to be opened for `data`. Throws Error(kBusy)
  // when others have the data file open with another lock file, or this one was cut short while they have it,
  // or another one is still opening it after `timeout`. Where the file system has no such locks, nobody is
  // refused. Throws Error(kIo) when one of the files is not there.
  LockFile(const std::filesystem::path& directory, const std::filesystem::path& data,
           std::chrono::milliseconds timeout);
  // LMDB has closed it, or never opened it.
  ~LockFile();
  LockFile(const LockFile&) = delete;
  LockFile& operator=(const LockFile&) = delete;

  // LMDB has opened it, and others may.
  void opened() const noexcept;
  // Whether the file by that name is the one that was claimed.
  [[nodiscard]] bool is_in_place() const noexcept;
  // LMDB is about to close it.
  void closing() const noexcept;

 private:
  [[nodiscard]] bool claim();

  const std::filesystem::path path_;
  int data_fd_ = -1;
  int lock_fd_ = -1;
  ino_t inode_ = 0;
};

}  // namespace tokcask::lmdb
