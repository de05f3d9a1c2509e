// The writer: turns batches into commits within the budget, and evicts and removes entries.
//
// The budget is a hard cap on data.mdb, which LMDB cannot keep by itself (its limit is the size of the map,
// which is reserved once). So the writer counts pages: those the file may still grow by, and those on LMDB's
// free list that the next transaction may reuse. It admits as many puts of a batch as should fit; while
// writing them it looks at the page numbers that LMDB gives, and aborts and takes fewer before a commit could
// pass the cap. When not even one put fits, it evicts; when nothing may be evicted, it declines the put. A
// put with a last access of its own evicts only what was last used before that. A put of the tokens that are
// stored already writes nothing.
//
// Pages freed by transaction N can be reused by transaction N+2, and not before every snapshot older than N
// is gone. Copy-on-write also needs pages to delete: a reserve is never given to puts.
//
// Some calls end with a new data file in place of the old one (see compact.h). The writer is of no use after
// that: all its calls throw Replaced.
//
// Threads: one at a time; the engine sees to it. Each public call takes the store's write lock for itself,
// and throws Error(kBusy) when it cannot have it in time.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tokcask/options.h>
#include <tokcask/stats.h>

#include "cache/commit.h"
#include "cache/compact.h"
#include "cache/history.h"
#include "cache/pending.h"
#include "cache/salvage.h"
#include "cache/store_files.h"
#include "cache/victims.h"
#include "cache/write_lock.h"
#include "lmdb/environment.h"
#include "shm/access_table.h"

namespace tokcask {

struct WriteLimits {
  // Nothing: what the store was last given.
  std::optional<std::uint64_t> max_bytes;
  std::chrono::milliseconds lock_timeout{0};
};

// The budget in force.
[[nodiscard]] inline std::uint64_t budget_of(const rows::StoreRow& store,
                                             std::optional<std::uint64_t> given) {
  // A store may remember more, of before that was refused.
  return std::min(given.value_or(store.max_bytes != 0 ? store.max_bytes : Options::kDefaultMaxBytes),
                  Options::kMaxMaxBytes);
}

// Thrown instead of writing when data.mdb is another file than the writer's, which nobody will look at any
// more. Nothing was changed: whoever catches it goes on with the engine of the new file. Never leaves Handle.
struct Replaced {};

class Writer {
 public:
  using Warn = std::function<void(std::string_view)>;
  using Keys = std::vector<const CacheKey*>;

  Writer(const lmdb::Environment& environment, shm::AccessTable& access, std::filesystem::path root,
         Warn warn);

  // Commits `batch`, the figures of all runs where they changed, and access times if `fold`. Each group of
  // puts that is done with, committed or declined, is told to `on_done`; after an Error or Replaced those
  // told are not to be tried again. May itself put a new file in place, and then throws Replaced: when an
  // entry has to go and no page is left to remove it with.
  void write(const Batch& batch, const WriteLimits& limits, bool fold,
             const std::function<void(const Keys&)>& on_done);

  // Removes at most kMostRemovedAtOnce of `victims`, from the front, and returns how many it took from there.
  // One that was replaced since it was chosen, or whose last access is no longer before `before`, stays. When
  // the file is full and readers hold its free pages, it is replaced by a new one without any of the victims.
  std::size_t remove(std::span<const Victim> victims, std::uint64_t before, const WriteLimits& limits,
                     PruneReport& report);
  static constexpr std::size_t kMostRemovedAtOnce = 4096;

  // ---- Calls that replace the file (writer_rewrite.cc) ----
  CompactReport compact(const WriteLimits& limits);
  // Removes every entry and every remembered directory; returns how many entries.
  std::uint64_t clear(const WriteLimits& limits);
  // Makes the file fit `max_bytes` with room to go on writing: by compaction, and as far as that does not do
  // by leaving out entries, those that no run protects first, oldest last access first. Unless `shrink` is
  // set: then it throws Error(kInvalidArgument) and changes nothing.
  struct Lowered {
    std::uint64_t bytes_before = 0;
    std::uint64_t bytes_after = 0;
    std::uint64_t removed = 0;
    bool fits = true;
  };
  Lowered lower(std::uint64_t max_bytes, bool shrink, const WriteLimits& limits);
  // Saves what is intact of a file whose pages or tables are damaged; see salvage.h.
  Recovery repair(const WriteLimits& limits);
  // The file that one of them made, once it is in place.
  [[nodiscard]] const std::optional<FileId>& new_file() const noexcept { return new_file_; }

