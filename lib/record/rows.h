// The metadata table: which rows it has, and how they are laid out. A format, no I/O.
//
// Keys are 8 bytes: a tag, then a 56-bit number in big-endian order, so that rows of one tag are neighbours
// in numeric order; rows that belong to a path have 16 bytes: the tag, then 15 bytes of the path's XXH3-128.
// Values are multiples of 8 bytes, little-endian.
//
//   tag number    row
//    S  0         StoreRow: identity, format version, totals
//    T  number    a tokenizer's sha as text, interned: entries name it by number (from 1)
//    E  chunk     127 EntryRows: one per slot, 4,064 bytes: one overflow page
//    A  chunk     510 last access times, u64 nanoseconds, by slot, 4,080 bytes: one overflow page
//    L  slot      the section id as text, when it is not 16 lower-case hex digits, which older programs made
//    R  run id    RunRow
//    H  chunk     127 HistoryRows, 4,064 bytes: one overflow page; a ring of what became of entries
//    P  sha hash  what is known of a tokenizer (see encode_traits)
//    D  path hash the files remembered of one directory (see encode_directory)
//    F  path hash a tokenizer file's identity and its tokenizer's sha
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <tokcask/explain.h>
#include <tokcask/source_index.h>

namespace tokcask::rows {

// What is needed to read a store: 1, or 2 once an entry with parts was put. So programs that know no parts go
// on with stores that have none.
inline constexpr std::uint32_t kFormatWithoutParts = 1;
inline constexpr std::uint32_t kFormatVersion = 2;
[[nodiscard]] constexpr bool is_known_format(std::uint32_t version) {
  return version >= kFormatWithoutParts && version <= kFormatVersion;
}
inline constexpr char kStoreMagic[8] = {'t', 'o', 'k', 'c', 'a', 's', 'k', '\0'};
inline constexpr std::uint32_t kNoSlot = 0xffffffff;

enum class Tag : char {
  kStore = 'S',
  kTokenizer = 'T',
  kEntries = 'E',
  kAccess = 'A',
  kLiteral = 'L',
  kRun = 'R',
  kHistory = 'H',
  kTraits = 'P',
  kDirectory = 'D',
  kTokenizerFile = 'F',
};

// A key of the metadata table.
class MetaKey {
 public:
  MetaKey(Tag tag, std::uint64_t number) noexcept;
  static MetaKey of_path(Tag tag, std::string_view path) noexcept;
  [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return {bytes_.data(), size_}; }

