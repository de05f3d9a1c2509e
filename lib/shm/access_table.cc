#include "shm/access_table.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <boost/interprocess/anonymous_shared_memory.hpp>
#include <boost/interprocess/exceptions.hpp>
#include <boost/interprocess/file_mapping.hpp>
#include <boost/interprocess/mapped_region.hpp>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>

#include <tokcask/error.h>

#include "os/clock.h"

namespace tokcask::shm {

namespace ipc = boost::interprocess;

namespace {

constexpr std::size_t kBlockBytes = 4096;
constexpr std::size_t kRunBlocks = RunTable::kBytes / kBlockBytes;
constexpr std::size_t kFirstStampBlock = 1 + kRunBlocks;
// Address space for 2^32 slots, of which a file takes what it has.
constexpr std::uint64_t kReservedBytes =
    (kFirstStampBlock + (std::uint64_t{1} << 32) / kStampsPerBlock + 1) * kBlockBytes;
// Of memory that is no file's the kernel may want to be sure to have it all.
constexpr std::uint64_t kPrivateBytes = std::uint64_t{256} << 20;
constexpr std::uint64_t kSmallestReservedBytes = std::uint64_t{1} << 20;
constexpr std::uint64_t kFirstBlocks = 16;
constexpr std::uint32_t kVersion = 3;
constexpr char kMagic[8] = {'t', 'o', 'k', 'c', 'a', 's', 'k', 'A'};

// The byte of the file whose lock says that the table is in use. Those of the run table's rows follow.
constexpr off_t kUseLock = 0;
static_assert(kUseLock < static_cast<off_t>(RunTable::kFirstLock));

bool is_file(const std::filesystem::path& path) {
  struct stat status{};
  return lstat(path.c_str(), &status) == 0 && S_ISREG(status.st_mode);
}

// Whether `path` is the name of the file that `fd` is.
bool is_named(int fd, const std::filesystem::path& path) {
  struct stat ours{};
  struct stat there{};
  return fstat(fd, &ours) == 0 && lstat(path.c_str(), &there) == 0 && ours.st_dev == there.st_dev &&
         ours.st_ino == there.st_ino;
}

void store_max(std::atomic<std::uint64_t>& word, std::uint64_t value) {
  std::uint64_t seen = word.load(std::memory_order_relaxed);
  while (seen < value && !word.compare_exchange_weak(seen, value, std::memory_order_acq_rel)) {
  }
}

}  // namespace

struct AccessTable::Header {
  char magic[8];
  std::uint32_t version;
  std::uint32_t zero;
  Uuid uuid;
  std::atomic<std::uint64_t> blocks;
  std::atomic<std::uint64_t> clock;
  std::uint64_t reserved;
  std::atomic<std::uint64_t> last_run;
  std::atomic<std::uint64_t> damage;
};

struct AccessTable::Block {
  std::atomic<std::uint64_t> dirty;
  std::uint64_t zero;
  std::atomic<std::uint64_t> stamps[kStampsPerBlock];
};

struct AccessTable::Mapping {
  ipc::mapped_region region;
};

namespace {

// Puts a new table with this first block in the place of `file`, which is none, unless somebody uses it or
// has been faster. Returns 0 or errno. The table is made under another name, so that nobody maps half of it.
int make_file(const std::filesystem::path& file, std::span<const std::byte> header) {
  os::ProcessDescriptor old;
  if (is_file(file)) {
    old.open(file.c_str(), O_RDWR);
    if (old.get() < 0 || os::set_lock(old.get(), F_WRLCK, kUseLock) != 0 || !is_named(old.get(), file))
      return 0;
  }
  const std::filesystem::path fresh = file.string() + '.' + std::to_string(getpid());
  unlink(fresh.c_str());
  int error = 0;
  {
    const os::ProcessDescriptor made(fresh.c_str(), O_RDWR | O_CREAT | O_EXCL, 0600);
    if (made.get() < 0) return errno;
    error = posix_fallocate(made.get(), 0, (kFirstStampBlock + kFirstBlocks) * kBlockBytes);
    if (error == 0 &&
        pwrite(made.get(), header.data(), header.size(), 0) != static_cast<ssize_t>(header.size()))
      error = errno;
  }
  // A link does not take the place of a table that another process has just made.
  struct stat there{};
  const bool is_free = lstat(file.c_str(), &there) != 0;
  const bool is_linked = error == 0 && is_free && link(fresh.c_str(), file.c_str()) == 0;
  if (error == 0 && !is_linked && !(is_free && errno == EEXIST) && rename(fresh.c_str(), file.c_str()) != 0)
    error = errno;
  unlink(fresh.c_str());
  return error;
}

}  // namespace

std::unique_ptr<AccessTable> AccessTable::open(const std::filesystem::path& directory, const Uuid& uuid) {
  static_assert(RunTable::kBytes % kBlockBytes == 0 && sizeof(Block) == kBlockBytes &&
                sizeof(Header) <= kBlockBytes);
  static_assert(std::atomic<std::uint64_t>::is_always_lock_free);
  std::unique_ptr<AccessTable> table(new AccessTable);
  if (!table->share(directory / "access.shm", uuid)) table->make_private(uuid);
  return table;
}

AccessTable::~AccessTable() = default;

// Tries for some milliseconds, because whoever replaces a table holds it as long as that takes.
bool AccessTable::share(const std::filesystem::path& file, const Uuid& uuid) {
  Header header{};
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  header.version = kVersion;
  header.uuid = uuid;
  header.blocks = kFirstBlocks;
  constexpr int kMostAttempts = 20;
  for (int attempt = 0; attempt < kMostAttempts; ++attempt) {
    if (attempt > 1) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    const Attached attached = attach(file, uuid);
    if (attached == Attached::kYes) return true;
    file_.close();
    if (attached == Attached::kNo) return false;
    if (attached == Attached::kTryAgain) continue;
    if (const int error = make_file(file, std::as_bytes(std::span(&header, 1))); error != 0) {
      why_private_ = std::strerror(error);
      return false;
    }
  }
  why_private_ = "others use the one that is there, which is damaged, or of another store or version";
  return false;
}

AccessTable::Attached AccessTable::attach(const std::filesystem::path& file, const Uuid& uuid) {
  // Not through a link, and nothing but a file: what else lies there is replaced.
  if (!is_file(file)) return Attached::kUnusable;
  file_.open(file.c_str(), O_RDWR);
  if (file_.get() < 0) {
    why_private_ = std::strerror(errno);
    return errno == ENOENT ? Attached::kTryAgain : Attached::kNo;
  }
  if (os::set_lock(file_.get(), F_RDLCK, kUseLock) != 0 || !is_named(file_.get(), file))
    return Attached::kTryAgain;
  Header header{};
  struct stat status{};
  if (fstat(file_.get(), &status) != 0 ||
      static_cast<std::size_t>(status.st_size) < kFirstStampBlock * kBlockBytes ||
      pread(file_.get(), &header, sizeof header, 0) != static_cast<ssize_t>(sizeof header) ||
      std::memcmp(header.magic, kMagic, sizeof kMagic) != 0 || header.version != kVersion ||
      // A clock further ahead is damage, not one that was set back.
      header.uuid != uuid || header.clock > os::now_ns() + os::kMostAheadNs) {
    return Attached::kUnusable;
  }
  const Attached mapped = map(file);
  if (mapped == Attached::kYes) raise_clock(std::max(header.clock.load(), os::now_ns()));
  return mapped;
}

AccessTable::Attached AccessTable::map(const std::filesystem::path& file) {
  for (std::uint64_t bytes = kReservedBytes;; bytes /= 2) {
    try {
      const ipc::file_mapping opened(file.c_str(), ipc::read_write);
      if (!is_named(opened.get_mapping_handle().handle, file) || !is_named(file_.get(), file))
        return Attached::kTryAgain;
      mapping_ = std::make_unique<Mapping>();
      mapping_->region = ipc::mapped_region(opened, ipc::read_write, 0, bytes);
      point_into(bytes);
      return Attached::kYes;
    } catch (const ipc::interprocess_exception& error) {
      // Too little address space, or memory that may be locked (EAGAIN): ask for less.
      const int why = error.get_native_error();
      if ((why == ENOMEM || why == EAGAIN) && bytes > kSmallestReservedBytes) continue;
      why_private_ = std::string("it cannot be mapped: ") + error.what();
      return Attached::kNo;
    }
  }
}

void AccessTable::point_into(std::uint64_t bytes) noexcept {
  auto* const base = static_cast<std::byte*>(mapping_->region.get_address());
  header_ = reinterpret_cast<Header*>(base);
  runs_.emplace(base + kBlockBytes, header_->last_run, file_.get());
  blocks_ = reinterpret_cast<Block*>(base + kFirstStampBlock * kBlockBytes);
  reserved_blocks_ = bytes / kBlockBytes - kFirstStampBlock;
}

std::string AccessTable::shortcoming() const {
  if (!why_private_.empty()) return "cannot share access times with other processes: " + why_private_;
  if (!full_.load(std::memory_order_relaxed)) return {};
  return "has no room for the access times of all entries: those without one are evicted in the order of "
         "their "
         "puts, and no run protects them by reading them";
}

void AccessTable::make_private(const Uuid& uuid) {
  mapping_ = std::make_unique<Mapping>();
  // Zeroed, and backed by memory only where it is touched.
  for (std::uint64_t bytes = kPrivateBytes;; bytes /= 2) {
    try {
      mapping_->region = ipc::anonymous_shared_memory(bytes);
      point_into(bytes);
      break;
    } catch (const ipc::interprocess_exception& error) {
      if (bytes > kSmallestReservedBytes) continue;
      throw Error(Errc::kIo, std::string("cannot map memory for access times: ") + error.what());
    }
  }
  header_->uuid = uuid;
  header_->blocks = kFirstBlocks;
}

// ---- Stamps ----

std::uint64_t AccessTable::next_stamp() noexcept {
  const std::uint64_t now = os::now_ns();
  std::uint64_t last = last_stamp_.load(std::memory_order_relaxed);
  std::uint64_t next = 0;
  do {
    next = std::max(now, last + 1);
  } while (!last_stamp_.compare_exchange_weak(last, next, std::memory_order_relaxed));
  return next;
}

void AccessTable::raise_clock(std::uint64_t floor) noexcept { store_max(last_stamp_, floor); }

std::uint64_t AccessTable::usable_blocks() const noexcept {
  // The header is not believed where the file does not bear it out: touching a page beyond its end is fatal.
  std::uint64_t usable = std::min(header_->blocks.load(std::memory_order_acquire), reserved_blocks_);
  if (file_.get() >= 0) {
    struct stat status{};
    if (fstat(file_.get(), &status) != 0) return 0;
    const auto in_file = static_cast<std::uint64_t>(status.st_size) / kBlockBytes;
    usable = std::min(usable, in_file - std::min<std::uint64_t>(in_file, kFirstStampBlock));
  }
  store_max(known_blocks_, usable);
  return known_blocks_.load(std::memory_order_relaxed);
}

AccessTable::Block* AccessTable::block_of(std::uint32_t slot) const noexcept {
  const std::uint64_t number = slot / kStampsPerBlock;
  if (number >= known_blocks_.load(std::memory_order_relaxed) && number >= usable_blocks()) return nullptr;
  return blocks_ + number;
}

void AccessTable::touch(std::uint32_t slot, std::uint64_t stamp) noexcept {
  Block* const block = block_of(slot);
  if (block == nullptr) return;
  std::atomic<std::uint64_t>& word = block->stamps[slot % kStampsPerBlock];
  // Two readers at once may leave the older of two stamps that are microseconds apart.
  if (believed(word.load(std::memory_order_relaxed)) >= stamp) return;
  word.store(stamp, std::memory_order_relaxed);
  if (block->dirty.load(std::memory_order_relaxed) == 0) block->dirty.store(1, std::memory_order_release);
}

void AccessTable::fetch_ahead(std::uint32_t slot) const noexcept {
  const std::uint64_t number = slot / kStampsPerBlock;
  if (number >= known_blocks_.load(std::memory_order_relaxed)) return;
  constexpr int kToWrite = 1;
  __builtin_prefetch(&blocks_[number].stamps[slot % kStampsPerBlock], kToWrite);
}

void AccessTable::assign(std::uint32_t slot, std::uint64_t stamp) noexcept {
  if (Block* const block = block_of(slot)) {
    block->stamps[slot % kStampsPerBlock].store(stamp, std::memory_order_relaxed);
  }
}

std::uint64_t AccessTable::stamp(std::uint32_t slot) const noexcept {
  const Block* const block = block_of(slot);
  return block == nullptr ? 0
                          : believed(block->stamps[slot % kStampsPerBlock].load(std::memory_order_relaxed));
}

// A stamp that is far ahead of all that this process knows is damage: such an entry would never be evicted.
std::uint64_t AccessTable::believed(std::uint64_t stamp) const noexcept {
  const std::uint64_t newest = last_stamp_.load(std::memory_order_relaxed);
  return stamp > newest && stamp - newest > os::kMostAheadNs ? 0 : stamp;
}

bool AccessTable::grow(std::uint64_t slots) {
  const std::uint64_t needed = (slots + kStampsPerBlock - 1) / kStampsPerBlock;
  if (needed <= usable_blocks()) return true;
  const std::uint64_t blocks = std::min(std::max(std::bit_ceil(needed), kFirstBlocks), reserved_blocks_);
  // Real disk blocks: a hole on a full disk would be a signal at the first touch.
  if (needed > reserved_blocks_ ||
      (file_.get() >= 0 &&
       posix_fallocate(file_.get(), 0, static_cast<off_t>((kFirstStampBlock + blocks) * kBlockBytes)) != 0)) {
    full_.store(true, std::memory_order_relaxed);
    return false;
  }
  store_max(header_->blocks, blocks);
  return true;
}

void AccessTable::take_dirty(const std::function<void(std::uint64_t, std::span<const std::uint64_t>)>& take) {
  header_->clock.store(last_stamp_.load(std::memory_order_relaxed), std::memory_order_relaxed);
  const std::uint64_t blocks = usable_blocks();
  std::array<std::uint64_t, kStampsPerBlock> stamps{};
  for (std::uint64_t number = 0; number < blocks; ++number) {
    Block& block = blocks_[number];
    // Cleared first, so that a touch during the copy is taken the next time. A touch whose stamp is still on
    // its way to memory may see the flag set and be missed all the same. It is taken with the next touch of
    // the block, and is in shared memory until then: less than a fence in each touch() would cost.
    if (block.dirty.load(std::memory_order_relaxed) == 0 ||
        block.dirty.exchange(0, std::memory_order_acq_rel) == 0) {
      continue;
    }
    for (std::size_t i = 0; i < kStampsPerBlock; ++i)
      stamps[i] = believed(block.stamps[i].load(std::memory_order_relaxed));
    take(number, stamps);
  }
}

bool AccessTable::damage_known() const noexcept {
  return header_->damage.load(std::memory_order_relaxed) == 1;
}

void AccessTable::note_damage(bool there) noexcept {
  header_->damage.store(there ? 1 : 0, std::memory_order_relaxed);
}

}  // namespace tokcask::shm
