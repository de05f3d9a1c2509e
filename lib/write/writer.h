// The writer: turns batches into commits within the budget, and evicts and removes entries.
//
// The budget is a hard cap on data.mdb, which LMDB cannot keep by itself: its limit is the size of the map,
// which is reserved once. So a transaction is committed only if the file surely stays within the cap (see
// room.h), and aborted else, to be tried with less.
//
// Puts may fill the file to the high mark, about 98 % of the budget. A batch that would pass it first makes
// entries go, oldest last access first, down to the low mark, about 94 %, in commits of their own. What is
// above the high mark is kept for removing, because LMDB copies pages to delete. When nothing may be evicted,
// a put is declined. A put with a last access of its own evicts only what was last used before that. A put of
// the tokens that are stored already writes nothing.
//
// Pages freed by transaction N can be reused by transaction N+2, and not before every snapshot of N and older
// is gone. So a commit without content follows an eviction; and when it is readers that hold free pages, the
// writer does not evict more but waits for them, for half a second at most.
//
// Threads: one at a time; the engine sees to it. Each public call takes the store's write lock for itself,
// and throws Error(kBusy) when it cannot have it in time. It throws Error(kIo) when data.mdb is another file
// than the writer's.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <functional>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tokcask/options.h>
#include <tokcask/stats.h>

#include "files/rewrite.h"
#include "files/salvage.h"
#include "files/store_files.h"
#include "files/write_lock.h"
#include "lmdb/environment.h"
#include "shm/access_table.h"
#include "tables/commit.h"
#include "tables/history.h"
#include "write/bookkeeping.h"
#include "write/pending.h"
#include "write/room.h"
#include "write/victims.h"

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

class Writer {
 public:
  using Warn = std::function<void(std::string_view)>;
  using Keys = std::vector<const CacheKey*>;
  using OnDone = std::function<void(const Keys&)>;

  Writer(const lmdb::Environment& environment, shm::AccessTable& access, std::filesystem::path root,
         Warn warn);

  // Commits `batch`, the figures of all runs where they changed, and access times if `fold`. Each group of
  // puts that is done with, committed or declined, is told to `on_done`; after an Error those told are not to
  // be tried again. A put that fails while others of its batch succeed is declined.
  void write(const Batch& batch, const WriteLimits& limits, bool fold, const OnDone& on_done);

  // Removes at most kMostRemovedAtOnce of `victims`, from the front, and returns how many it took from there.
  // One that was replaced since it was chosen, or whose last access is no longer before `before`, stays.
  // Throws Error(kBusy) when readers hold the pages that removing takes, and do not let go of them in time.
  std::size_t remove(std::span<const Victim> victims, std::uint64_t before, const WriteLimits& limits,
                     PruneReport& report);
  static constexpr std::size_t kMostRemovedAtOnce = 4096;

  // Removes every entry, all that is remembered beside them, and the names of tokenizers, in commits; returns
  // how many entries there were. Throws as remove(); what was removed until then is gone.
  std::uint64_t clear(const WriteLimits& limits);