 private:
  using Item = std::pair<const CacheKey, PendingPut>;
  // A put of the batch, and what it may make go: entries last used before this.
  struct Candidate {
    const Item* item;
    std::uint64_t older_than;
    bool is_new;
    [[nodiscard]] const CacheKey& key() const { return item->first; }
    [[nodiscard]] const PendingPut& put() const { return item->second; }
    [[nodiscard]] Run& run() const { return *item->second.run; }
    // Nothing goes that was used later than the put, unless it is to be plain LRU: then the oldest there is.
    [[nodiscard]] std::uint64_t bound() const {
      return run().options.protect_run ? std::min(older_than, put().stamp) : older_than;
    }
  };
  using Candidates = std::vector<Candidate>;
  // The order in which puts are tried: those first that may make the most go, so that no room is given to one
  // that must make room again.
  static bool comes_first(const Candidate& a, const Candidate& b) {
    return a.older_than != b.older_than ? a.older_than > b.older_than : a.key() < b.key();
  }
  static bool by_key(const Candidate& a, const Candidate& b) { return a.key() < b.key(); }

  // Pages, as the next transaction will find them.
  struct Room {
    std::uint64_t page_bytes = 0;
    std::uint64_t limit = 0;     // the budget, or what a full disk has room for
    std::uint64_t used = 0;      // length of the file
    std::uint64_t reusable = 0;  // on the free list, and free for the next transaction
    std::uint64_t recent = 0;    // on the free list; two commits from now reusable
    std::uint64_t held = 0;      // on the free list, but a reader's snapshot has them
    // Reusable pages that lie in pieces too small for a value of the size that was asked about.
    std::uint64_t scattered = 0;
    std::uint64_t slots = 0;
    lmdb::TableStat records;
    lmdb::TableStat meta;

    // LMDB saves the numbers of all pages that a transaction frees in one value, which has to lie side by
    // side. Two such cushions are kept at the end of the file: one to grow into, and one for when such a
    // value does not find the run that was kept for it.
    [[nodiscard]] std::uint64_t cushion() const { return std::min<std::uint64_t>(limit / 256, 256); }
    [[nodiscard]] std::uint64_t growth() const { return beyond(limit - cushion()); }
    [[nodiscard]] std::uint64_t limit_for_values() const { return limit - 2 * cushion(); }
    [[nodiscard]] std::uint64_t available() const { return beyond(limit_for_values()) + reusable; }
    [[nodiscard]] std::uint64_t beyond(std::uint64_t end) const { return end > used ? end - used : 0; }
    [[nodiscard]] std::uint64_t bytes() const { return limit * page_bytes; }
    // Scattered pages that a transaction with so many pages beside values leaves unused: LMDB takes the
    // lowest page for each, scattered or not.
    [[nodiscard]] std::uint64_t unused(std::uint64_t beside_values) const;
    // Never given to puts, so that entries can always be removed.
    [[nodiscard]] std::uint64_t reserve() const;
    // Pages beyond the end of the file that the disk shall have blocks for: the reserve and the cushions of a
    // budget as large as the file.
    [[nodiscard]] std::uint64_t lead() const;
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
    void add(const Item& item, std::uint64_t page_bytes);
    // Free pages that there have to be, of which some may lie scattered.
    [[nodiscard]] std::uint64_t free_pages(const Room& room) const;
    // With so many entries of so many pages removed in the same transaction.
    [[nodiscard]] std::uint64_t pages(const Room& room, std::uint64_t removed = 0,
                                      std::uint64_t freed = 0) const;
  };
  // Puts for which room is made at once.
  struct Group {
    Need need;
    std::uint64_t older_than = ~std::uint64_t{0};  // of all of them
  };
  class Extras;
  // What goes into a commit of puts beside them.
  struct Along {
    std::vector<Victim> victims;
    Extras* extras = nullptr;
  };
  struct Erased {
    PruneReport report;
    std::vector<std::uint32_t> slots;
  };

