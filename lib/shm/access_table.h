// The access table: who used what when, in memory that all processes of a store share.
//
// A file `access.shm` in the store's directory, mapped by every process through Boost.Interprocess. It is in
// the store's directory rather than in /dev/shm because it then has the store's lifetime, permissions and
// mount: nothing is left behind, containers that share the store share it, and no 64 MB limit applies.
//
// It is a hint, never the truth. Deleting or damaging it costs access times and run protection since the last
// fold (see commit.h), nothing else: it is made anew. No locks; every shared word is a lock-free atomic. A
// reader of the store only ever stores a time stamp.
//
// Layout, little-endian, blocks of 4,096 bytes:
//   block 0      header: 8 bytes magic "tokcaskA", u32 version (3), u32 0, 16 bytes store uuid,
//                u64 blocks of stamps in the file, u64 clock: no stamp handed out before was greater,
//                u64 0 (reserved), u64 the newest run id handed out, u64 1 while a record is known to be
//                damaged
//   blocks 1-48  the run table, see run_table.h
//   blocks 49-   stamps by slot: u64 dirty flag, u64 0, 510 u64 stamps (nanoseconds since the Unix epoch; 0:
//                none)
//
// Whoever has the table open holds a shared lock (F_OFD_SETLK) on byte 0 of the file, through a descriptor
// that a forked child closes. A table that others use is never replaced by a new one.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "os/process_descriptor.h"
#include "shm/run_table.h"
#include "shm/uuid.h"

namespace tokcask::shm {

inline constexpr std::size_t kStampsPerBlock = 510;

// Threads and processes: all members may be called concurrently. Not used after fork() in the child.
class AccessTable {
 public:
  // Maps the table of the store `uuid` in `directory`, making it anew if it is missing, or if nobody uses it
  // and it is damaged, another store's or of another version. Where it cannot be mapped or made (a read-only
  // directory), the table is private to the process, and `why_private()` says why. Throws Error(kIo) when
  // there is no address space for that either.
  static std::unique_ptr<AccessTable> open(const std::filesystem::path& directory, const Uuid& uuid);
  ~AccessTable();
  AccessTable(const AccessTable&) = delete;
  AccessTable& operator=(const AccessTable&) = delete;

  [[nodiscard]] const std::string& why_private() const noexcept { return why_private_; }
  // What it cannot do, for people; empty: nothing.
  [[nodiscard]] std::string shortcoming() const;
  // How many slots there is address space for; 2^32 where there is enough of it.
  [[nodiscard]] std::uint64_t capacity() const noexcept { return reserved_blocks_ * kStampsPerBlock; }

  // A stamp greater than every one this process was given before, and not less than the clock or `floor`.
  std::uint64_t next_stamp() noexcept;
  void raise_clock(std::uint64_t floor) noexcept;
  // Not less than any stamp that this process was given.
  [[nodiscard]] std::uint64_t newest_stamp() const noexcept {
    return last_stamp_.load(std::memory_order_relaxed);
  }

  // Records that the entry in `slot` was used at `stamp`. Wait-free; without effect for a slot that has no
  // place.
  void touch(std::uint32_t slot, std::uint64_t stamp) noexcept;
  // Asks for the memory that touch() of this slot will want.
  void fetch_ahead(std::uint32_t slot) const noexcept;
  // Sets it also to an older stamp: a slot that is given to another entry. 0 for one that is freed.
  void assign(std::uint32_t slot, std::uint64_t stamp) noexcept;
  // The newest recorded stamp, or 0.
  [[nodiscard]] std::uint64_t stamp(std::uint32_t slot) const noexcept;

  // Makes place for `slots` slots. Returns false when the disk or the reserved address space is full: then
  // accesses of the slots beyond are not recorded, and shortcoming() says so.
  bool grow(std::uint64_t slots);

  // Calls `take(block number, its 510 stamps)` for each block touched since the last call that took it.
  void take_dirty(const std::function<void(std::uint64_t, std::span<const std::uint64_t>)>& take);

  // Whether somebody found a damaged record that may still be there.
  [[nodiscard]] bool damage_known() const noexcept;
  void note_damage(bool there) noexcept;

  // Entries used since the start of the oldest living run are protected from eviction.
  [[nodiscard]] RunTable& runs() noexcept { return *runs_; }

 private:
  struct Mapping;
  struct Header;
  struct Block;
  AccessTable() = default;
  enum class Attached {
    kYes,
    kUnusable,  // there is none, or it is none of this store
    kTryAgain,  // somebody has just put another file there
    kNo,        // why_private_ says why
  };
  bool share(const std::filesystem::path& file, const Uuid& uuid);
  Attached attach(const std::filesystem::path& file, const Uuid& uuid);
  Attached map(const std::filesystem::path& file);
  void point_into(std::uint64_t bytes) noexcept;
  void make_private(const Uuid& uuid);
  // The block of a slot, or nothing if it has no place in the file.
  [[nodiscard]] Block* block_of(std::uint32_t slot) const noexcept;
  [[nodiscard]] std::uint64_t usable_blocks() const noexcept;
  // The stamp, or 0 for one that is damage.
  [[nodiscard]] std::uint64_t believed(std::uint64_t stamp) const noexcept;

  // Declared before the run table, whose locks are this descriptor's.
  os::ProcessDescriptor file_;  // none: private
  std::unique_ptr<Mapping> mapping_;
  Header* header_ = nullptr;
  std::optional<RunTable> runs_;
  Block* blocks_ = nullptr;
  std::uint64_t reserved_blocks_ = 0;
  std::atomic<bool> full_{false};
  // Blocks that are known to lie inside the file. It never shrinks, unless somebody damages it.
  mutable std::atomic<std::uint64_t> known_blocks_{0};
  std::atomic<std::uint64_t> last_stamp_{0};
  std::string why_private_;
};

}  // namespace tokcask::shm
