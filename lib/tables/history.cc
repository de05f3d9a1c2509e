#include "tables/history.h"

#include <algorithm>
#include <utility>

namespace tokcask {

using lmdb::Table;
using rows::MetaKey;
using rows::Tag;

std::uint64_t history_ring(std::uint64_t max_bytes) noexcept {
  constexpr std::uint64_t kShare = 64;
  return std::clamp<std::uint64_t>(max_bytes / kShare / sizeof(rows::HistoryRow), rows::kHistoryPerChunk,
                                   kMostHistory);
}

namespace {

std::optional<rows::HistoryChunk> chunk_of(const lmdb::ReadTransaction& transaction, std::uint64_t at) {
  const auto value =
      transaction.get(Table::kMeta, MetaKey(Tag::kHistory, at / rows::kHistoryPerChunk).bytes());
  return value ? rows::read_row<rows::HistoryChunk>(*value) : std::nullopt;
}

constexpr std::uint32_t upper_half(std::uint64_t hash) { return static_cast<std::uint32_t>(hash >> 32); }

}  // namespace

// Rows at the places from `from` to `to`, which is behind the last.
void History::read(const lmdb::ReadTransaction& transaction, std::uint64_t from, std::uint64_t to) {
  while (from < to) {
    const std::uint64_t end = std::min(to, (from / rows::kHistoryPerChunk + 1) * rows::kHistoryPerChunk);
    const auto chunk = chunk_of(transaction, from);
    for (; from < end; ++from) {
      if (!chunk) continue;
      const rows::HistoryRow& row = (*chunk)[from % rows::kHistoryPerChunk];
      if (row.fate == rows::Fate::kNone) continue;
      places_.push_back({upper_half(row.key_hash), static_cast<std::uint32_t>(from)});
    }
  }
}

void History::refresh(const lmdb::ReadTransaction& transaction, const rows::StoreRow& store) {
  if (store.history == read_ && store.history_ring == ring_) return;
  // Should memory run out, nothing was read, and all is read the next time.
  const std::uint64_t seen = std::exchange(read_, 0);
  const std::uint64_t ring = std::exchange(ring_, 0);
  if (ring != store.history_ring || store.history < seen || store.history - seen >= ring ||
      places_.size() > 2 * ring) {
    places_.clear();
    read(transaction, 0, std::min(store.history, store.history_ring));
    std::sort(places_.begin(), places_.end());
  } else {
    const auto sorted = static_cast<std::ptrdiff_t>(places_.size());
    const std::uint64_t from = seen % ring;
    const std::uint64_t to = from + (store.history - seen);
    read(transaction, from, std::min(to, ring));
    if (to > ring) read(transaction, 0, to - ring);
    std::sort(places_.begin() + sorted, places_.end());
    std::inplace_merge(places_.begin(), places_.begin() + sorted, places_.end());
  }
  read_ = store.history;
  ring_ = store.history_ring;
}

std::optional<rows::HistoryRow> History::find(const lmdb::ReadTransaction& transaction,
                                              const rows::StoreRow& store, std::uint64_t key_hash,
                                              std::uint64_t until_ns) {
  refresh(transaction, store);
  std::optional<rows::HistoryRow> newest;
  for (auto place = std::lower_bound(places_.begin(), places_.end(), Place{upper_half(key_hash), 0});
       place != places_.end() && place->hash == upper_half(key_hash); ++place) {
    const auto chunk = chunk_of(transaction, place->at);
    if (!chunk) continue;
    const rows::HistoryRow& row = (*chunk)[place->at % rows::kHistoryPerChunk];
    if (row.key_hash == key_hash && row.when_ns <= until_ns && (!newest || row.when_ns > newest->when_ns))
      newest = row;
  }
  return newest;
}

}  // namespace tokcask
