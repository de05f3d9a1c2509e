#include "cache/writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

#include <tokcask/error.h>

namespace tokcask {

using lmdb::Table;
using rows::MetaKey;
using rows::Tag;

namespace {

constexpr std::uint64_t kNever = std::numeric_limits<std::uint64_t>::max();
constexpr std::size_t kMostRemovedAtOnce = 4096;
constexpr std::size_t kMostEvictedFor = 1024;
constexpr unsigned kMostAttempts = 8;
constexpr std::uint64_t kWorthANudge = 64;  // puts, and pages
// Runs that may have begun since the newest in the store; an id further ahead is damage.
constexpr std::uint64_t kMostAhead = std::uint64_t{1} << 16;
// LMDB saves free pages in records of one page with this many numbers at most.
constexpr std::uint64_t kFreePerRecord = 500;

constexpr std::uint64_t minus(std::uint64_t a, std::uint64_t b) { return a > b ? a - b : 0; }

}  // namespace

// ---- Room and need ----

std::uint64_t Writer::Room::reserve() const { return std::clamp<std::uint64_t>(limit / 32, 24, 512); }

std::uint64_t Writer::Room::tree_pages(std::uint64_t changes, std::uint64_t node_bytes) const {
  // Each change copies a leaf or finds it copied already; a split leaves leaves at least half full.
  const std::uint64_t leaves = std::min(changes, records.leaf_pages) + 2 * node_bytes / page_bytes + 1;
  const std::uint64_t branches = std::min(records.branch_pages, leaves) + leaves / 16 + records.depth + 1;
  // A chunk of entries and one of stamps per change, or all of them.
  const std::uint64_t chunks = std::min(changes, slots / rows::kEntriesPerChunk + 1) +
                               std::min(changes, slots / rows::kStampsPerChunk + 1) +
                               changes / rows::kEntriesPerChunk + changes / rows::kStampsPerChunk + 2;
  const std::uint64_t meta_leaves = std::min(chunks, meta.leaf_pages) + chunks / 16 + 1;
  const std::uint64_t meta_branches = std::min(meta.branch_pages, meta_leaves) + meta.depth + 1;
  constexpr std::uint64_t kMainAndFreeList = 6;
  return leaves + branches + chunks + meta_leaves + meta_branches + kMainAndFreeList;
}

std::uint64_t Writer::Room::free_list_pages(std::uint64_t freed) const {
  return freed / kFreePerRecord + reusable / kFreePerRecord + 2;
}

void Writer::Need::add(const Item& item, const Room& room) {
  const std::size_t key = record::round_up(item.first.canonical().size(), 8);
  const std::size_t size = item.second.tokens.record_bytes();
  const std::uint64_t pages = lmdb::value_pages(key, size, room.page_bytes);
  ++count;
  value_pages += pages;
  node_bytes += 10 + key + (pages > 0 ? 8 : size);
}

std::uint64_t Writer::Need::pages(const Room& room) const {
  const std::uint64_t tree = room.tree_pages(count, node_bytes);
  return value_pages + tree + room.free_list_pages(tree);
}

Writer::Room Writer::measure(std::uint64_t max_bytes) const {
  Room room;
  room.page_bytes = environment_->page_bytes();
  room.limit = max_bytes / room.page_bytes;
  room.used = environment_->page_count();
  // Asked before this thread's own snapshot is one of them.
  const std::uint64_t oldest = environment_->oldest_reader().value_or(kNever);
  const lmdb::ReadTransaction snapshot(*environment_);
  room.records = snapshot.stat(Table::kRecords);
  room.meta = snapshot.stat(Table::kMeta);
  room.slots = read_store_row(snapshot).slot_count;
  for (const lmdb::FreedPages& freed : snapshot.free_list()) {
    if (freed.txnid >= oldest) {
      room.held += freed.count;
    } else {
      (freed.txnid < snapshot.id() ? room.reusable : room.recent) += freed.count;
    }
  }
  return room;
}

std::size_t Writer::fitting(const Room& room, const Items& items, std::size_t at, std::size_t most) {
  Need need;
  std::size_t count = 0;
  while (at + count < items.size() && count < most) {
    need.add(*items[at + count], room);
    if (need.pages(room) + room.reserve() > room.available()) break;
    ++count;
  }
  return count;
}

// Whether the file surely stays within its limit if this transaction is committed, whatever of its tree pages
// LMDB has yet to take.
bool Writer::may_commit(const Commit& commit, const Room& room, std::uint64_t changes,
                        std::uint64_t node_bytes) {
  const std::uint64_t end = std::max(commit.end_page(), room.used);
  if (end > std::max(room.limit, room.used)) return false;
  const std::uint64_t growth = minus(room.limit, end);
  const std::uint64_t reusable =
      commit.extended_for_one_page() ? 0 : minus(room.reusable, commit.reused_pages());
  const std::uint64_t tree = room.tree_pages(changes, node_bytes);
  return tree + room.free_list_pages(tree + commit.freed_pages()) <= growth + reusable;
}

// ---- What is committed beside entries ----

// Run figures, remembered files, access times. Prepared once per write(), applied to the transaction that has
// room.
class Writer::Extras {
 public:
  Extras(const Batch& batch, shm::AccessTable& access, std::uint64_t max_bytes, bool fold)
      : batch_(&batch), access_(&access), max_bytes_(max_bytes), fold_(fold) {
    // How many rows it takes has to be known before: those that have changed, and those that this batch may
    // change.
    for (const shm::RunTable::Entry& entry : access.runs().entries()) {
      if (entry.unsaved() || entry.own) runs_.push_back(entry.ref);
    }
  }

