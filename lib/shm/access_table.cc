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
#include <cstring>
#include <utility>

#include <tokcask/error.h>

#include "os/clock.h"

namespace tokcask::shm {

namespace ipc = boost::interprocess;

namespace {

constexpr std::size_t kBlockBytes = 4096;
constexpr std::size_t kRunBlocks = RunTable::kBytes / kBlockBytes;
constexpr std::size_t kFirstStampBlock = 1 + kRunBlocks;
constexpr std::uint64_t kReservedBytes = std::uint64_t{256} << 20;
constexpr std::uint64_t kSmallestReservedBytes = std::uint64_t{1} << 20;
constexpr std::uint64_t kFirstBlocks = 16;
constexpr std::uint32_t kVersion = 2;
constexpr char kMagic[8] = {'t', 'o', 'k', 'c', 'a', 's', 'k', 'A'};

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
  std::atomic<std::uint64_t> replaced;
  std::atomic<std::uint64_t> last_run;
  std::atomic<std::uint64_t> damage;
};

struct AccessTable::Block {
  std::atomic<std::uint64_t> dirty;
  std::uint64_t zero;
  std::atomic<std::uint64_t> stamps[kStampsPerBlock];
};

struct AccessTable::Mapping {
  ipc::file_mapping file;
  ipc::mapped_region region;
};

std::unique_ptr<AccessTable> AccessTable::open(const std::filesystem::path& directory, const Uuid& uuid) {
  static_assert(RunTable::kBytes % kBlockBytes == 0 && sizeof(Block) == kBlockBytes &&
                sizeof(Header) <= kBlockBytes);
  static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

  std::unique_ptr<AccessTable> table(new AccessTable);
  const std::filesystem::path file = directory / "access.shm";
  if (table->attach(file, uuid)) return table;

  // Made under another name and then linked, so that nobody maps half a table; if another process was faster,
  // its table is taken.
  const std::filesystem::path fresh = directory / ("access.shm." + std::to_string(getpid()));
  unlink(fresh.c_str());
  const int fd = ::open(fresh.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) {
    table->make_private(uuid, std::strerror(errno));
    return table;
  }
  Header header{};
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  header.version = kVersion;
  header.uuid = uuid;
  header.blocks = kFirstBlocks;
  int error = posix_fallocate(fd, 0, (kFirstStampBlock + kFirstBlocks) * kBlockBytes);
  if (error == 0 && pwrite(fd, &header, sizeof header, 0) != static_cast<ssize_t>(sizeof header))
    error = errno;
  close(fd);
  if (error == 0 && link(fresh.c_str(), file.c_str()) != 0) {
    if (errno == EEXIST && table->attach(file, uuid)) {
      unlink(fresh.c_str());
      return table;
    }
    // What lies there is damaged, or there are no hard links here.
    if (rename(fresh.c_str(), file.c_str()) != 0) error = errno;
  }
  unlink(fresh.c_str());
  if (error != 0 || !table->attach(file, uuid)) {
    table->make_private(uuid, error != 0 ? std::strerror(error) : "it cannot be mapped");
  }
  return table;
}

AccessTable::~AccessTable() = default;

bool AccessTable::attach(const std::filesystem::path& file, const Uuid& uuid) {
  // Not through a link, and nothing but a file: what else lies there is replaced.
  struct stat there{};
  if (lstat(file.c_str(), &there) != 0 || !S_ISREG(there.st_mode)) return false;
  for (std::uint64_t bytes = kReservedBytes; bytes >= kSmallestReservedBytes; bytes /= 2) {
    try {
      auto mapping = std::make_unique<Mapping>();
      mapping->file = ipc::file_mapping(file.c_str(), ipc::read_write);
      const int fd = mapping->file.get_mapping_handle().handle;
      struct stat status{};
      if (fstat(fd, &status) != 0) return false;
      const auto file_bytes = static_cast<std::uint64_t>(status.st_size);
      if (file_bytes < kFirstStampBlock * kBlockBytes) return false;
      mapping->region = ipc::mapped_region(mapping->file, ipc::read_write, 0, bytes);

      auto* const base = static_cast<std::byte*>(mapping->region.get_address());
      auto* const header = reinterpret_cast<Header*>(base);
      const std::uint64_t clock = header->clock.load(std::memory_order_relaxed);
      if (std::memcmp(header->magic, kMagic, sizeof kMagic) != 0 || header->version != kVersion ||
          // A clock further ahead is damage, not one that was set back.
          header->uuid != uuid || clock > os::now_ns() + os::kMostAheadNs) {
        return false;
      }
      header_ = header;
      runs_.emplace(base + kBlockBytes, header->last_run);
      blocks_ = reinterpret_cast<Block*>(base + kFirstStampBlock * kBlockBytes);
      reserved_blocks_ = bytes / kBlockBytes - kFirstStampBlock;
      mapping_ = std::move(mapping);
      fd_ = fd;
      raise_clock(std::max(clock, os::now_ns()));
      return true;
    } catch (const ipc::interprocess_exception& error) {
      // Too little address space: ask for less. Anything else: there is no table to be had.
      if (error.get_native_error() != ENOMEM) return false;
    }
  }
  return false;
}

void AccessTable::make_private(const Uuid& uuid, std::string why) {
  why_private_ = std::move(why);
  mapping_ = std::make_unique<Mapping>();
  // Zeroed, and backed by memory only where it is touched.
  std::uint64_t bytes = kReservedBytes;
  for (;; bytes /= 2) {
    try {
      mapping_->region = ipc::anonymous_shared_memory(bytes);
      break;
    } catch (const ipc::interprocess_exception& error) {
      if (bytes > kSmallestReservedBytes) continue;
      throw Error(Errc::kIo, std::string("cannot map memory for access times: ") + error.what());
    }
  }
  auto* const base = static_cast<std::byte*>(mapping_->region.get_address());
  header_ = reinterpret_cast<Header*>(base);
  header_->uuid = uuid;
  runs_.emplace(base + kBlockBytes, header_->last_run);
  blocks_ = reinterpret_cast<Block*>(base + kFirstStampBlock * kBlockBytes);
  reserved_blocks_ = bytes / kBlockBytes - kFirstStampBlock;
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
  if (fd_ >= 0) {
    struct stat status{};
    if (fstat(fd_, &status) != 0) return 0;
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
  if (needed > reserved_blocks_) return false;
  const std::uint64_t blocks = std::min(std::max(std::bit_ceil(needed), kFirstBlocks), reserved_blocks_);
  // Real disk blocks: a hole on a full disk would be a signal at the first touch.
  if (fd_ >= 0 &&
      posix_fallocate(fd_, 0, static_cast<off_t>((kFirstStampBlock + blocks) * kBlockBytes)) != 0) {
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
    // Cleared first, so that a touch during the copy is taken the next time.
    if (block.dirty.load(std::memory_order_relaxed) == 0 ||
        block.dirty.exchange(0, std::memory_order_acq_rel) == 0) {
      continue;
    }
    for (std::size_t i = 0; i < kStampsPerBlock; ++i)
      stamps[i] = believed(block.stamps[i].load(std::memory_order_relaxed));
    take(number, stamps);
  }
}

std::uint64_t AccessTable::replaced() const noexcept {
  return header_->replaced.load(std::memory_order_relaxed);
}

bool AccessTable::damage_known() const noexcept {
  return header_->damage.load(std::memory_order_relaxed) == 1;
}

void AccessTable::note_damage(bool there) noexcept {
  header_->damage.store(there ? 1 : 0, std::memory_order_relaxed);
}

void AccessTable::begin_replacing() noexcept { header_->replaced.fetch_or(1, std::memory_order_release); }

void AccessTable::note_replaced() noexcept {
  const std::uint64_t before = header_->replaced.load(std::memory_order_relaxed);
  header_->replaced.store((before | 1) + 1, std::memory_order_release);
}

}  // namespace tokcask::shm
