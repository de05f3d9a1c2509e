// Eviction order: which entries to give up, oldest last access first.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "lmdb/environment.h"
#include "os/clock.h"
#include "record/rows.h"
#include "shm/access_table.h"

namespace tokcask {

// Last accesses by slot: those in the store, or in shared memory where they are newer. One that is far ahead
// of the clock is none: such an entry would never be evicted. Cheap for slots in ascending order.
class Stamps {
 public:
  Stamps(const lmdb::ReadTransaction& transaction, const shm::AccessTable& access)
      : transaction_(&transaction),
        access_(&access),
        most_(std::max(os::now_ns(), access.newest_stamp()) + os::kMostAheadNs) {}
  [[nodiscard]] std::uint64_t of(std::uint32_t slot);

 private:
  void read(std::uint64_t number);

  const lmdb::ReadTransaction* transaction_;
  const shm::AccessTable* access_;
  const std::uint64_t most_;
  std::uint64_t number_ = 0;
  std::optional<rows::StampChunk> stored_;
};

struct Victim {
  std::uint64_t stamp = 0;
  std::uint64_t generation = 0;
  std::uint32_t slot = 0;
  std::uint32_t occupied = 0;

  // Pages that its removal frees; a part of a leaf counts as one.
  [[nodiscard]] std::uint64_t pages(std::uint64_t page_bytes) const {
    return std::max<std::uint64_t>(occupied / page_bytes, 1);
  }
};

// Every live entry that is `wanted`, by default all, with its last access: the newer of the stored time and
// the one in shared memory. In slot order.
[[nodiscard]] std::vector<Victim> live_entries(const lmdb::ReadTransaction& transaction,
                                               const rows::StoreRow& store, const shm::AccessTable& access,
                                               const std::function<bool(const rows::EntryRow&)>& wanted = {});

// A sorted list that is made when it is first needed and used up from the front. An entry that was used since
// is passed over; it comes back when the list is made again. So a million entries are sorted once per round
// of evictions, not once per eviction. Entries that were put with a last access of their own may belong into
// the middle: the store counts such puts, and another count makes the list anew. Used by the committing
// thread alone.
class VictimQueue {
 public:
  // Which entries may be taken: those last used before both.
  static constexpr std::uint64_t kNothingProtected = ~std::uint64_t{0};
  struct Bounds {
    std::uint64_t protected_from;  // the start of the oldest run that protects
    std::uint64_t older_than;      // the last access of what they make room for
  };
  // The oldest entries within the bounds that together occupy `pages` pages; fewer if there are no more. They
  // are no longer in the queue.
  std::vector<Victim> take(const lmdb::Environment& environment, const shm::AccessTable& access,
                           const Bounds& bounds, std::uint64_t pages);
  // Gives back what was taken and is still there.
  void put_back(const std::vector<Victim>& victims) {
    queue_.insert(queue_.end(), victims.rbegin(), victims.rend());
  }

 private:
  void make(const lmdb::Environment& environment, const shm::AccessTable& access,
            std::uint64_t protected_from);
  void forget_if_dated(const lmdb::Environment& environment);
  // The oldest within the bounds, as take(). True if that is all that the bounds allow.
  bool take_from_queue(const shm::AccessTable& access, const Bounds& bounds, std::uint64_t page_bytes,
                       std::uint64_t pages, std::vector<Victim>& taken);

  std::vector<Victim> queue_;  // newest first, so that the oldest is at the back
  // Made again in vain for this value: nothing becomes older than it by being used.
  std::uint64_t nothing_before_ = 0;
  std::uint64_t made_at_ = 0;     // a stamp
  std::uint64_t dated_puts_ = 0;  // of the store when the queue was made
};

}  // namespace tokcask
