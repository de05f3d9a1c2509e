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
#include <tokcask/tokens.h>

#include "lmdb/environment.h"
#include "record/rows.h"
#include "tables/read.h"

namespace tokcask {

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

  struct Put {
    Tokens tokens;  // a mask of ones is not given
    std::uint64_t created_ns = 0;
    std::uint64_t stamp = 0;  // the last access
    bool dated = false;       // `stamp` is one of its own, not that of the put
  };
  // Writes one entry. Returns its slot.
  std::uint32_t put(const CacheKey& key, const Put& put);

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
