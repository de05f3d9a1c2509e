// The clean mark of a data file: that its structure is known to be good, and what the file looked like then.
// As long as it looks the same, it need not be walked before LMDB sees it.
//
// A file system gives a file another ctime with each change, and nobody can set one. So a file on which a
// walk has found nothing is good for as long as device, inode, size and ctime stay, and the system runs
// (after a power cut the disk may have less than there was). Our own commits change it too; they move the
// mark on if the file was under it when they began, so what others do to the file in between takes it away
// for good.
//
// A ctime may be as coarse as the kernel's tick, and then a change in the same tick as the one before does
// not show. So a mark is only set once no later change can have its ctime: the tick has passed, or the file
// system gives fine ctimes to files that somebody has looked at (Linux 6.13 and later; "multigrain
// timestamps").
//
// One thing stays unseen: a program that has the file mapped for writing. Its first store into a page changes
// the ctime, and further ones do not until the page is written back. So the mark believes that no other
// program has the file mapped so while it is walked.
//
// The mark is a file of its own, 80 bytes, in the byte order of the machine. It is a hint: whatever is wrong
// with it, the file is walked.
//
//   offset bytes
//        0     8  magic "tokcaskC"
//        8     4  version, 1
//       12     4  0
//       16     8  device of the data file
//       24     8  inode
//       32     8  size in bytes
//       40     8  ctime, nanoseconds since 1970
//       48    16  the system's boot id (proc(5), sys/kernel/random/boot_id)
//       64     8  0
//       72     8  XXH3-64 of the bytes before
#pragma once

#include <filesystem>

struct stat;

namespace tokcask::lmdb {

// Threads: all members may be called concurrently, also by other processes. No member throws.
class CleanMark {
 public:
  // That of the data file whose lock directory is `directory`, which need not be there. Links are not
  // followed, in its place or in that of the directory above it. Throws std::bad_alloc.
  explicit CleanMark(const std::filesystem::path& directory)
      : above_(directory.parent_path()), name_(directory.filename()) {}

  // Whether the file that looks like `data` is known to be good.
  [[nodiscard]] bool covers(const struct stat& data) const noexcept;

  // Says that the file is good that looks like `data`, which is_settled(). Without effect where the mark
  // cannot be written, or the file system's ctime does not tell all changes.
  void set(const struct stat& data) const noexcept;

  // Has the file walked again.
  void remove() const noexcept;

 private:
  const std::filesystem::path above_;
  const std::filesystem::path name_;
};

// Whether whatever changes the file after it was found to look like `data` will give it another ctime.
[[nodiscard]] bool is_settled(const struct stat& data) noexcept;
// Waits until it is, some milliseconds at most. Returns false if that does not come about.
bool settle(const struct stat& data) noexcept;

// Whether nothing has changed a file between two looks at it, as far as its ctime tells.
[[nodiscard]] bool looks_the_same(const struct stat& a, const struct stat& b) noexcept;

// Whether the ctime of a file on the file system that statfs(2) calls `type` changes with its content, also
// when that is written through a map. It does not on tmpfs.
[[nodiscard]] bool ctime_tells_changes(long type) noexcept;

}  // namespace tokcask::lmdb