  [[nodiscard]] bool wanted() const {
    return !done_ && (!batch_->directories.empty() || !batch_->tokenizer_files.empty() ||
                      batch_->tokenizer_sha || fold_ || !unsaved_runs().empty());
  }
  // Rows it may write, in units of changed entries.
  [[nodiscard]] std::uint64_t changes(const Room& room) const {
    return batch_->directories.size() + batch_->tokenizer_files.size() + 2 * runs_.size() +
           (fold_ ? room.slots / rows::kStampsPerChunk + 1 : 0);
  }

  void apply(Commit& commit, bool with_files) {
    rows::StoreRow& store = commit.store();
    saved_.clear();
    for (const shm::RunTable::Entry& run : unsaved_runs()) save(commit, run);
    if (fold_) {
      access_->take_dirty(
          [&](std::uint64_t chunk, std::span<const std::uint64_t> stamps) { commit.fold(chunk, stamps); });
    }
    store.max_bytes = max_bytes_;
    store.clock_ns = access_->next_stamp();
    if (const auto& sha = batch_->tokenizer_sha) {
      std::fill(std::begin(store.tokenizer_sha), std::end(store.tokenizer_sha), '\0');
      sha->copy(store.tokenizer_sha, sizeof store.tokenizer_sha);
    }
    if (!with_files) return;
    for (const auto& [path, files] : batch_->directories) {
      commit.put_row(MetaKey::of_path(Tag::kDirectory, path), rows::encode_directory(path, files));
    }
    for (const auto& [path, file] : batch_->tokenizer_files) {
      commit.put_row(MetaKey::of_path(Tag::kTokenizerFile, path),
                     rows::encode_tokenizer_file(path, file.identity, file.sha));
    }
  }
  void committed() {
    for (const Saved& saved : saved_) {
      access_->runs().mark_saved(saved.run, saved.activity, saved.id, saved.bytes_after);
    }
    done_ = true;
  }

 private:
  struct Saved {
    shm::RunRef run;
    std::uint64_t activity;
    std::uint64_t id;
    std::uint64_t bytes_after;
  };

  [[nodiscard]] std::vector<shm::RunTable::Entry> unsaved_runs() const {
    std::vector<shm::RunTable::Entry> unsaved;
    for (const shm::RunRef& run : runs_) {
      auto entry = access_->runs().entry(run);
      if (entry && entry->unsaved()) unsaved.push_back(*std::move(entry));
    }
    return unsaved;
  }

  // The id of a run, or the next one if it cannot have it: the access table was lost, and another run has
  // been given the same.
  static std::uint64_t id_of(Commit& commit, const RunFigures& run) {
    rows::StoreRow& store = commit.store();
    if (run.run_id <= store.last_run_id + kMostAhead) {
      const auto stored = commit.row<rows::RunRow>(MetaKey(Tag::kRun, run.run_id));
      if (!stored || stored->started_ns == run.started_ns) return run.run_id;
    }
    return store.last_run_id + 1;
  }

