// One write transaction over both tables: records and the metadata that belongs to them change together or
// not at all. Knows the tables' rules; knows nothing of budgets, queues or threads.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <tokcask/key.h>

#include "cache/pending.h"
#include "lmdb/environment.h"
#include "record/rows.h"

namespace tokcask {

// Tokenizer shas and the numbers that entries name them by. A cache of the T rows, which only ever grow
// within one epoch (see rows::StoreRow).
class TokenizerNames {
 public:
  // Forgets names of a transaction that was aborted and those of another epoch, and reads those that other
  // processes have added.
  template <typename Transaction>
  void refresh(const Transaction& transaction, std::uint32_t count, std::uint64_t epoch = 0);
  // 0 if there is none.
  [[nodiscard]] std::uint32_t number(std::string_view sha) const;
  // Empty if there is none.
  [[nodiscard]] std::string_view name(std::uint32_t number) const;
  std::uint32_t add(std::string_view sha);

 private:
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view sha) const noexcept { return std::hash<std::string_view>()(sha); }
  };
  std::vector<std::string> names_;  // number - 1
  std::unordered_map<std::string, std::uint32_t, Hash, std::equal_to<>> numbers_;
  std::uint64_t epoch_ = 0;
};

// The store row of a snapshot, with no greater counts than there can be. Throws Error(kDamaged) if there is
// none of this format.
template <typename Transaction>
rows::StoreRow read_store_row(const Transaction& transaction);

// The section id of an entry, which is in its row or, if it is not 16 hex digits, in a row of its own.
template <typename Transaction>
std::string section_of(const Transaction& transaction, std::uint32_t slot, const rows::EntryRow& row);

// The canonical key of an entry of the tokenizer `sha`.
template <typename Transaction>
std::string canonical_of(const Transaction& transaction, std::uint32_t slot, const rows::EntryRow& row,
                         std::string_view sha);

// Calls `take` with the slot and the row of each live entry, in slot order. Rows that are damaged are passed
// over; verify() tells of them.
template <typename Take>
void for_each_entry(const lmdb::ReadTransaction& transaction, const rows::StoreRow& store, const Take& take) {
  for (std::uint64_t first = 0; first < store.slot_count; first += rows::kEntriesPerChunk) {
    const rows::MetaKey key(rows::Tag::kEntries, first / rows::kEntriesPerChunk);
    const auto value = transaction.get(lmdb::Table::kMeta, key.bytes());
    const auto chunk = value ? rows::read_row<rows::EntryChunk>(*value) : std::nullopt;
    if (!chunk) continue;
    for (std::uint64_t i = 0; i < rows::kEntriesPerChunk && first + i < store.slot_count; ++i) {
      const rows::EntryRow& row = (*chunk)[i];
      if (row.tokenizer != 0) take(static_cast<std::uint32_t>(first + i), row);
    }
  }
}

// When the record of an entry was made, or 0 if there is no such record.
std::uint64_t created_ns(const lmdb::ReadTransaction& transaction, std::uint32_t slot,
                         const rows::EntryRow& row, std::string_view sha);

// The runs that are stored, oldest id first.
std::vector<rows::RunRow> read_runs(const lmdb::ReadTransaction& transaction);

// What an entry row holds for a key, apart from its record.
rows::EntryRow entry_row_of(const CacheKey& key, std::uint32_t tokenizer);
[[nodiscard]] bool same_key(const rows::EntryRow& a, const rows::EntryRow& b) noexcept;

// Why an entry is removed: what the history says of it.
struct Removal {
  rows::Fate fate = rows::Fate::kNone;
  std::uint64_t run_id = 0;  // 0: not known
  std::uint64_t ring = 0;    // rows that the history has
};

class Commit {
 public:
  Commit(const lmdb::Environment& environment, TokenizerNames& names);

  [[nodiscard]] rows::StoreRow& store() noexcept { return store_; }

  // Writes one entry and gives it `put.stamp`. Returns its slot.
  std::uint32_t put(const CacheKey& key, const PendingPut& put);

