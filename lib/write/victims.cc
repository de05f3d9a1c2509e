#include "write/victims.h"

#include <algorithm>
#include <utility>

#include "tables/commit.h"

namespace tokcask {

using lmdb::Table;
using rows::MetaKey;
using rows::Tag;

std::uint64_t Stamps::of(std::uint32_t slot) {
  const std::uint64_t number = slot / rows::kStampsPerChunk;
  if (!stored_ || number != number_) read(number);
  const std::uint64_t stored = (*stored_)[slot % rows::kStampsPerChunk];
  const std::uint64_t shared = access_->stamp(slot);
  return std::max(stored > most_ ? 0 : stored, shared > most_ ? 0 : shared);
}

void Stamps::read(std::uint64_t number) {
  const auto value = transaction_->get(Table::kMeta, MetaKey(Tag::kAccess, number).bytes());
  stored_ = (value ? rows::read_row<rows::StampChunk>(*value) : std::nullopt).value_or(rows::StampChunk{});
  number_ = number;
}

std::vector<Victim> live_entries(const lmdb::ReadTransaction& transaction, const rows::StoreRow& store,
                                 const shm::AccessTable& access,
                                 const std::function<bool(const rows::EntryRow&)>& wanted) {
  std::vector<Victim> live;
  live.reserve(store.entry_count);
  Stamps stamps(transaction, access);
  for_each_entry(transaction, store, [&](std::uint32_t slot, const rows::EntryRow& row) {
    if (wanted && !wanted(row)) return;
    live.push_back({stamps.of(slot), row.generation, slot, row.occupied});
  });
  return live;
}

void VictimQueue::make(const lmdb::Environment& environment, const shm::AccessTable& access,
                       std::uint64_t protected_from) {
  made_at_ = std::max(os::now_ns(), access.newest_stamp());
  const lmdb::ReadTransaction transaction(environment);
  queue_ = live_entries(transaction, read_store_row(transaction), access);
  std::erase_if(queue_, [&](const Victim& victim) { return victim.stamp >= protected_from; });
  std::sort(queue_.begin(), queue_.end(), [](const Victim& a, const Victim& b) { return a.stamp > b.stamp; });
  // Where nothing is protected, the next put may go.
  if (queue_.empty() && protected_from != kNothingProtected) nothing_before_ = protected_from;
}

void VictimQueue::forget_if_dated(const lmdb::Environment& environment) {
  const std::uint64_t dated_puts = read_store_row(lmdb::ReadTransaction(environment)).dated_puts;
  if (std::exchange(dated_puts_, dated_puts) == dated_puts) return;
  queue_.clear();
  nothing_before_ = 0;
}

bool VictimQueue::take_from_queue(const shm::AccessTable& access, const Bounds& bounds,
                                  std::uint64_t page_bytes, std::uint64_t pages, std::vector<Victim>& taken) {
  std::uint64_t found = 0;
  while (!queue_.empty() && found < pages) {
    Victim victim = queue_.back();
    if (victim.stamp < bounds.protected_from && victim.stamp >= bounds.older_than) return true;
    queue_.pop_back();
    // Protected since the queue was made: it is in the next one.
    if (victim.stamp >= bounds.protected_from) continue;
    if (const std::uint64_t stamp = access.stamp(victim.slot); stamp > victim.stamp) {
      // Used since, or its slot has another entry: newer than all that the queue has. Unless its last access
      // was raised to one of before.
      victim.stamp = stamp;
      if (stamp < bounds.protected_from && stamp < made_at_) {
        const auto newer = [](const Victim& a, const Victim& b) { return a.stamp > b.stamp; };
        queue_.insert(std::lower_bound(queue_.begin(), queue_.end(), victim, newer), victim);
      }
      continue;
    }
    taken.push_back(victim);
    found += victim.pages(page_bytes);
  }
  return found >= pages;
}

std::vector<Victim> VictimQueue::take(const lmdb::Environment& environment, const shm::AccessTable& access,
                                      const Bounds& bounds, std::uint64_t pages) {
  forget_if_dated(environment);
  for (const bool fresh : {false, true}) {
    if (fresh) make(environment, access, bounds.protected_from);
    std::vector<Victim> taken;
    const bool all = take_from_queue(access, bounds, environment.page_bytes(), pages, taken);
    // A queue that ran out is made again, with what was taken from it in its place, unless that is known to
    // be vain.
    if (all || fresh || nothing_before_ == bounds.protected_from) return taken;
  }
  return {};
}

}  // namespace tokcask
