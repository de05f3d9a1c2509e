#include "lmdb/clean_mark.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <optional>

#include "os/clock.h"
#include "os/descriptor.h"

namespace tokcask::lmdb {

namespace {

constexpr const char* kName = "clean";

using BootId = std::array<std::uint8_t, 16>;

struct Row {
  std::array<char, 8> magic = {'t', 'o', 'k', 'c', 'a', 's', 'k', 'C'};
  std::uint32_t version = 1;
  std::uint32_t zero = 0;
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  std::uint64_t bytes = 0;
  std::int64_t ctime_ns = 0;
  BootId boot_id{};
  std::uint64_t unused = 0;
  std::uint64_t checksum = 0;
};
static_assert(sizeof(Row) == 80);

int open_at(int directory, const char* path, int flags) {
  return openat(directory, path, flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
}

// A directory, and not by a link: neither it nor the one above it.
class Directory {
 public:
  Directory(const std::filesystem::path& above, const std::filesystem::path& name)
      : above_(open_at(AT_FDCWD, above.c_str(), kFlags)),
        self_(open_at(above_.get(), name.c_str(), kFlags)) {}
  [[nodiscard]] int fd() const { return self_.get(); }

 private:
  static constexpr int kFlags = O_PATH | O_DIRECTORY;
  const os::Descriptor above_;
  const os::Descriptor self_;
};

// Nothing where /proc is not there.
std::optional<BootId> read_boot_id() {
  const os::Descriptor file(open_at(AT_FDCWD, "/proc/sys/kernel/random/boot_id", O_RDONLY));
  std::array<char, 36> text{};
  if (file.get() < 0 || read(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    return std::nullopt;
  BootId id{};
  std::size_t digits = 0;
  for (const char c : text) {
    if (c == '-') continue;
    const bool letter = c >= 'a' && c <= 'f';
    if ((!letter && (c < '0' || c > '9')) || digits == 2 * id.size()) return std::nullopt;
    auto& byte = id.at(digits++ / 2);
    byte = static_cast<std::uint8_t>(byte << 4 | (letter ? c - 'a' + 10 : c - '0'));
  }
  return digits == 2 * id.size() ? std::optional(id) : std::nullopt;
}

const std::optional<BootId>& boot_id() {
  static const std::optional<BootId> id = read_boot_id();
  return id;
}

std::uint64_t checksum_of(const Row& row) { return XXH3_64bits(&row, offsetof(Row, checksum)); }

std::optional<Row> row_of(const struct stat& data) {
  if (!boot_id()) return std::nullopt;
  Row row;
  row.device = data.st_dev;
  row.inode = data.st_ino;
  row.bytes = static_cast<std::uint64_t>(data.st_size);
  row.ctime_ns = os::ns_of(data.st_ctim);
  row.boot_id = *boot_id();
  row.checksum = checksum_of(row);
  return row;
}

// Who could write the mark could as well write the data file; but that may be somebody who gives it away.
bool is_ours(int fd) {
  struct stat status{};
  return fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_uid == geteuid() &&
         (status.st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

// The ctime of a file system that counts in seconds, and of one in a million files elsewhere.
bool is_rounded(const struct stat& data) { return os::ns_of(data.st_ctim) % 1'000'000 == 0; }

}  // namespace

bool looks_the_same(const struct stat& a, const struct stat& b) noexcept {
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino && a.st_size == b.st_size &&
         os::ns_of(a.st_ctim) == os::ns_of(b.st_ctim);
}

bool ctime_tells_changes(long type) noexcept {
  // Local file systems that note a write through a map when it makes a page writable. From the kernel's
  // linux/magic.h, and for ZFS from its own source.
  static constexpr std::array<unsigned long, 8> kThose = {
      0xEF53,      // ext2, ext3, ext4
      0x58465342,  // XFS
      0x9123683E,  // Btrfs
      0xF2F52010,  // F2FS
      0xCA451A4E,  // bcachefs
      0x2FC12FC1,  // ZFS
      0x794C7630,  // overlayfs
      0x3153464A,  // JFS
  };
  return std::find(kThose.begin(), kThose.end(), static_cast<unsigned long>(type) & 0xffffffff) !=
         kThose.end();
}

bool is_settled(const struct stat& data) noexcept {
  // Where Linux gives fine ctimes, it gives one to any file that was looked at since its last change, so now
  // to this one. A ctime ahead of the coarse clock gives such a file system away. (Far ahead, a clock was set
  // back.)
  static std::atomic<dev_t> fine_device{};
  constexpr std::int64_t kTickNs = 20'000'000;
  timespec now{};
  clock_gettime(CLOCK_REALTIME_COARSE, &now);
  const std::int64_t age_ns = os::ns_of(now) - os::ns_of(data.st_ctim);
  if (age_ns < 0 && age_ns > -kTickNs) fine_device.store(data.st_dev, std::memory_order_relaxed);
  return !is_rounded(data) && (age_ns > 0 || fine_device.load(std::memory_order_relaxed) == data.st_dev);
}

bool settle(const struct stat& data) noexcept {
  constexpr int kMostLooks = 16;
  constexpr timespec kPause{0, 1'000'000};
  for (int look = 0; look < kMostLooks && !is_rounded(data); ++look) {
    if (is_settled(data)) return true;
    nanosleep(&kPause, nullptr);
  }
  return false;
}

bool CleanMark::covers(const struct stat& data) const noexcept {
  const auto wanted = row_of(data);
  const os::Descriptor mark(open_at(Directory(above_, name_).fd(), kName, O_RDONLY));
  Row row;
  return wanted && mark.get() >= 0 && is_ours(mark.get()) &&
         pread(mark.get(), &row, sizeof row, 0) == static_cast<ssize_t>(sizeof row) &&
         std::memcmp(&row, &*wanted, sizeof row) == 0;
}

void CleanMark::set(const struct stat& data) const noexcept {
  const auto row = row_of(data);
  if (!row) return;
  const os::Descriptor mark(open_at(Directory(above_, name_).fd(), kName, O_RDWR | O_CREAT));
  struct statfs system{};
  if (mark.get() < 0 || !is_ours(mark.get()) || fstatfs(mark.get(), &system) != 0 ||
      !ctime_tells_changes(static_cast<long>(system.f_type))) {
    return;
  }
  // One that is half written is none.
  static_cast<void>(pwrite(mark.get(), &*row, sizeof *row, 0) == static_cast<ssize_t>(sizeof *row));
}

void CleanMark::remove() const noexcept { unlinkat(Directory(above_, name_).fd(), kName, 0); }

}  // namespace tokcask::lmdb