  // With values of `value_pages` in mind, if that is not 0.
  [[nodiscard]] Room measure(std::uint64_t max_bytes, std::uint64_t value_pages = 0) const;
  // Takes those out of `items` that have the tokens which are stored under their key. Their entries are as if
  // they were put now, and take no room.
  [[nodiscard]] Keys keep_same(Candidates& items) const;
  [[nodiscard]] static std::size_t fitting(const Room& room, const Candidates& items, std::size_t at,
                                           std::size_t most);
  [[nodiscard]] static bool may_commit(const Commit& commit, const Room& room, std::uint64_t changes,
                                       std::uint64_t node_bytes, bool finished = false);
  [[nodiscard]] static Need need_of(const Candidates& items, std::size_t at, std::size_t count,
                                    std::uint64_t page_bytes);
  [[nodiscard]] static std::uint64_t pages_of(std::span<const Victim> victims, const Room& room);
  [[nodiscard]] std::uint64_t longest_run() const;
  [[nodiscard]] std::unique_ptr<Commit> begin_commit(const Room& room, std::uint64_t freed);
  std::size_t put_with_more(const Candidates& items, std::size_t at, std::size_t count, const Room& room,
                            Extras& extras);
  std::size_t put_group(const Candidates& items, std::size_t at, std::size_t count, const Room& room,
                        const Along& along);
  std::vector<Victim> victims_ahead(const Candidates& items, std::size_t end, const Need& now,
                                    const Room& room);
  Erased erase(Commit& commit, std::span<const Victim> victims, std::uint64_t before,
               const Removal& why) const;
  [[nodiscard]] static Group group_of(const Candidates& items, std::size_t at, std::uint64_t most,
                                      const Room& room);
  [[nodiscard]] std::uint64_t ahead(const Room& room) const;
  bool wait_for_readers(const Need& need, const Room& room);
  std::size_t make_room(const Candidates& items, std::size_t at, unsigned attempt, const Room& room);
  [[nodiscard]] std::string why_declined(const Candidate& item, const Room& room) const;
  // Returns whether that took a commit.
  bool decline(const Candidate& item, const Room& room);
  // Removes what is stored under the key, if there is anything, and returns whether there was. By a new file
  // if no page is left for another way: then new_file() is there, and this writer is of no use any more.
  bool remove_stored(const CacheKey& key, const Room& room);
  // Lowers `older_than` of puts of keys that were here before, from `at` on, and brings those that may make
  // the most go to the front. See "who stays" in DESIGN.md.
  void weigh(Candidates& items, std::size_t at);

  // Removes entries in transactions that fit, as remove(), and adds to `report` those that were still there.
  // Returns how many it took from the front before no page was left to go on with.
  std::size_t remove_within(std::span<const Victim> victims, std::uint64_t before, std::uint64_t max_bytes,
                            const Removal& why, PruneReport& report);
  // With the write lock held: throws Replaced, or makes ready.
  void begin() const;
  [[nodiscard]] std::uint64_t budget(const WriteLimits& limits) const;
  void remove_by_rewriting(std::span<const Victim> victims, std::uint64_t before, rows::Fate fate,
                           PruneReport& report);
  // Puts a new file in place, and tells all who have the old one open.
  void install(files::NewFile& file, const Rewritten& made);
  // Whether the disk has blocks for the file's pages before `end`. When it has not, it is taken as full until
  // the next write() or remove(): measure() then counts no more pages than there are blocks for.
  bool disk_has(std::uint64_t end, std::uint64_t limit) const;
  // The same for what a transaction may take, and for the reserve beyond that.
  [[nodiscard]] bool disk_has(const Commit& commit, const Room& room, std::uint64_t changes,
                              std::uint64_t node_bytes) const;
  // A commit without content, so that pages freed by the one before can be reused by the one after.
  void nudge(const Room& room);

  const lmdb::Environment* environment_;
  shm::AccessTable* access_;
  const std::filesystem::path root_;
  std::optional<FileId> new_file_;
  WriteLock lock_;
  Warn warn_;
  TokenizerNames names_;
  VictimQueue victims_;
  History history_;
  // Of readers that hold pages: how far ahead to evict, whether the last write waited for them and the last
  // attempt to make room did in vain, until when this write may, and the snapshot of one that is not worth
  // waiting for.
  std::uint64_t ahead_ = 0;
  bool waited_ = false;
  bool waited_in_vain_ = false;
  std::chrono::steady_clock::time_point wait_until_{};
  std::optional<std::uint64_t> stuck_reader_;
  // Of a stream of batches that make entries go: when the last one did, and pages of values that the last two
  // put. And pages that this batch has made free.
  std::chrono::steady_clock::time_point evicted_at_{};
  std::array<std::uint64_t, 2> last_pages_{};
  std::uint64_t evicted_pages_ = 0;
  // Pages that are kept free beyond what is needed, because values that need some side by side did not find
  // them.
  std::uint64_t slack_ = 0;
  bool scattered_ = false;               // a group of puts failed by that
  std::vector<rows::HistoryRow> notes_;  // of declined puts, to be committed
  // Pages that have blocks on the disk, as far as is known, and whether it had no more.
  mutable std::uint64_t allocated_ = 0;
  mutable bool disk_full_ = false;
};

}  // namespace tokcask
