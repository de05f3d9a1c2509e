// Reading the tables: the store row, entry rows with their keys, runs, and the names of tokenizers.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <tokcask/key.h>

#include "lmdb/environment.h"
#include "record/rows.h"

namespace tokcask {

// Why a record that is intact is not served all the same.
inline constexpr const char* kNotCurrent = "it is not the record that the entry table knows";

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
// over; verify() reports them.
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

// Page bytes that an entry occupies: its overflow pages and its leaf node, or the node with the value inside.
[[nodiscard]] std::uint64_t occupied_bytes(std::size_t canonical_bytes, std::size_t record_bytes,
                                           std::size_t page_bytes) noexcept;

}  // namespace tokcask