  // Removes the entry in `slot` if it still has `generation`; returns the bytes it occupied, or 0.
  // `wanted_ns` is its last access.
  std::uint64_t erase(std::uint32_t slot, std::uint64_t generation, const Removal& why,
                      std::uint64_t wanted_ns);
  // Removes the entry under `key`, if there is one that its row knows; returns its slot, or kNoSlot.
  std::uint32_t erase(const CacheKey& key);
  // Removes a record or a row as it is, without regard to what belongs to it.
  void erase_raw(lmdb::Table table, lmdb::Bytes key) { transaction_.erase(table, key); }

  // Adds a row to the history, which has `ring` rows.
  void note(const rows::HistoryRow& row, std::uint64_t ring);

  // Raises the stored access times of a chunk of slots to `stamps`.
  void fold(std::uint64_t chunk, std::span<const std::uint64_t> stamps);

  // A row of fixed size as this transaction has it.
  template <typename Row>
  [[nodiscard]] std::optional<Row> row(const rows::MetaKey& key) const {
    const auto value = transaction_.get(lmdb::Table::kMeta, key.bytes());
    return value ? rows::read_row<Row>(*value) : std::nullopt;
  }
  void put_row(const rows::MetaKey& key, std::span<const std::byte> value);
  void erase_row(const rows::MetaKey& key);

  // ---- What is remembered beside entries: rows of directories, tokenizer files and traits ----
  // Writes such a row and counts its bytes in StoreRow::hint_bytes.
  void put_hint(const rows::MetaKey& key, std::span<const std::byte> value);
  // Erases at most `most` of them. Returns how many; when there are no more, hint_bytes is 0.
  std::size_t forget_hints(std::size_t most);
  // The same for tokenizer names, of which none is in use.
  std::size_t forget_names(std::size_t most);
  // Erases at most `most` records, for a store whose rows know no entry any more. Returns how many.
  std::size_t erase_unknown(std::size_t most);

  // Writes what was gathered: chunks of entries and stamps, and the store row. To be called once, after all
  // changes; then comes commit().
  void finish();
  [[nodiscard]] std::uint64_t id() const noexcept { return transaction_.id(); }
  // See lmdb::WriteTransaction.
  [[nodiscard]] std::uint64_t next_page() const noexcept { return transaction_.next_page(); }
  // Pages of values that are now free.
  [[nodiscard]] std::uint64_t freed_pages() const noexcept { return freed_pages_; }

  void commit() { transaction_.commit(); }

 private:
  // A chunk of rows, read once and written back by finish() if it was changed.
  template <typename Rows>
  struct Chunk {
    Rows rows{};
    bool changed = false;
  };
  template <typename Rows>
  using Chunks = std::map<std::uint64_t, std::unique_ptr<Chunk<Rows>>>;
  template <typename Rows>
  Chunk<Rows>& chunk_of(Chunks<Rows>& chunks, rows::Tag tag, std::uint64_t number);
  template <typename Rows>
  void write_changed(const Chunks<Rows>& chunks, rows::Tag tag);

  [[nodiscard]] const rows::EntryRow& entry(std::uint32_t slot);
  rows::EntryRow& change_entry(std::uint32_t slot);
  void set_stamp(std::uint64_t slot, std::uint64_t stamp);
  std::uint32_t find_slot(const CacheKey& key, lmdb::Bytes padded_key, const rows::EntryRow& wanted);
  std::uint32_t take_slot();
  void forget(const rows::EntryRow& row);
  // The canonical key of the entry that was removed; empty if there was none.
  std::string remove(std::uint32_t slot, std::uint64_t generation);
  void count_freed(std::size_t key_bytes, std::size_t value_bytes);
  std::size_t erase_rows(lmdb::Table table, lmdb::Bytes prefix, std::size_t most);

  const lmdb::Environment* environment_;
  TokenizerNames* names_;
  lmdb::WriteTransaction transaction_;
  rows::StoreRow store_;
  Chunks<rows::EntryChunk> entries_;
  Chunks<rows::StampChunk> stamps_;
  Chunks<rows::HistoryChunk> history_;
  std::uint64_t freed_pages_ = 0;
};

}  // namespace tokcask
