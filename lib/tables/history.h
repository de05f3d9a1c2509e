// The history: what became of entries that are no longer there, and of puts that were declined.
//
// A ring of rows in the metadata table (see record/rows.h), written in the transaction that removes an entry.
// It explains misses, and lets the writer tell a key that comes back from one that is new.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <vector>

#include "lmdb/environment.h"
#include "record/rows.h"

namespace tokcask {

inline constexpr std::uint64_t kMostHistory = std::uint64_t{1} << 20;
// Rows that the history of a store with this budget has: 1/64 of it, at least one chunk.
[[nodiscard]] std::uint64_t history_ring(std::uint64_t max_bytes) noexcept;

// Finds the rows of a key: where each lies, by hash, 8 bytes per row, because a process that reads may have
// to look only once. The rows themselves stay in the store.
//
// Threads: one at a time.
class History {
 public:
  // The newest row of a key (by hash, see record::hash_key) as the snapshot has it, of what happened not
  // later than `until_ns`; or nothing.
  std::optional<rows::HistoryRow> find(const lmdb::ReadTransaction& transaction, const rows::StoreRow& store,
                                       std::uint64_t key_hash, std::uint64_t until_ns = ~std::uint64_t{0});

 private:
  struct Place {
    std::uint32_t hash;  // the upper half
    std::uint32_t at;    // number modulo the ring
    friend auto operator<=>(const Place&, const Place&) = default;
  };
  void refresh(const lmdb::ReadTransaction& transaction, const rows::StoreRow& store);
  void read(const lmdb::ReadTransaction& transaction, std::uint64_t from, std::uint64_t to);

  std::vector<Place> places_;  // sorted; those of rows that were overwritten too, until there are too many
  std::uint64_t read_ = 0;     // of StoreRow::history
  std::uint64_t ring_ = 0;
};

}  // namespace tokcask
