#include "cache/history.h"

#include <algorithm>
#include <utility>

namespace tokcask {

using lmdb::Table;
using rows::MetaKey;
using rows::Tag;

std::uint64_t history_ring(std::uint64_t max_bytes) noexcept {
  constexpr std::uint64_t kShare = 64;
  constexpr std::uint64_t kMost = std::uint64_t{1} << 20;
  return std::clamp<std::uint64_t>(max_bytes / kShare / sizeof(rows::HistoryRow), rows::kHistoryPerChunk,
                                   kMost);
}

void History::take(const rows::HistoryRow& row) {
  if (row.fate == rows::Fate::kNone) return;
  rows::HistoryRow& known = rows_[row.key_hash];
  if (row.when_ns >= known.when_ns) known = row;
}

void History::read_all(const lmdb::ReadTransaction& transaction) {
  rows_.clear();
  const lmdb::Cursor cursor(transaction, Table::kMeta);
  const auto tag = static_cast<std::byte>(Tag::kHistory);
  for (auto entry = cursor.seek({&tag, 1}); entry && entry->key[0] == tag; entry = cursor.next()) {
    if (const auto chunk = rows::read_row<rows::HistoryChunk>(entry->value)) {
      for (const rows::HistoryRow& row : *chunk) take(row);
    }
  }
}

void History::refresh(const lmdb::ReadTransaction& transaction, const rows::StoreRow& store) {
  const std::uint64_t from = std::exchange(read_, store.history);
  const std::uint64_t ring = std::exchange(ring_, store.history_ring);
  if (store.history == from && store.history_ring == ring) return;
  // Rows that were overwritten stay in memory until there are too many of them.
  if (ring != store.history_ring || store.history < from || store.history - from >= ring || ring == 0 ||
      rows_.size() > 2 * ring) {
    read_all(transaction);
    return;
  }
  for (std::uint64_t number = from; number < store.history;) {
    const std::uint64_t at = number % ring;
    const auto value =
        transaction.get(Table::kMeta, MetaKey(Tag::kHistory, at / rows::kHistoryPerChunk).bytes());
    const auto chunk = value ? rows::read_row<rows::HistoryChunk>(*value) : std::nullopt;
    const std::uint64_t end =
        std::min({rows::kHistoryPerChunk - at % rows::kHistoryPerChunk, ring - at, store.history - number});
    for (std::uint64_t i = 0; chunk && i < end; ++i) take((*chunk)[at % rows::kHistoryPerChunk + i]);
    number += end;
  }
}

const rows::HistoryRow* History::find(std::uint64_t key_hash) const {
  const auto found = rows_.find(key_hash);
  return found == rows_.end() ? nullptr : &found->second;
}

}  // namespace tokcask