 private:
  MetaKey() = default;
  std::array<std::byte, 16> bytes_{};
  std::size_t size_ = 8;
};

struct StoreRow {
  char magic[8] = {'t', 'o', 'k', 'c', 'a', 's', 'k', '\0'};
  std::uint32_t format_version = kFormatWithoutParts;
  std::uint32_t page_bytes = 0;
  std::array<std::uint8_t, 16> uuid{};
  std::uint64_t created_ns = 0;
  std::uint64_t entry_count = 0;
  std::uint64_t total_bytes = 0;    // page bytes of live entries
  std::uint64_t payload_bytes = 0;  // ids and irregular masks of live entries
  std::uint64_t next_generation = 1;
  std::uint32_t slot_count = 0;       // slots ever used; all live slots are below it
  std::uint32_t free_slot = kNoSlot;  // head of the list of free slots, linked through EntryRow::section
  std::uint32_t tokenizer_count = 0;
  std::uint32_t reserved0 = 0;
  std::uint64_t last_run_id = 0;
  std::uint64_t commits = 0;
  std::uint64_t max_bytes = 0;   // budget of the handle that committed last
  std::uint64_t clock_ns = 0;    // newest access time handed out
  char tokenizer_sha[64] = {};   // as told by save_manifest
  std::uint64_t dated_puts = 0;  // of entries whose last access was older than the put; see victims.h
  std::uint64_t rewrites =
      0;  // how often the file was written anew, by compaction: places of before are void
  std::uint64_t cleared_ns = 0;       // the last clear(); 0: never
  std::uint64_t cleared_entries = 0;  // how many it removed
  std::uint64_t history = 0;       // history rows ever written; the next goes to this number modulo the ring
  std::uint64_t history_ring = 0;  // rows that are kept
  std::uint64_t hint_bytes = 0;    // of the values of D, F and P rows
  std::uint64_t names_epoch = 0;   // how often T rows were forgotten: numbers of before are void
  std::uint64_t reserved[1] = {};
};
static_assert(sizeof(StoreRow) == 256);

struct EntryRow {
  std::uint64_t section = 0;  // the 16 hex digits as a number; a hash if kLiteral; the next free slot if free
  std::uint32_t tokenizer = 0;  // number of its T row; 0: this slot is free
  std::uint32_t sequence_len = 0;
  std::uint64_t generation = 0;  // equals the record's, or the record is not the current one
  std::uint32_t occupied = 0;    // bytes of pages that the record takes
  std::uint32_t payload = 0;     // bytes of ids and mask; the top bit is kLiteral
  static constexpr std::uint32_t kLiteral = 0x80000000;
};
static_assert(sizeof(EntryRow) == 32);

inline constexpr std::size_t kEntriesPerChunk = 127;
inline constexpr std::size_t kStampsPerChunk = 510;
using EntryChunk = std::array<EntryRow, kEntriesPerChunk>;
using StampChunk = std::array<std::uint64_t, kStampsPerChunk>;

struct RunRow {
  static constexpr std::uint32_t kKilled = 1;             // ended by the death of its processes
  static constexpr std::uint32_t kSeveralTokenizers = 2;  // or lengths; the row names the first
  std::uint64_t run_id = 0;
  std::int64_t started_ns = 0;
  std::int64_t ended_ns = 0;
  std::uint64_t hits = 0;
  std::uint64_t misses = 0;
  std::uint64_t puts = 0;
  std::uint64_t declined = 0;
  std::uint64_t evicted = 0;
  double tokenize_seconds = 0.0;
  std::uint64_t bytes_after = 0;
  std::uint64_t derived = 0;  // hits served from an entry of another sequence length
  std::int64_t last_active_ns = 0;
  std::uint32_t sequence_len = 0;
  std::uint32_t flags = 0;
  char tokenizer_sha[64] = {};  // cut, if it is longer
  std::uint64_t reserved[11] = {};
};
static_assert(sizeof(RunRow) == 256);
inline constexpr std::uint64_t kRunsKept = 256;  // the newest

// What became of an entry that is no longer there, or of a put that was declined.
enum class Fate : std::uint32_t {
  kNone = 0,
  kEvicted = 1,   // to make room
  kPruned = 2,    // by prune()
  kDeclined = 3,  // a put, because everything else was wanted more
  kLowered = 4,   // removed because the budget was lowered
};
struct HistoryRow {
  std::uint64_t key_hash = 0;   // XXH3-64 of the canonical key
  std::uint64_t when_ns = 0;    // when that happened
  std::uint64_t wanted_ns = 0;  // its last access before that; for a declined put the same as when_ns
  std::uint32_t run_id = 0;     // the run that did it, 0: not known
  Fate fate = Fate::kNone;
};
static_assert(sizeof(HistoryRow) == 32);
inline constexpr std::size_t kHistoryPerChunk = 127;
using HistoryChunk = std::array<HistoryRow, kHistoryPerChunk>;

// Whether the entry in `slot` is the one that `generation` names; `chunk` is the value of the slot's chunk.
bool is_current(std::span<const std::byte> chunk, std::uint32_t slot, std::uint64_t generation) noexcept;

// Copies a fixed-size row out of a value, if the value has its size.
template <typename Row>
std::optional<Row> read_row(std::span<const std::byte> value) noexcept {
  if (value.size() != sizeof(Row)) return std::nullopt;
  Row row;
  std::memcpy(static_cast<void*>(&row), value.data(), sizeof row);
  return row;
}
template <typename Row>
std::span<const std::byte> bytes_of(const Row& row) noexcept {
  return std::as_bytes(std::span(&row, 1));
}

// The 16 lower-case hex digits of a section id as a number, or nothing if it is not that.
std::optional<std::uint64_t> pack_section(std::string_view section_id) noexcept;
std::string unpack_section(std::uint64_t packed);
void append_section(std::uint64_t packed, std::string& out);

// Text in a row: its bytes, then zeros up to a multiple of 8. Holds no NUL itself.
std::vector<std::byte> encode_text(std::string_view text);
std::string_view decode_text(std::span<const std::byte> value) noexcept;

// A directory row: u32 version (2), u32 file count, u32 path bytes, u32 0, the path, then per file
//   u64 size, i64 mtime, i64 ctime, u64 inode, 16 bytes section, u8 kind, u8 0, u16 name bytes, the name
// packed without gaps, then zeros up to a multiple of 8. A file with a longer name is left out. In version 1
// a section had 8 bytes, which do not name one any more: such a row is as good as none, for this program and,
// the other way round, for those that know version 1 alone.
std::vector<std::byte> encode_directory(std::string_view path, const SourceDirectory& files);
// Nothing if it is damaged, of another path, or of another version.
std::optional<SourceDirectory> decode_directory(std::string_view path, std::span<const std::byte> value);

// The path that it is of; nothing if that is damaged.
std::optional<std::string> path_of_directory(std::span<const std::byte> value);

// A tokenizer file's row: u64 size, i64 mtime, i64 ctime, u64 inode, u32 sha bytes, u32 path bytes, both
// texts.
std::vector<std::byte> encode_tokenizer_file(std::string_view path, const FileIdentity& identity,
                                             std::string_view sha);
std::optional<std::string> decode_tokenizer_file(std::string_view path, const FileIdentity& identity,
                                                 std::span<const std::byte> value);

// What is known of a tokenizer: u64 flags (bit 0: cuts_at_length, bit 1: cuts_to_prefix), its sha as text.
std::vector<std::byte> encode_traits(std::string_view sha, const TokenizerTraits& traits);
// Nothing known if it is damaged or another tokenizer's.
TokenizerTraits decode_traits(std::string_view sha, std::span<const std::byte> value) noexcept;

}  // namespace tokcask::rows
