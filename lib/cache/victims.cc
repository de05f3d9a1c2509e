#include "cache/victims.h"

#include <algorithm>

#include "cache/commit.h"

namespace tokcask {

using lmdb::Table;
using rows::MetaKey;
using rows::Tag;

std::vector<Victim> live_entries(const lmdb::ReadTransaction& transaction, const rows::StoreRow& store,
                                 const shm::AccessTable& access) {
  std::vector<std::uint64_t> stamps(store.slot_count);
  for (std::uint64_t first = 0; first < store.slot_count; first += rows::kStampsPerChunk) {
    const auto value =
        transaction.get(Table::kMeta, MetaKey(Tag::kAccess, first / rows::kStampsPerChunk).bytes());
    const auto chunk = value ? rows::read_row<rows::StampChunk>(*value) : std::nullopt;
    if (!chunk) continue;
    const std::uint64_t count = std::min<std::uint64_t>(rows::kStampsPerChunk, store.slot_count - first);
    std::copy_n(chunk->begin(), count, stamps.begin() + static_cast<std::ptrdiff_t>(first));
  }
  std::vector<Victim> live;
  live.reserve(store.entry_count);
  for (std::uint64_t first = 0; first < store.slot_count; first += rows::kEntriesPerChunk) {
    const auto value =
        transaction.get(Table::kMeta, MetaKey(Tag::kEntries, first / rows::kEntriesPerChunk).bytes());
    const auto chunk = value ? rows::read_row<rows::EntryChunk>(*value) : std::nullopt;
    if (!chunk) continue;
    for (std::uint64_t i = 0; i < rows::kEntriesPerChunk && first + i < store.slot_count; ++i) {
      const rows::EntryRow& row = (*chunk)[i];
      if (row.tokenizer == 0) continue;
      const auto slot = static_cast<std::uint32_t>(first + i);
      live.push_back({std::max(stamps[slot], access.stamp(slot)), row.generation, slot, row.occupied});
    }
  }
  return live;
}

std::optional<Victim> VictimQueue::next(const lmdb::Environment& environment, const shm::AccessTable& access,
                                        std::uint64_t protected_from) {
  for (;;) {
    while (!queue_.empty()) {
      const Victim victim = queue_.back();
      queue_.pop_back();
      if (victim.stamp >= protected_from) break;
      if (access.stamp(victim.slot) <= victim.stamp) return victim;
    }
    if (nothing_before_ == protected_from) return std::nullopt;
    const lmdb::ReadTransaction transaction(environment);
    queue_ = live_entries(transaction, read_store_row(transaction), access);
    std::erase_if(queue_, [&](const Victim& victim) { return victim.stamp >= protected_from; });
    std::sort(queue_.begin(), queue_.end(),
              [](const Victim& a, const Victim& b) { return a.stamp > b.stamp; });
    if (queue_.empty()) nothing_before_ = protected_from;
  }
}

}  // namespace tokcask