  void save(Commit& commit, const shm::RunTable::Entry& entry) {
    rows::StoreRow& store = commit.store();
    const RunFigures& run = entry.figures;
    const std::uint64_t id = id_of(commit, run);
    saved_.push_back({entry.ref, entry.activity, id, store.total_bytes});
    const std::uint64_t before = store.last_run_id;
    store.last_run_id = std::max(before, id);
    for (std::uint64_t old = minus(before, rows::kRunsKept) + 1;
         old <= std::min(before, minus(store.last_run_id, rows::kRunsKept)); ++old) {
      commit.erase_row(MetaKey(Tag::kRun, old));
    }
    if (id + rows::kRunsKept <= store.last_run_id) return;  // older than those that are kept
    rows::RunRow row;
    row.run_id = id;
    row.started_ns = run.started_ns;
    row.ended_ns = run.ended_ns;
    row.hits = run.hits;
    row.misses = run.misses;
    row.puts = run.puts;
    row.declined = run.declined;
    row.evicted = run.evicted;
    row.tokenize_seconds = run.tokenize_seconds;
    row.bytes_after = store.total_bytes;
    row.derived = run.derived;
    row.last_active_ns = run.last_active_ns;
    row.sequence_len = run.sequence_len;
    row.flags = (run.state == RunState::kKilled ? rows::RunRow::kKilled : 0) |
                (run.several_tokenizers ? rows::RunRow::kSeveralTokenizers : 0);
    run.tokenizer_sha.copy(row.tokenizer_sha, sizeof row.tokenizer_sha);
    commit.put_row(MetaKey(Tag::kRun, id), rows::bytes_of(row));
  }

