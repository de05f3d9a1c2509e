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

void VictimQueue::make(const lmdb::Environment& environment, const shm::AccessTable& access,
                       std::uint64_t protected_from) {
  const lmdb::ReadTransaction transaction(environment);
  queue_ = live_entries(transaction, read_store_row(transaction), access);
  std::erase_if(queue_, [&](const Victim& victim) { return victim.stamp >= protected_from; });
  std::sort(queue_.begin(), queue_.end(), [](const Victim& a, const Victim& b) { return a.stamp > b.stamp; });
  if (queue_.empty()) nothing_before_ = protected_from;
}

std::vector<Victim> VictimQueue::take(const lmdb::Environment& environment, const shm::AccessTable& access,
                                      std::uint64_t protected_from, std::uint64_t pages) {
  for (const bool fresh : {false, true}) {
    if (fresh) make(environment, access, protected_from);
    std::vector<Victim> taken;
    std::uint64_t found = 0;
    while (!queue_.empty() && found < pages) {
      const Victim victim = queue_.back();
      queue_.pop_back();
      // Used since the queue was made, or protected since: it is in the next one, at its new place.
      if (victim.stamp >= protected_from || access.stamp(victim.slot) > victim.stamp) continue;
      taken.push_back(victim);
      found += victim.pages(environment.page_bytes());
    }
    // A queue that ran out is made again, with what was taken from it in its place, unless that is known to
    // be vain.
    if (found >= pages || fresh || nothing_before_ == protected_from) return taken;
  }
  return {};
}

}  // namespace tokcask