  // ---- Calls that put another file in place (writer_rewrite.cc) ----
  // The caller holds the store alone. The writer is of no use afterwards, and new_file() names the new file.
  CompactReport compact(const WriteLimits& limits);
  // Makes the file fit `max_bytes` with room to go on writing: by compaction, and as far as that does not do
  // by leaving out entries, oldest last access first. Unless `shrink` is set: then it throws
  // Error(kInvalidArgument) and changes nothing.
  struct Lowered {
    std::uint64_t bytes_before = 0;
    std::uint64_t bytes_after = 0;
    std::uint64_t removed = 0;
    bool fits = true;
  };
  Lowered lower(std::uint64_t max_bytes, bool shrink, const WriteLimits& limits);
  // Saves what is intact of a file whose pages or tables are damaged; see salvage.h.
  Recovery repair(const WriteLimits& limits);
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
    [[nodiscard]] Session& session() const { return *item->second.session; }
    // Nothing goes that was used later than the put, unless it is to be plain LRU: then the oldest there is.
    [[nodiscard]] std::uint64_t bound() const {
      return session().options.protect_run ? std::min(older_than, put().stamp) : older_than;
    }
  };
  using Candidates = std::vector<Candidate>;
  // The order in which puts are tried: those first that may make the most go, so that no room is given to one
  // that must make room again.
  static bool comes_first(const Candidate& a, const Candidate& b) {
    return a.older_than != b.older_than ? a.older_than > b.older_than : a.key() < b.key();
  }
  static bool by_key(const Candidate& a, const Candidate& b) { return a.key() < b.key(); }
  // A put that failed by itself, and how.
  struct Failure {
    const Candidate* item;
    std::exception_ptr error;
    std::string what;
  };
  // One call of write().
  struct Round {
    Candidates items;
    std::uint64_t max_bytes;
    Bookkeeping* books;
    std::vector<Failure> failures;
    bool weighed = false;
    bool committed_since = false;  // a failure
  };
  // What a transaction of puts came to. If it was not committed, `fit` puts are as many as may be.
  struct Written {
    std::size_t fit = 0;
    bool committed = false;
    bool measure_again = false;
  };

  [[nodiscard]] room::Space measure(std::uint64_t max_bytes);
  [[nodiscard]] std::uint64_t budget(const WriteLimits& limits) const;
  // With the write lock held: whether data.mdb is still this file, and who died while reading.
  void begin();
  void require_own_file() const;
  // Has the disk keep blocks for the file's pages before `end` and some beyond. When it has not, measure()
  // counts no more pages than there are blocks for, until the next public call.
  bool has_blocks(std::uint64_t end, const room::Space& space);

  // ---- Puts ----
  // Without those that have the tokens which are stored under their key: their entries are as if they were
  // put now, and take no room.
  Candidates candidates(const Batch& batch, const OnDone& on_done);
  [[nodiscard]] bool is_same(const lmdb::ReadTransaction& snapshot, const lmdb::Cursor& cursor,
                             Candidate& item);
  // Writes or declines puts from `at` on; returns how many, or 0 when the first of them failed.
  std::size_t put_next(Round& round, std::size_t at);
  Written put_group(Round& round, std::size_t at, std::size_t count, const room::Space& space);
  [[nodiscard]] room::Work work_of(const Candidate& item) const;
  [[nodiscard]] room::Work work_of(const Candidates& items, std::size_t at, std::size_t count) const;
  [[nodiscard]] std::size_t fitting(const room::Space& space, const Candidates& items, std::size_t at,
                                    std::size_t most) const;
  void weigh(Candidates& items, std::size_t at);
  void decline(const Candidate& item, std::uint64_t max_bytes);
  void free_slot(std::uint32_t slot);
  void remove_stored(const CacheKey& key, std::uint64_t max_bytes);
  static std::size_t note_failure(Round& round, std::size_t at, const char* what);
  [[nodiscard]] std::string why_declined(const Candidate& item, const room::Space& space) const;
  void settle_failures(Round& round, const OnDone& on_done);
  void write_rest(Bookkeeping& books, std::uint64_t max_bytes);

  // ---- Room ----
  // Makes pages reusable for puts from `at` on. Returns for how many at most, or 0 when it can do nothing.
  // `scattered`: how often enough pages were free, but not side by side.
  std::size_t make_room(const Round& round, std::size_t at, std::size_t count, unsigned scattered,
                        const room::Space& space);
  std::size_t evict(const Round& round, std::size_t at, std::uint64_t wanted, std::uint64_t least,
                    const room::Space& space);
  // Until `enough` or the readers hold little any more; false when readers have kept all puts of this public
  // call waiting for half a second.
  bool wait_for_readers(const room::Space& space, const std::function<bool(const room::Space&)>& enough);
  // A commit without content, so that pages freed by the one before can be reused by the one after.
  bool commit_nothing(const room::Space& space);

  // ---- Removing ----
  // Removes entries in transactions that fit and adds to `report` those that were still there. Returns how
  // many it took from the front before no page was left to go on with.
  std::size_t remove_within(std::span<const Victim> victims, std::uint64_t before, std::uint64_t max_bytes,
                            const Removal& why, PruneReport& report);
  // The same, waits for readers, and throws when they hold all there is.
  void remove_all(std::span<const Victim> victims, std::uint64_t before, std::uint64_t max_bytes,
                  const Removal& why, PruneReport& report);
  // Erases at most so many, and returns how many it dealt with.
  using Erase = std::function<std::size_t(Commit&, std::size_t)>;
  // Calls `erase` in transactions that fit, until it has dealt with `left` or with less than it was asked to;
  // calls `committed` after each commit. Returns false when no page is left to go on with.
  bool erase_within(std::uint64_t max_bytes, std::size_t left, const Erase& erase,
                    const std::function<void()>& committed);
  [[nodiscard]] Error held_error(const room::Space& space) const;

  void install(files::NewFile& file, const Rewritten& made, const WriteLock::Hold& hold);

  const lmdb::Environment* environment_;
  shm::AccessTable* access_;
  const std::filesystem::path root_;
  std::optional<FileId> new_file_;
  WriteLock lock_;
  Warn warn_;
  TokenizerNames names_;
  VictimQueue victims_;
  History history_;
  // For the next commit: of declined puts, and access times.
  std::vector<rows::HistoryRow> notes_;
  TakenStamps stamps_;
  // Of one public call: until when it may wait for readers, later after each commit of puts, and whether the
  // disk has no more blocks.
  std::chrono::steady_clock::time_point wait_until_{};
  bool disk_full_ = false;
  std::uint64_t allocated_ = 0;  // pages that have blocks on the disk, as far as is known
};

}  // namespace tokcask
