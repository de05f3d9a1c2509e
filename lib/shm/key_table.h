// The key table: where the records of a fixed list of keys lie, in memory that all processes of a run share.
//
// A file `keys-<hash of the list>.shm` in the store's directory, mapped through Boost.Interprocess. The first
// process that wants a list resolved makes it; the others, however they were started, map it. It is made
// whole under another name, then renamed, and never changes; one that no longer fits is replaced by a newer
// one.
//
// It is a hint, never the truth. Whoever uses it checks each record against what the table says of it. A
// table that is missing, damaged, or of another store is made anew, and deleting it costs only the time to
// make it. (Cutting it short while it is mapped is fatal, as it is for data.mdb: nobody does that to files of
// mode 0600.)
//
// Lifetime: each process that has it mapped holds a shared flock(2) on it. A table that nobody holds stays
// for the next run of the same list, as long as it is of the store's file and one of the newest, which
// together take no more than the user of the last one allowed. Who lets go of a table or makes one removes
// the others, and what killed processes left. A process that was forked shares its parent's lock.
//
// Layout, little-endian:
//   block 0   8 bytes magic "tokcaskK", u32 version (3), u32 0, 16 bytes store uuid, 16 bytes XXH3-128 of the
//             packed list, u64 keys, u64 bytes of the packed list, u64 transaction that the places are of,
//             i64 time of the last change of data.mdb then, u64 XXH3-64 of all that follows block 0, u64
//             XXH3-64 of the fields before this one
//   block 1…  places: 24 bytes per key; the packed list (record/key_list.h)
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "shm/uuid.h"

namespace tokcask::shm {

// Where a record lies, and what a reader needs of its header.
struct Place {
  std::uint64_t offset_and_flags = 0;  // of its first byte in data.mdb, a multiple of 8
  std::uint64_t generation = 0;        // 0: there was no record
  std::uint32_t length = 0;            // tokens
  std::uint32_t slot = 0;

  // The record lies inside a leaf of the tree, so that changes to its neighbours move it.
  static constexpr std::uint64_t kInline = 1;
  // It has a mask.
  static constexpr std::uint64_t kMask = 2;
  // It is that of another sequence length, of which the first `length` ids serve.
  static constexpr std::uint64_t kDerived = 4;
  // It has parts, so its length alone does not say how large it is.
  static constexpr std::uint64_t kParts = std::uint64_t{1} << 63;
  [[nodiscard]] bool known() const noexcept { return generation != 0; }
  [[nodiscard]] bool is_inline() const noexcept { return (offset_and_flags & kInline) != 0; }
  [[nodiscard]] bool has_mask() const noexcept { return (offset_and_flags & kMask) != 0; }
  [[nodiscard]] bool is_derived() const noexcept { return (offset_and_flags & kDerived) != 0; }
  [[nodiscard]] bool has_parts() const noexcept { return (offset_and_flags & kParts) != 0; }
  [[nodiscard]] std::uint64_t offset() const noexcept {
    return offset_and_flags & ~(kInline | kMask | kDerived | kParts);
  }
  friend bool operator==(const Place&, const Place&) = default;
};
static_assert(sizeof(Place) == 24);

// What a table is made of. Borrowed.
struct KeyTableContent {
  Uuid store{};
  std::uint64_t txnid = 0;
  std::int64_t data_mtime_ns = 0;  // of data.mdb, looked at after the transaction had begun
  std::span<const Place> places;
  std::span<const std::byte> keys;  // packed
  std::uint64_t keep_bytes = 0;     // see KeyTable::attach()
};

// Threads and processes: immutable, so all members may be called concurrently, also after fork() in the
// child.
class KeyTable {
 public:
  // The table of the list `keys` in `directory`, or nothing if there is none that can be used. Reads the
  // whole file once, without mapping it: its pages count for this process only when it uses them. At its end,
  // tables of the directory that nobody uses stay if all of them together take no more than `keep_bytes`.
  static std::unique_ptr<KeyTable> attach(const std::filesystem::path& directory, const Uuid& store,
                                          std::span<const std::byte> keys, std::uint64_t keep_bytes);

  // Makes the table and puts it in the place of one that is there. Where no file can be made (a directory
  // that is read-only, a full disk) the table is in memory that forked children share, and why_private() says
  // why. Throws Error(kIo) when there is no address space for that either.
  static std::unique_ptr<KeyTable> publish(const std::filesystem::path& directory,
                                           const KeyTableContent& content);
  ~KeyTable();
  KeyTable(const KeyTable&) = delete;
  KeyTable& operator=(const KeyTable&) = delete;

  [[nodiscard]] const Uuid& store() const noexcept { return store_; }
  [[nodiscard]] std::uint64_t txnid() const noexcept { return txnid_; }
  [[nodiscard]] std::int64_t data_mtime_ns() const noexcept { return data_mtime_ns_; }
  [[nodiscard]] std::span<const Place> places() const noexcept { return places_; }
  [[nodiscard]] std::span<const std::byte> keys() const noexcept { return keys_; }
  [[nodiscard]] const std::string& why_private() const noexcept { return why_private_; }

 private:
  struct Mapping;
  struct Header;
  KeyTable() = default;
  void point_into(const std::byte* base, const Header& header) noexcept;
  static void remove_unused(const std::filesystem::path& directory, const Uuid& store,
                            std::uint64_t keep_bytes);

  std::unique_ptr<Mapping> mapping_;
  std::filesystem::path file_;  // empty: private
  Uuid store_{};
  std::uint64_t txnid_ = 0;
  std::int64_t data_mtime_ns_ = 0;
  std::uint64_t keep_bytes_ = 0;
  std::span<const Place> places_;
  std::span<const std::byte> keys_;
  std::string why_private_;
};

}  // namespace tokcask::shm
