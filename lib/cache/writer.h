// The writer: turns batches into commits within the budget, and evicts and removes entries.
//
// The budget is a hard cap on data.mdb, which LMDB cannot keep by itself (its limit is the size of the map,
// which is reserved once). So the writer counts pages: those the file may still grow by, and those on LMDB's
// free list that the next transaction may reuse. It admits as many puts of a batch as should fit; while
// writing them it looks at the page numbers that LMDB gives, and aborts and takes fewer before a commit could
// pass the cap. When not even one put fits, it evicts; when nothing may be evicted, it declines the put. A
// put with a last access of its own evicts only what was last used before that.
//
// Pages freed by transaction N can be reused by transaction N+2, and not before every snapshot older than N
// is gone. Copy-on-write also needs pages to delete: a reserve is never given to puts.
//
// Threads: one at a time; the engine sees to it. Each public call takes the store's write lock for itself.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "cache/commit.h"
#include "cache/pending.h"
#include "cache/victims.h"
#include "cache/write_lock.h"
#include "lmdb/environment.h"
#include "shm/access_table.h"

namespace tokcask {

struct WriteLimits {
  std::uint64_t max_bytes = 0;
  std::chrono::milliseconds lock_timeout{0};
};

class Writer {
 public:
  using Warn = std::function<void(std::string_view)>;
  // Is told of a record that must not be served any more, and that no page was left to remove.
  using Withhold = std::function<void(const CacheKey& key, std::uint64_t generation)>;
  using Keys = std::vector<const CacheKey*>;

  Writer(const lmdb::Environment& environment, shm::AccessTable& access, const std::filesystem::path& root,
         Warn warn, Withhold withhold);

  // Commits `batch`, the figures of all runs where they changed, and access times if `fold`. Each group of
  // puts that is done with, committed or declined, is told to `on_done`; after an Error those told are not to
  // be tried again.
  void write(const Batch& batch, const WriteLimits& limits, bool fold,
             const std::function<void(const Keys&)>& on_done);

  // Removes all entries whose last access is before `before`, protected or not; returns how many.
  std::uint64_t remove_older(std::uint64_t before, const WriteLimits& limits);
  // Removes every entry and every remembered file; returns how many entries.
  std::uint64_t remove_all(const WriteLimits& limits);

 private:
  using Item = std::pair<const CacheKey, PendingPut>;
  using Items = std::vector<const Item*>;

  // Pages, as the next transaction will find them.
  struct Room {
    std::uint64_t page_bytes = 0;
    std::uint64_t limit = 0;     // the budget
    std::uint64_t used = 0;      // length of the file
    std::uint64_t reusable = 0;  // on the free list, and free for the next transaction
    std::uint64_t recent = 0;    // on the free list; two commits from now reusable
    std::uint64_t held = 0;      // on the free list, but a reader's snapshot has them
    std::uint64_t slots = 0;
    lmdb::TableStat records;
    lmdb::TableStat meta;

    [[nodiscard]] std::uint64_t growth() const { return limit > used ? limit - used : 0; }
    [[nodiscard]] std::uint64_t available() const { return growth() + reusable; }
    // Never given to puts, so that entries can always be removed.
    [[nodiscard]] std::uint64_t reserve() const;
    // Upper bounds of the pages that a transaction copies or makes which changes `changes` entries and adds
    // `node_bytes` to leaves, and of those that saving the free list then takes.
    [[nodiscard]] std::uint64_t tree_pages(std::uint64_t changes, std::uint64_t node_bytes) const;
    [[nodiscard]] std::uint64_t free_list_pages(std::uint64_t freed) const;
  };
  // What a group of puts takes.
  struct Need {
    std::uint64_t count = 0;
    std::uint64_t value_pages = 0;
    std::uint64_t node_bytes = 0;
    void add(const Item& item, const Room& room);
    [[nodiscard]] std::uint64_t pages(const Room& room) const;
  };
  // Puts for which room is made at once.
  struct Group {
    Need need;
    std::uint64_t oldest = ~std::uint64_t{0};  // of their last accesses
  };
  class Extras;

  [[nodiscard]] Room measure(std::uint64_t max_bytes) const;
  [[nodiscard]] static std::size_t fitting(const Room& room, const Items& items, std::size_t at,
                                           std::size_t most);
  [[nodiscard]] static bool may_commit(const Commit& commit, const Room& room, std::uint64_t changes,
                                       std::uint64_t node_bytes);
  std::size_t put_group(const Items& items, std::size_t at, std::size_t count, const Room& room,
                        Extras* extras);
  [[nodiscard]] static Group group_of(const Items& items, std::size_t at, std::uint64_t most,
                                      const Room& room);
  bool make_room(const Items& items, std::size_t at, unsigned attempt, const Room& room);
  void decline(const Item& item, const Room& room);

  // Removes entries in transactions that fit, and adds to `removed` how many were still there. Returns false
  // when not even one could be removed any more.
  bool remove(const std::vector<Victim>& victims, std::uint64_t max_bytes, std::uint64_t& removed);
  void remove_rest(std::uint64_t max_bytes);
  // A commit without content, so that pages freed by the one before can be reused by the one after.
  void nudge(const Room& room);

  const lmdb::Environment* environment_;
  shm::AccessTable* access_;
  WriteLock lock_;
  Warn warn_;
  Withhold withhold_;
  TokenizerNames names_;
  VictimQueue victims_;
};

}  // namespace tokcask