  const Batch* batch_;
  std::vector<shm::RunRef> runs_;
  shm::AccessTable* access_;
  std::uint64_t max_bytes_;
  bool fold_;
  bool done_ = false;
  std::vector<Saved> saved_;
};

// ---- Writing ----

Writer::Writer(const lmdb::Environment& environment, shm::AccessTable& access,
               const std::filesystem::path& root, Warn warn, Withhold withhold)
    : environment_(&environment),
      access_(&access),
      lock_(root / "write.lock"),
      warn_(std::move(warn)),
      withhold_(std::move(withhold)) {}

void Writer::write(const Batch& batch, const WriteLimits& limits, bool fold,
                   const std::function<void(const Keys&)>& on_done) {
  const WriteLock::Hold hold = lock_.acquire(limits.lock_timeout);
  environment_->clear_dead_readers();
  Items items;
  for (const Item& item : batch.puts) items.push_back(&item);
  const auto by_key = [](const Item* a, const Item* b) { return a->first < b->first; };
  if (batch.dated == 0) {
    std::sort(items.begin(), items.end(), by_key);
  } else {
    // The newest first, so that no room is given to one that must make room again. Each group is written in
    // key order all the same.
    std::sort(items.begin(), items.end(),
              [](const Item* a, const Item* b) { return a->second.stamp > b->second.stamp; });
  }
  const auto done = [&](std::size_t from, std::size_t count) {
    Keys keys;
    for (std::size_t i = from; i < from + count; ++i) keys.push_back(&items[i]->first);
    on_done(keys);
  };

  Extras extras(batch, *access_, limits.max_bytes, fold);
  Room room = measure(limits.max_bytes);
  if (items.size() >= kWorthANudge && room.recent > kWorthANudge && room.reusable < room.recent) {
    // Most of what is free was freed by the commit before this one. One small commit makes it reusable, so
    // that the file grows less: with batches of 4,000 puts from 1.61 of the payload to 1.56, with 1,000
    // to 1.54.
    nudge(room);
    room = measure(limits.max_bytes);
  }
  std::size_t most = items.size();
  unsigned attempt = 0;
  for (std::size_t at = 0; at < items.size();) {
    const std::size_t count = fitting(room, items, at, most);
    if (batch.dated > 0) {
      const auto first = items.begin() + static_cast<std::ptrdiff_t>(at);
      std::sort(first, first + static_cast<std::ptrdiff_t>(count), by_key);
    }
    const std::size_t written = count > 0 ? put_group(items, at, count, room, &extras) : 0;
    if (written == count && count > 0) {
      done(at, count);
      at += count;
    } else if (written > 0) {
      most = written;  // that many fit between the free pages that there are
      continue;
    } else if (attempt < kMostAttempts && make_room(items, at, attempt, room)) {
      ++attempt;
      room = measure(limits.max_bytes);
      continue;
    } else {
      decline(*items[at], room);
      done(at, 1);
      ++at;
    }
    room = measure(limits.max_bytes);
    most = items.size();
    attempt = 0;
  }

  for (const bool with_files : {true, false}) {
    if (!extras.wanted()) return;
    Commit commit(*environment_, names_);
    extras.apply(commit, with_files);
    commit.finish();
    if (!may_commit(commit, room, extras.changes(room), 0)) continue;
    commit.commit();
    extras.committed();
  }
}

// Writes `count` puts in one transaction and commits it; returns `count`. If the commit could pass the limit
// it is aborted, and the number of puts returned that were still within.
std::size_t Writer::put_group(const Items& items, std::size_t at, std::size_t count, const Room& room,
                              Extras* extras) {
  Commit commit(*environment_, names_);
  std::vector<std::pair<std::uint32_t, std::uint64_t>> stamps;
  Need need;
  for (std::size_t i = 0; i < count; ++i) {
    const Item& item = *items[at + i];
    need.add(item, room);
    stamps.emplace_back(commit.put(item.first, item.second), item.second.stamp);
    if (!may_commit(commit, room, need.count, need.node_bytes)) return i;
  }
  for (std::size_t i = 0; i < count; ++i) ++items[at + i]->second.run->puts;
  // With room to spare the rest goes along, and saves a commit.
  const std::uint64_t extra_changes = extras->changes(room);
  const bool with_extras =
      at + count == items.size() && extras->wanted() &&
      2 * (need.pages(room) + room.tree_pages(extra_changes, 0)) + room.reserve() < room.growth();
  if (with_extras) extras->apply(commit, true);
  commit.finish();
  if (!may_commit(commit, room, need.count + (with_extras ? extra_changes : 0), need.node_bytes)) {
    for (std::size_t i = 0; i < count; ++i) --items[at + i]->second.run->puts;
    return count - 1;
  }
  access_->grow(commit.store().slot_count);
  commit.commit();
  if (with_extras) extras->committed();
  for (const auto& [slot, stamp] : stamps) access_->assign(slot, stamp);
  return count;
}

// Makes pages reusable for the puts from `at` on: oldest last access first, no more than they need, and
// nothing that was used later than they were. Returns false when that is not possible now.
bool Writer::make_room(const Items& items, std::size_t at, unsigned attempt, const Room& room) {
  Need first;
  first.add(*items[at], room);
  if (first.pages(room) + room.reserve() > room.limit) return false;
  const std::uint64_t lacking = minus(first.pages(room) + room.reserve(), room.available());
  const std::uint64_t protected_from = access_->runs().oldest_start().value_or(kNever);
  std::vector<Victim> victims;
  for (std::uint64_t most = kMostEvictedFor;;) {
    const Group group = group_of(items, at, most, room);
    // When there are pages enough, but not side by side, it takes more than their number says.
    const std::uint64_t wanted = lacking == 0
                                     ? std::max<std::uint64_t>(first.value_pages, 1) << attempt
                                     : minus(group.need.pages(room) + room.reserve(), room.available());
    if (room.held >= wanted) return false;  // the pages are there; evicting more would not free them sooner
    if (room.recent >= wanted && attempt == 0) {
      nudge(room);
      nudge(room);
      return true;
    }
    victims = victims_.take(*environment_, *access_, {protected_from, group.oldest}, wanted);
    const std::uint64_t pages = std::accumulate(
        victims.begin(), victims.end(), std::uint64_t{0},
        [&](std::uint64_t sum, const Victim& victim) { return sum + victim.pages(room.page_bytes); });
    if (!victims.empty() && pages >= std::max<std::uint64_t>(lacking, 1)) break;
    victims_.put_back(victims);
    // A smaller group may be newer as a whole.
    if (group.need.count == 1 || group.oldest >= protected_from) return false;
    most = group.need.count / 2;
  }
  std::uint64_t removed = 0;
  remove(victims, room.limit * room.page_bytes, removed);
  items[at]->second.run->evicted += removed;
  nudge(measure(room.limit * room.page_bytes));
  return removed > 0;
}

// The puts from `at` on for which room is made at once.
Writer::Group Writer::group_of(const Items& items, std::size_t at, std::uint64_t most, const Room& room) {
  Group group;
  for (std::size_t i = at; i < items.size() && group.need.count < most; ++i) {
    if (i > at && group.need.value_pages > room.limit / 16) break;
    group.need.add(*items[i], room);
    group.oldest = std::min(group.oldest, items[i]->second.stamp);
  }
  return group;
}

void Writer::decline(const Item& item, const Room& room) {
  Run& run = *item.second.run;
  ++run.declined;
  if (!run.told_declined.exchange(true)) {
    warn_(fmt::format(
        "the budget of {} bytes is full of entries that were used {}, so {} and others "
        "are not stored; "
        "raise max_bytes to keep more",
        room.limit * room.page_bytes, item.second.dated ? "later" : "in this run", item.first.canonical()));
  }
  // What is stored under this key was to be replaced: it must not be served any more.
  Commit commit(*environment_, names_);
  const std::uint64_t generation = commit.erase(item.first);
  if (generation == 0) return;
  commit.finish();
  if (may_commit(commit, room, 1, 0)) {
    commit.commit();
  } else {
    withhold_(item.first, generation);
  }
}

void Writer::nudge(const Room& room) {
  Commit commit(*environment_, names_);
  commit.finish();
  if (may_commit(commit, room, 0, 0)) commit.commit();
}

// ---- Removing ----

bool Writer::remove(const std::vector<Victim>& victims, std::uint64_t max_bytes, std::uint64_t& removed) {
  std::size_t most = kMostRemovedAtOnce;
  for (std::size_t at = 0; at < victims.size();) {
    const Room room = measure(max_bytes);
    const std::size_t count = std::min(most, victims.size() - at);
    if (count > 1 && room.tree_pages(count, 0) + room.free_list_pages(0) > room.available()) {
      most = count / 2;
      continue;
    }
    Commit commit(*environment_, names_);
    std::uint64_t found = 0;
    for (std::size_t i = at; i < at + count; ++i) {
      if (commit.erase(victims[i].slot, victims[i].generation) > 0) ++found;
    }
    commit.finish();
    if (!may_commit(commit, room, count, 0)) {
      if (count == 1) return false;
      most = count / 2;
      continue;
    }
    if (found > 0) commit.commit();
    for (std::size_t i = at; i < at + count; ++i) access_->assign(victims[i].slot, 0);
    removed += found;
    at += count;
  }
  return true;
}

std::uint64_t Writer::remove_older(std::uint64_t before, const WriteLimits& limits) {
  const WriteLock::Hold hold = lock_.acquire(limits.lock_timeout);
  environment_->clear_dead_readers();
  std::vector<Victim> victims;
  {
    const lmdb::ReadTransaction snapshot(*environment_);
    victims = live_entries(snapshot, read_store_row(snapshot), *access_);
  }
  std::erase_if(victims, [&](const Victim& victim) { return victim.stamp >= before; });
  std::uint64_t removed = 0;
  if (!remove(victims, limits.max_bytes, removed)) {
    throw Error(Errc::kIo,
                fmt::format("removed {} of {} entries, then no page was left to go on with: the file has its "
                            "{} bytes and readers hold its free pages; close them or raise max_bytes",
                            removed, victims.size(), limits.max_bytes));
  }
  return removed;
}

std::uint64_t Writer::remove_all(const WriteLimits& limits) {
  const std::uint64_t removed = remove_older(kNever, limits);
  const WriteLock::Hold hold = lock_.acquire(limits.lock_timeout);
  remove_rest(limits.max_bytes);
  return removed;
}

// Records that no entry row knows, and remembered directories.
void Writer::remove_rest(std::uint64_t max_bytes) {
  constexpr std::size_t kAtOnce = 64;
  for (;;) {
    const Room room = measure(max_bytes);
    std::vector<std::pair<Table, std::vector<std::byte>>> keys;
    {
      const lmdb::ReadTransaction snapshot(*environment_);
      const lmdb::Cursor records(snapshot, Table::kRecords);
      for (auto entry = records.first(); entry && keys.size() < kAtOnce; entry = records.next()) {
        keys.emplace_back(Table::kRecords, std::vector(entry->key.begin(), entry->key.end()));
      }
      const lmdb::Cursor meta(snapshot, Table::kMeta);
      const auto tag = static_cast<std::byte>(Tag::kDirectory);
      for (auto entry = meta.seek({&tag, 1}); entry && entry->key[0] == tag && keys.size() < kAtOnce;
           entry = meta.next()) {
        keys.emplace_back(Table::kMeta, std::vector(entry->key.begin(), entry->key.end()));
      }
    }
    Commit commit(*environment_, names_);
    rows::StoreRow& store = commit.store();
    const bool wrong_totals = store.entry_count != 0 || store.total_bytes != 0 || store.payload_bytes != 0;
    if (keys.empty() && !wrong_totals) return;
    for (const auto& [table, key] : keys) commit.erase_raw(table, key);
    store.entry_count = store.total_bytes = store.payload_bytes = 0;
    commit.finish();
    if (!may_commit(commit, room, keys.size(), 0)) return;
    commit.commit();
  }
}

}  // namespace tokcask
