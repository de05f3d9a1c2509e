// The history: what became of entries that are no longer there, and of puts that were declined.
//
// A ring of rows in the metadata table (see record/rows.h), written in the transaction that removes an entry.
// It explains misses, and lets the writer tell a key that comes back from one that is new.
#pragma once

#include <cstdint>
#include <unordered_map>

#include "lmdb/environment.h"
#include "record/rows.h"

namespace tokcask {

// Rows that the history of a store with this budget has: 1/64 of it, at least one chunk, at most 2^20 rows.
[[nodiscard]] std::uint64_t history_ring(std::uint64_t max_bytes) noexcept;

// The rows in memory, by key: the newest of each. 60 bytes each.
//
// Threads: one at a time.
class History {
 public:
  // Reads what was written since the last call.
  void refresh(const lmdb::ReadTransaction& transaction, const rows::StoreRow& store);
  // The newest row of a key (by hash, see record::hash_key), or nothing.
  [[nodiscard]] const rows::HistoryRow* find(std::uint64_t key_hash) const;

 private:
  void take(const rows::HistoryRow& row);
  void read_all(const lmdb::ReadTransaction& transaction);

  std::unordered_map<std::uint64_t, rows::HistoryRow> rows_;
  std::uint64_t read_ = 0;  // of StoreRow::history
  std::uint64_t ring_ = 0;
};

}  // namespace tokcask
