#include "cache/writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <thread>
#include <utility>

#include <tokcask/error.h>

namespace tokcask {

using lmdb::Table;
using rows::MetaKey;
using rows::Tag;

namespace {

constexpr std::uint64_t kNever = std::numeric_limits<std::uint64_t>::max();
constexpr std::size_t kMostEvictedFor = 4096;
constexpr unsigned kMostAttempts = 8;
constexpr std::chrono::milliseconds kMostWaited{500};  // for readers
// Batches of so many pages that make entries go and begin no longer than this after the one before are a
// stream.
constexpr std::chrono::seconds kStream{2};
constexpr std::uint64_t kStreamPages = 1024;
constexpr std::uint64_t kWorthANudge = 64;  // puts, and pages
// Runs that may have begun since the newest in the store; an id further ahead is damage.
constexpr std::uint64_t kMostAhead = std::uint64_t{1} << 16;
// Pages of the main database and of the free list's tree that a commit may copy.
constexpr std::uint64_t kMainAndFreeList = 6;
// LMDB saves free pages in records of one page with this many numbers at most.
constexpr std::uint64_t kFreePerRecord = 500;
// Single pages that LMDB may take out of a run that was given back before it saves the free list.
constexpr std::uint64_t kBesideRun = kMainAndFreeList + 4;

// When the runs began that are recorded, in order.
std::vector<std::uint64_t> run_starts(const lmdb::ReadTransaction& transaction) {
  std::vector<std::uint64_t> starts;
  for (const rows::RunRow& run : read_runs(transaction)) {
    if (run.started_ns > 0) starts.push_back(static_cast<std::uint64_t>(run.started_ns));
  }
  std::sort(starts.begin(), starts.end());
  return starts;
}

constexpr std::uint64_t minus(std::uint64_t a, std::uint64_t b) { return a > b ? a - b : 0; }

// Calls `take` with the length of each run of page numbers that follow each other.
template <typename Take>
void for_each_run(std::vector<std::uint64_t> pages, const Take& take) {
  std::sort(pages.begin(), pages.end());
  std::size_t first = 0;
  for (std::size_t i = 1; i <= pages.size(); ++i) {
    if (i < pages.size() && pages[i] == pages[i - 1] + 1) continue;
    take(i - first);
    first = i;
  }
}

}  // namespace

// ---- Room and need ----

std::uint64_t Writer::Room::lead() const { return std::clamp<std::uint64_t>(used / 24, 32, 1024); }

std::uint64_t Writer::Room::reserve() const {
  const std::uint64_t one = tree_pages(1, 0);
  return std::clamp<std::uint64_t>(std::max(limit / 32, one + free_list_pages(one)), 24, 512);
}

std::uint64_t Writer::Room::tree_pages(std::uint64_t changes, std::uint64_t node_bytes) const {
  // Each change copies a leaf or finds it copied already; a split leaves leaves at least half full.
  const std::uint64_t leaves = std::min(changes, records.leaf_pages) + 2 * node_bytes / page_bytes + 1;
  const std::uint64_t branches = std::min(records.branch_pages, leaves) + leaves / 16 + records.depth + 1;
  // A chunk of entries and one of stamps per change, or all of them.
  const std::uint64_t chunks = std::min(changes, slots / rows::kEntriesPerChunk + 1) +
                               std::min(changes, slots / rows::kStampsPerChunk + 1) +
                               changes / rows::kEntriesPerChunk + changes / rows::kStampsPerChunk + 2;
  // A leaf for each, and for the row of the section id that each change may write or erase.
  const std::uint64_t meta_leaves = std::min(chunks + changes, meta.leaf_pages) + chunks / 16 + 1;
  const std::uint64_t meta_branches = std::min(meta.branch_pages, meta_leaves) + meta.depth + 1;
  return leaves + branches + chunks + meta_leaves + meta_branches + kMainAndFreeList;
}

std::uint64_t Writer::Room::free_list_pages(std::uint64_t freed) const {
  return freed / kFreePerRecord + reusable / kFreePerRecord + 2;
}

std::uint64_t Writer::Room::unused(std::uint64_t beside_values) const {
  return reusable == 0 ? 0 : scattered * minus(reusable, beside_values) / reusable;
}

void Writer::Need::add(const Item& item, std::uint64_t page_bytes) {
  const std::size_t key = record::round_up(item.first.canonical().size(), 8);
  const std::size_t size = item.second.tokens.record_bytes();
  const std::uint64_t pages = lmdb::value_pages(key, size, page_bytes);
  ++count;
  value_pages += pages;
  node_bytes += 10 + key + (pages > 0 ? 8 : size);
  const std::string_view section = item.first.section_id();
  if (!rows::pack_section(section)) node_bytes += 10 + 8 + record::round_up(section.size(), 8);
}

std::uint64_t Writer::Need::pages(const Room& room, std::uint64_t removed, std::uint64_t freed) const {
  const std::uint64_t tree = room.tree_pages(count + removed, node_bytes);
  return value_pages + tree + room.free_list_pages(tree + freed);
}

std::uint64_t Writer::Need::free_pages(const Room& room) const {
  const std::uint64_t all = pages(room);
  return all + room.unused(all - value_pages);
}

Writer::Room Writer::measure(std::uint64_t max_bytes, std::uint64_t value_pages) const {
  Room room;
  room.page_bytes = environment_->page_bytes();
  room.limit = max_bytes / room.page_bytes;
  room.used = environment_->page_count();
  // So that entries can always be removed, also when others fill the disk.
  if (!disk_full_) disk_has(room.used + room.lead(), room.limit);
  if (disk_full_) room.limit = std::min(room.limit, std::max(allocated_, room.used));
  // Asked before this thread's own snapshot is one of them.
  const std::uint64_t oldest = environment_->oldest_reader().value_or(kNever);
  const lmdb::ReadTransaction snapshot(*environment_);
  room.records = snapshot.stat(Table::kRecords);
  room.meta = snapshot.stat(Table::kMeta);
  room.slots = read_store_row(snapshot).slot_count;
  std::vector<std::uint64_t> pages;
  for (const lmdb::FreedPages& freed : snapshot.free_list()) {
    if (freed.txnid >= oldest) {
      room.held += freed.count;
    } else if (freed.txnid >= snapshot.id()) {
      room.recent += freed.count;
    } else {
      room.reusable += freed.count;
      if (value_pages > 1) pages.insert(pages.end(), freed.pages.begin(), freed.pages.end());
    }
  }
  for_each_run(std::move(pages), [&](std::uint64_t run) { room.scattered += run % value_pages; });
  return room;
}

bool Writer::disk_has(std::uint64_t end, std::uint64_t limit) const {
  const std::uint64_t page_bytes = environment_->page_bytes();
  const auto get = [&](std::uint64_t until) {
    if (!environment_->allocate(allocated_ * page_bytes, (until - allocated_) * page_bytes)) return false;
    allocated_ = until;
    return true;
  };
  allocated_ = std::max(allocated_, environment_->page_count());
  end = std::min(end, limit);
  if (end <= allocated_) return true;
  if (disk_full_) return false;
  // Some more at once, where there is room.
  const std::uint64_t more = std::clamp<std::uint64_t>(end / 64, 1, 256);
  if (get(std::min(end + more, limit)) || get(end)) return true;
  for (std::uint64_t size = (end - allocated_) / 2; size > 0; size /= 2) get(allocated_ + size);
  disk_full_ = true;
  return false;
}

bool Writer::disk_has(const Commit& commit, const Room& room, std::uint64_t changes,
                      std::uint64_t node_bytes) const {
  const std::uint64_t tree = room.tree_pages(changes, node_bytes);
  const std::uint64_t pages = tree + room.free_list_pages(tree + commit.freed_pages());
  const std::uint64_t reusable =
      commit.extended_for_one_page() ? 0 : minus(room.reusable, commit.reused_pages());
  const std::uint64_t end = std::max(commit.end_page(), room.used) + minus(pages, reusable);
  return disk_has(end + room.lead(), room.limit);
}

Writer::Need Writer::need_of(const Candidates& items, std::size_t at, std::size_t count,
                             std::uint64_t page_bytes) {
  Need need;
  for (std::size_t i = at; i < at + count; ++i) need.add(*items[i].item, page_bytes);
  return need;
}

std::uint64_t Writer::pages_of(std::span<const Victim> victims, const Room& room) {
  std::uint64_t pages = 0;
  for (const Victim& victim : victims) pages += victim.pages(room.page_bytes);
  return pages;
}

// Pages that the next transaction may reuse and that lie side by side, at most.
std::uint64_t Writer::longest_run() const {
  const std::uint64_t oldest = environment_->oldest_reader().value_or(kNever);
  const lmdb::ReadTransaction snapshot(*environment_);
  std::vector<std::uint64_t> pages;
  for (const lmdb::FreedPages& freed : snapshot.free_list()) {
    if (freed.txnid < oldest && freed.txnid < snapshot.id())
      pages.insert(pages.end(), freed.pages.begin(), freed.pages.end());
  }
  std::uint64_t longest = 0;
  for_each_run(std::move(pages), [&](std::uint64_t run) { longest = std::max(longest, run); });
  return longest;
}

// A transaction that may free so many pages. The longest run of free pages is kept for their numbers if it
// has room for them: much of it, so that nothing else breaks it up.
std::unique_ptr<Commit> Writer::begin_commit(const Room& room, std::uint64_t freed) {
  const std::uint64_t side_by_side = freed / kFreePerRecord + 1;
  const std::uint64_t run = side_by_side > 1 ? longest_run() : 0;
  auto commit = std::make_unique<Commit>(*environment_, names_);
  const std::uint64_t least = side_by_side + kBesideRun;
  if (run < least || commit->keep_run(std::min(run, std::max(least, room.cushion())))) return commit;
  commit.reset();  // before the next one begins
  return std::make_unique<Commit>(*environment_, names_);
}

std::size_t Writer::fitting(const Room& room, const Candidates& items, std::size_t at, std::size_t most) {
  Need need;
  std::size_t count = 0;
  while (at + count < items.size() && count < most) {
    need.add(*items[at + count].item, room.page_bytes);
    if (need.free_pages(room) + room.reserve() > room.available()) break;
    ++count;
  }
  return count;
}

// Whether the file surely stays within its limit if this transaction is committed, whatever of its tree pages
// LMDB has yet to take.
//
// When all has been written (`finished`) the pages of the trees are taken. Where the last of them came from
// then tells where the file ends: while there was a free page, none extended it. Unless free pages came to be
// meanwhile, by an erasure or from a reader that let go.
bool Writer::may_commit(const Commit& commit, const Room& room, std::uint64_t changes,
                        std::uint64_t node_bytes, bool finished) {
  const std::uint64_t end = std::max(commit.end_page(), room.used);
  if (end > std::max(room.limit_for_values(), room.used)) return false;
  const std::uint64_t growth = minus(room.limit - room.cushion(), end);
  const std::uint64_t tree = room.tree_pages(changes, node_bytes);
  const std::uint64_t side_by_side = (tree + commit.freed_pages()) / kFreePerRecord + 1;
  const std::uint64_t reusable =
      commit.extended_for_one_page()
          ? 0
          : minus(room.reusable, commit.reused_pages() + minus(commit.kept_run(), side_by_side));
  const std::uint64_t free_list = room.free_list_pages(tree + commit.freed_pages());
  const std::uint64_t pages = tree + free_list;
  const bool end_is_known = finished && room.held == 0 && !commit.erased();
  const bool within = end_is_known && kMainAndFreeList + free_list <= growth;
  if (!within && pages > growth + reusable) return false;
  // The numbers of the freed pages have to lie side by side: at the end of the file, or in pages that are
  // kept.
  if (side_by_side == 1 || side_by_side <= growth) return true;
  return side_by_side + kBesideRun <= commit.kept_run() && end + side_by_side <= room.limit;
}

// ---- What is committed beside entries ----

// Run figures, remembered files, access times. Prepared once per write(), applied to the transaction that has
// room.
class Writer::Extras {
 public:
  Extras(const Batch& batch, std::vector<rows::HistoryRow>& notes, shm::AccessTable& access,
         std::uint64_t max_bytes, bool fold)
      : batch_(&batch), notes_(&notes), access_(&access), max_bytes_(max_bytes), fold_(fold) {
    // How many rows it takes has to be known before: those that have changed, and those that this batch may
    // change.
    for (const shm::RunTable::Entry& entry : access.runs().entries()) {
      if (entry.unsaved() || entry.own) runs_.push_back(entry.ref);
    }
  }

  [[nodiscard]] bool done() const { return done_; }
  [[nodiscard]] bool wanted() const {
    return !done_ &&
           (!batch_->directories.empty() || !batch_->tokenizer_files.empty() || !batch_->traits.empty() ||
            !notes_->empty() || batch_->tokenizer_sha || fold_ || !unsaved_runs().empty());
  }
  // Rows it may write, in units of changed entries.
  [[nodiscard]] std::uint64_t changes(const Room& room) const {
    return batch_->directories.size() + batch_->tokenizer_files.size() + batch_->traits.size() +
           2 * runs_.size() + notes_->size() / rows::kHistoryPerChunk +
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
    for (const auto& [sha, traits] : batch_->traits) {
      commit.put_row(MetaKey::of_path(Tag::kTraits, sha), rows::encode_traits(sha, traits));
    }
    for (const rows::HistoryRow& note : *notes_) commit.note(note, history_ring(max_bytes_));
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
    notes_->clear();
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
  std::vector<rows::HistoryRow>* notes_;
  std::vector<shm::RunRef> runs_;
  shm::AccessTable* access_;
  std::uint64_t max_bytes_;
  bool fold_;
  bool done_ = false;
  std::vector<Saved> saved_;
};

// ---- Writing ----

Writer::Writer(const lmdb::Environment& environment, shm::AccessTable& access, std::filesystem::path root,
               Warn warn)
    : environment_(&environment),
      access_(&access),
      root_(std::move(root)),
      lock_(root_ / "write.lock"),
      warn_(std::move(warn)) {
  // The process that put data.mdb there may have been killed before its name was durable.
  files::sync_directory(root_);
}

void Writer::begin() const {
  // A store that was removed is written to as before, for those who still have it open.
  if (const auto current = files::id_of(root_ / "data.mdb"); current && *current != environment_->file_id())
    throw Replaced{};
  environment_->clear_dead_readers();
}

std::uint64_t Writer::budget(const WriteLimits& limits) const {
  return budget_of(read_store_row(lmdb::ReadTransaction(*environment_)), limits.max_bytes);
}

void Writer::write(const Batch& batch, const WriteLimits& limits, bool fold,
                   const std::function<void(const Keys&)>& on_done) {
  const WriteLock::Hold hold = lock_.acquire(limits.lock_timeout);
  begin();
  const std::uint64_t max_bytes = budget(limits);
  Candidates items;
  for (const Item& item : batch.puts)
    items.push_back({&item, item.second.dated ? item.second.stamp : kNever, true});
  if (const Keys kept = keep_same(items); !kept.empty()) on_done(kept);
  std::sort(items.begin(), items.end(), comes_first);
  const auto done = [&](std::size_t from, std::size_t count) {
    Keys keys;
    for (std::size_t i = from; i < from + count; ++i) keys.push_back(&items[i].key());
    on_done(keys);
  };

  const auto now = std::chrono::steady_clock::now();
  const bool streams = now - evicted_at_ <= kStream;
  if (!streams) last_pages_ = {};
  evicted_pages_ = 0;
  wait_until_ = now + kMostWaited;
  if (!std::exchange(waited_, false)) ahead_ -= ahead_ / 64;
  slack_ -= slack_ / 64;
  Extras extras(batch, notes_, *access_, max_bytes, fold);
  disk_full_ = false;
  // Of a large batch; where a few values are put, it is cheaper to try.
  const Need all = need_of(items, 0, items.size(), environment_->page_bytes());
  const std::uint64_t typical =
      all.value_pages >= kStreamPages ? (all.value_pages + items.size() - 1) / items.size() : 0;
  Room room = measure(max_bytes, typical);
  if (items.size() >= kWorthANudge && room.recent > kWorthANudge && room.reusable < room.recent &&
      room.beyond(room.limit_for_values()) > 0) {
    // Most of what is free was freed by the commit before this one. One small commit makes it reusable, so
    // that the file grows less: with batches of 4,000 puts from 1.61 of the payload to 1.56, with 1,000
    // to 1.54.
    nudge(room);
    room = measure(max_bytes, typical);
  }
  std::size_t most = items.size();
  unsigned attempt = 0;
  // Where room is made ahead, those that may not make any go must not take it either.
  bool weighed = last_pages_[0] > 0;
  if (weighed) weigh(items, 0);
  bool room_made = false;  // or tried to
  const auto makes_room = [&](std::size_t at) {
    const std::size_t made = make_room(items, at, attempt, room);
    if (made == 0) return false;
    ++attempt;
    most = made;
    room = measure(max_bytes, typical);
    return true;
  };
  for (std::size_t at = 0; at < items.size();) {
    const std::size_t count = fitting(room, items, at, most);
    if (count < std::min(most, items.size() - at) && !room_made) {
      // Before what is left is given away: a few puts at a time would take a commit each.
      if (!std::exchange(weighed, true)) {
        weigh(items, at);
        continue;
      }
      room_made = true;
      if (makes_room(at)) continue;
    }
    const auto first = items.begin() + static_cast<std::ptrdiff_t>(at);
    std::sort(first, first + static_cast<std::ptrdiff_t>(count), by_key);
    const bool was_full = disk_full_;
    const std::size_t written = count > 0 ? put_with_more(items, at, count, room, extras) : 0;
    if (disk_full_ != was_full) {
      room = measure(max_bytes, typical);
      continue;
    }
    if (written < count && std::exchange(scattered_, false)) {
      // Enough pages are free, but not side by side.
      const std::uint64_t rest = need_of(items, at + written, count - written, room.page_bytes).value_pages;
      slack_ = std::min(slack_ + rest, room.limit / 16);
    }
    bool changed = true;  // what room says
    if (written == count && count > 0) {
      done(at, count);
      at += count;
    } else if (written > 0) {
      most = written;  // that many fit between the free pages that there are
      room_made = true;
      continue;
    } else if (attempt < kMostAttempts && makes_room(at)) {
      continue;
    } else {
      changed = decline(items[at], room);
      done(at, 1);
      ++at;
    }
    if (changed) room = measure(max_bytes, typical);
    most = items.size();
    attempt = 0;
    room_made = false;
  }

  if (evicted_pages_ > 0) evicted_at_ = std::chrono::steady_clock::now();
  if (!items.empty() && streams) {
    // Where some may not make others go, see weigh(), the next batch may not either.
    const bool all_may = std::all_of(items.begin(), items.end(),
                                     [](const Candidate& item) { return item.older_than == kNever; });
    last_pages_ = {all_may && all.value_pages >= kStreamPages ? all.value_pages : 0, last_pages_[0]};
  }
  for (const bool with_files : {true, false}) {
    if (!extras.wanted()) return;
    Commit commit(*environment_, names_);
    extras.apply(commit, with_files);
    commit.finish();
    if (!may_commit(commit, room, extras.changes(room), 0)) continue;
    if (!disk_has(commit, room, extras.changes(room), 0)) {
      room = measure(max_bytes, typical);
      if (!may_commit(commit, room, extras.changes(room), 0)) continue;
    }
    commit.commit();
    extras.committed();
  }
}

// Two processes that both missed put the same, and the second must neither take room nor lose the entry.
Writer::Keys Writer::keep_same(Candidates& items) const {
  Keys kept;
  const lmdb::ReadTransaction snapshot(*environment_);
  if (items.empty() || snapshot.stat(Table::kRecords).entries == 0) return kept;
  const lmdb::Cursor cursor(snapshot, Table::kRecords);
  std::sort(items.begin(), items.end(), by_key);  // neighbours share pages
  std::erase_if(items, [&](Candidate& item) {
    const std::string& key = item.key().canonical();
    const auto value = cursor.find(record::PaddedKey(key).bytes());
    item.is_new = !value;
    const char* reason = nullptr;
    const auto there = value ? record::decode(*value, record::hash_key(key), &reason) : std::nullopt;
    const PendingTokens& tokens = item.put().tokens;
    if (!there || !std::ranges::equal(there->ids, tokens.ids()) ||
        !std::ranges::equal(there->mask, tokens.mask()) || !record::checksum_ok(*there)) {
      return false;
    }
    const std::uint32_t slot = there->header.slot;
    const auto chunk =
        snapshot.get(Table::kMeta, MetaKey(Tag::kEntries, slot / rows::kEntriesPerChunk).bytes());
    if (!chunk || !rows::is_current(*chunk, slot, there->header.generation)) return false;
    access_->touch(slot, item.put().stamp);
    ++item.run().puts;
    kept.push_back(&item.key());
    return true;
  });
  return kept;
}

// As put_group(), with as much else in the same commit as there is room for.
std::size_t Writer::put_with_more(const Candidates& items, std::size_t at, std::size_t count,
                                  const Room& room, Extras& extras) {
  const Need need = need_of(items, at, count, room.page_bytes);
  Along along;
  along.victims = victims_ahead(items, at + count, need, room);
  const std::uint64_t tree =
      room.tree_pages(need.count + along.victims.size() + extras.changes(room), need.node_bytes);
  // Also when there is nothing else yet: the puts change the figures of their runs.
  if (at + count == items.size() && !extras.done() &&
      need.value_pages + tree + room.free_list_pages(tree) + room.reserve() <= room.available()) {
    along.extras = &extras;
  }
  const bool was_full = disk_full_;
  std::size_t written = put_group(items, at, count, room, along);
  if (written == count) {
    evicted_pages_ += pages_of(along.victims, room);
    return written;
  }
  victims_.put_back(along.victims);
  if (disk_full_ == was_full && (along.extras != nullptr || !along.victims.empty()))
    written = put_group(items, at, count, room, {});
  return written;
}

// Writes `count` puts in one transaction and commits it, and what goes `along`; returns `count`. If the
// commit could pass the limit it is aborted, and the number of puts returned that were still within.
std::size_t Writer::put_group(const Candidates& items, std::size_t at, std::size_t count, const Room& room,
                              const Along& along) {
  const Need all = need_of(items, at, count, room.page_bytes);
  const std::uint64_t changes =
      count + along.victims.size() + (along.extras != nullptr ? along.extras->changes(room) : 0);
  Need replaced;
  for (std::size_t i = at; i < at + count; ++i) {
    if (!items[i].is_new) replaced.add(*items[i].item, room.page_bytes);
  }
  const std::uint64_t freed = replaced.value_pages + pages_of(along.victims, room);
  const std::unique_ptr<Commit> begun = begin_commit(room, room.tree_pages(changes, all.node_bytes) + freed);
  Commit& commit = *begun;
  std::vector<std::pair<std::uint32_t, std::uint64_t>> stamps;
  Need need;
  for (std::size_t i = 0; i < count; ++i) {
    const Item& item = *items[at + i].item;
    need.add(item, room.page_bytes);
    stamps.emplace_back(commit.put(item.first, item.second), item.second.stamp);
    if (may_commit(commit, room, need.count, need.node_bytes)) continue;
    scattered_ = scattered_ || commit.end_page() > std::max(room.limit_for_values(), room.used);
    return i;
  }
  Run& run = items[at].run();
  const Erased erased =
      erase(commit, along.victims, kNever, {rows::Fate::kEvicted, run.run_id(), history_ring(room.bytes())});
  for (std::size_t i = 0; i < count; ++i) ++items[at + i].run().puts;
  run.evicted += erased.report.removed;
  if (along.extras != nullptr) along.extras->apply(commit, true);
  commit.finish();
  const bool within = may_commit(commit, room, changes, need.node_bytes, true);
  if (!within || (!disk_full_ && !disk_has(commit, room, changes, need.node_bytes))) {
    for (std::size_t i = 0; i < count; ++i) --items[at + i].run().puts;
    run.evicted -= erased.report.removed;
    return within ? 0 : count / 2;
  }
  access_->grow(commit.store().slot_count);
  commit.commit();
  if (along.extras != nullptr) along.extras->committed();
  for (const std::uint32_t slot : erased.slots) access_->assign(slot, 0);
  for (const auto& [slot, stamp] : stamps) access_->assign(slot, stamp);
  return count;
}

// What the puts after items[end - 1] will lack goes along with those before, which take `now`. Its pages can
// be taken two commits later, so a stream of puts at the cap needs no commits for removing, and a leaf where
// one entry goes and another comes is copied once.
std::vector<Victim> Writer::victims_ahead(const Candidates& items, std::size_t end, const Need& now,
                                          const Room& room) {
  if (disk_full_) return {};
  const std::uint64_t most = room.limit / 8;
  Need later;
  std::uint64_t older_than = kNever;
  for (std::size_t i = end; i < items.size() && later.value_pages < most; ++i) {
    later.add(*items[i].item, room.page_bytes);
    older_than = std::min(older_than, items[i].bound());
  }
  // Two more batches like the last two, where they come one after the other.
  const std::uint64_t coming = std::min(later.value_pages + last_pages_[0] + last_pages_[1], most);
  if (coming == 0) return {};
  const std::uint64_t changes = 2 * std::max(later.count, now.count);
  const std::uint64_t kept = room.reserve() + slack_ + room.tree_pages(changes, now.node_bytes);
  const std::uint64_t left = minus(room.available(), now.free_pages(room));
  const std::uint64_t wanted = minus(coming + kept + ahead(room), left + room.recent + room.held);
  if (wanted == 0) return {};
  const std::uint64_t protected_from = access_->runs().oldest_start().value_or(kNever);
  std::vector<Victim> victims =
      victims_.take(*environment_, *access_, {protected_from, older_than}, std::min(wanted, most / 2));
  // Removing copies pages, too.
  if (now.pages(room, victims.size(), pages_of(victims, room)) + room.reserve() <= room.available())
    return victims;
  victims_.put_back(victims);
  return {};
}

// Makes pages reusable for the puts from `at` on: oldest last access first, no more than they need, and
// nothing that was used later than they were. Returns for how many puts, or 0 when that is not possible now.
std::size_t Writer::make_room(const Candidates& items, std::size_t at, unsigned attempt, const Room& room) {
  waited_in_vain_ = false;
  Need first;
  first.add(*items[at].item, room.page_bytes);
  if (first.pages(room) + room.reserve() > room.limit) return 0;
  const std::uint64_t lacking = minus(first.pages(room) + room.reserve(), room.available());
  const std::uint64_t protected_from = access_->runs().oldest_start().value_or(kNever);
  std::vector<Victim> victims;
  if (room.recent < std::max<std::uint64_t>(lacking, 1)) {
    // Often nothing may go, for one put after the other.
    victims = victims_.take(*environment_, *access_, {protected_from, items[at].bound()}, 1);
    victims_.put_back(victims);
    if (victims.empty()) return 0;
  }
  Group group;
  std::size_t count = 0;
  std::uint64_t pages = 0;
  const auto wait = [&]() -> std::size_t {
    waited_in_vain_ = !wait_for_readers(group.need, room);
    return waited_in_vain_ ? 0 : count;
  };
  for (std::uint64_t most = kMostEvictedFor;;) {
    group = group_of(items, at, most, room);
    count = group.need.count;
    // Where that was in vain, there are pages enough but not side by side, and then none of them counts: they
    // are what changes of the tree leave behind, one here, one there. What is evicted lies as it was put.
    const bool more_come = last_pages_[0] > 0 || at + count < items.size();
    const std::uint64_t need =
        more_come ? slack_ + group.need.pages(room, count, group.need.value_pages + kFreePerRecord)
                  : group.need.pages(room);
    const std::uint64_t unused = room.unused(need - group.need.value_pages);
    const std::uint64_t by_number = minus(need + unused + room.reserve(), room.available());
    if (attempt == 0 && by_number == 0) return count;  // of a batch that does not fit as a whole
    std::uint64_t wanted =
        attempt == 0
            ? by_number
            : std::max(by_number, std::max<std::uint64_t>(group.need.value_pages, 1) << (attempt - 1));
    // What readers hold is free when they let go; evicting more would not be sooner.
    const std::uint64_t coming = std::min(room.held, wanted + ahead(room));
    if (attempt == 0 || room.held > 0) wanted = wanted + ahead(room) - coming;
    if (wanted == 0) return wait();
    if (room.recent >= wanted && attempt == 0) {
      nudge(room);
      nudge(room);
      return count;
    }
    victims = victims_.take(*environment_, *access_, {protected_from, group.older_than}, wanted);
    pages = pages_of(victims, room);
    if (!victims.empty() && pages >= std::max<std::uint64_t>(lacking, 1)) break;
    victims_.put_back(victims);
    // A smaller group may be newer as a whole.
    if (count == 1 || group.older_than >= protected_from) {
      // Evicting less than is lacking would use up pages with which to remove; readers hold the rest.
      return victims.empty() || coming == 0 ? 0 : wait();
    }
    most = count / 2;
  }
  PruneReport report;
  remove_within(victims, kNever, room.bytes(), {rows::Fate::kEvicted, items[at].run().run_id()}, report);
  items[at].run().evicted += report.removed;
  evicted_pages_ += report.removed > 0 ? pages : 0;
  nudge(measure(room.bytes()));
  if (report.removed > 0) return count;
  // There was nothing left to remove with.
  return room.held == 0 ? 0 : wait();
}

// Pages that are evicted beyond what is needed now, because readers held what was free when it was needed.
std::uint64_t Writer::ahead(const Room& room) const { return std::min(ahead_, room.limit / 4); }

// Waits for pages that readers hold, for as long as the readers move on and for half a second per write() at
// most; for a reader that did not move on in that time, not again.
bool Writer::wait_for_readers(const Need& need, const Room& room) {
  constexpr std::chrono::milliseconds kPause{2};
  ahead_ = std::max(2 * ahead(room), 4 * need.value_pages);
  waited_ = true;
  auto oldest = environment_->oldest_reader();
  if (oldest == stuck_reader_) return false;
  while (std::chrono::steady_clock::now() < wait_until_) {
    // What the last commit freed is held by whoever reads, until there is a newer one to move on to.
    if (oldest == environment_->last_txnid()) nudge(room);
    std::this_thread::sleep_for(kPause);
    const auto now = environment_->oldest_reader();
    if (now == oldest) continue;
    oldest = now;
    const Room later = measure(room.bytes());
    if (need.pages(later) + later.reserve() <= later.available()) return true;
    // They hold next to nothing any more; what is still lacking has to be evicted.
    if (later.held <= room.held / 8) return true;
  }
  stuck_reader_ = oldest;
  return false;
}

// The puts from `at` on for which room is made at once.
Writer::Group Writer::group_of(const Candidates& items, std::size_t at, std::uint64_t most,
                               const Room& room) {
  // In a small store a few puts take an eighth; one commit for each would cost more pages than it saves.
  const std::uint64_t most_pages = std::max<std::uint64_t>(room.limit / 8, 1024);
  Group group;
  for (std::size_t i = at; i < items.size() && group.need.count < most; ++i) {
    if (i > at && (group.need.value_pages > room.limit / 16 || group.need.pages(room) > most_pages)) break;
    group.need.add(*items[i].item, room.page_bytes);
    group.older_than = std::min(group.older_than, items[i].bound());
  }
  return group;
}

// Of keys that were here before, some may not make others go. Without this, a corpus that is larger than the
// budget and is read again and again, in whatever order, has each entry removed before its turn comes: the
// put of what was declined or just evicted makes something go that will be asked for as surely. So, while
// this run is being served from what earlier runs left, such a put makes only entries go that were last used
// before the run in which its own key was last wanted.
void Writer::weigh(Candidates& items, std::size_t at) {
  constexpr std::uint64_t kFewHits = 4;
  constexpr std::uint64_t kShareHit = 64;  // one in so many
  const lmdb::ReadTransaction snapshot(*environment_);
  const rows::StoreRow store = read_store_row(snapshot);
  if (store.history == 0) return;
  const std::uint64_t protected_from = access_->runs().oldest_start().value_or(kNever);
  const std::vector<std::uint64_t> starts = run_starts(snapshot);
  for (std::size_t i = at; i < items.size(); ++i) {
    Candidate& candidate = items[i];
    const PendingPut& put = candidate.put();
    if (put.dated || !candidate.is_new || !put.run->options.protect_run) continue;
    if (put.run->hits.value() < std::max(kFewHits, store.entry_count / kShareHit)) continue;
    const auto past = history_.find(snapshot, store, record::hash_key(candidate.key().canonical()));
    if (!past) continue;
    const bool evicted_now = past->fate == rows::Fate::kEvicted && past->when_ns >= protected_from;
    if (past->fate != rows::Fate::kDeclined && !evicted_now) continue;
    const auto after = std::upper_bound(starts.begin(), starts.end(), past->wanted_ns);
    candidate.older_than = after == starts.begin() ? past->wanted_ns : *std::prev(after);
  }
  std::sort(items.begin() + static_cast<std::ptrdiff_t>(at), items.end(), comes_first);
}

// Why there is no room for `item`, and what helps.
std::string Writer::why_declined(const Candidate& item, const Room& room) const {
  const std::string& key = item.key().canonical();
  const std::string budget = disk_full_ ? fmt::format("{} bytes that the full disk has for it", room.bytes())
                                        : fmt::format("budget of {} bytes", room.bytes());
  const char* const advice = disk_full_ ? "free some space" : "raise max_bytes";
  Need need;
  need.add(*item.item, room.page_bytes);
  if (need.pages(room) + room.reserve() > room.limit)
    return fmt::format("{} is too large for the {}, and is not stored", key, budget);
  if (waited_in_vain_) {
    return fmt::format(
        "readers hold {} bytes that are free in the {}, so {} and others are not stored; hold views for a "
        "shorter time, or {}",
        room.held * room.page_bytes, budget, key, advice);
  }
  const auto oldest = access_->runs().oldest();
  const bool by_other = oldest && oldest->run_id != item.run().run_id();
  std::string since = by_other ? fmt::format("since run {} began, which is alive", oldest->run_id)
                               : (oldest ? "in this run" : "as lately");
  if (item.older_than < item.put().stamp) since = item.put().dated ? "later" : "as lately";
  return fmt::format(
      "the {} {} full of entries that were used {}, so {} and others are not stored; {} to keep more", budget,
      disk_full_ ? "are" : "is", since, key, advice);
}

bool Writer::decline(const Candidate& item, const Room& room) {
  // It was to be replaced: it must not be served any more.
  const bool removed = remove_stored(item.key(), room);
  Run& run = item.run();
  ++run.declined;
  if (!run.told_declined.exchange(true)) warn_(why_declined(item, room));
  const std::uint64_t now = access_->next_stamp();
  notes_.push_back({record::hash_key(item.key().canonical()), now, now,
                    static_cast<std::uint32_t>(run.run_id()), rows::Fate::kDeclined});
  return removed;
}

bool Writer::remove_stored(const CacheKey& key, const Room& room) {
  if (!lmdb::ReadTransaction(*environment_)
           .get(Table::kRecords, record::PaddedKey(key.canonical()).bytes())) {
    return false;
  }
  Victim stored;
  {
    Commit commit(*environment_, names_);
    stored.slot = commit.erase(key);
    if (stored.slot == rows::kNoSlot) return false;
    commit.finish();
    if (may_commit(commit, room, 1, 0)) {
      commit.commit();
      access_->assign(stored.slot, 0);
      return true;
    }
  }
  PruneReport report;
  remove_by_rewriting({&stored, 1}, kNever, rows::Fate::kDeclined, report);
  return true;
}

void Writer::nudge(const Room& room) {
  Commit commit(*environment_, names_);
  commit.finish();
  if (may_commit(commit, room, 0, 0)) commit.commit();
}

// ---- Removing ----

// Those that nobody used since `before`.
Writer::Erased Writer::erase(Commit& commit, std::span<const Victim> victims, std::uint64_t before,
                             const Removal& why) const {
  Erased erased;
  for (const Victim& victim : victims) {
    if (access_->stamp(victim.slot) >= before) continue;
    const std::uint64_t bytes = commit.erase(victim.slot, victim.generation, why, victim.stamp);
    if (bytes == 0) continue;
    ++erased.report.removed;
    erased.report.bytes += bytes;
    erased.slots.push_back(victim.slot);
  }
  return erased;
}

std::size_t Writer::remove_within(std::span<const Victim> victims, std::uint64_t before,
                                  std::uint64_t max_bytes, const Removal& why, PruneReport& report) {
  const Removal noted{why.fate, why.run_id, history_ring(max_bytes)};
  std::size_t most = kMostRemovedAtOnce;
  std::size_t at = 0;
  bool nudged = false;
  while (at < victims.size()) {
    const Room room = measure(max_bytes);
    const std::size_t count = std::min(most, victims.size() - at);
    const std::uint64_t history = count / rows::kHistoryPerChunk + 2;
    const bool scarce = room.tree_pages(count, 0) + history + room.free_list_pages(0) > room.available();
    if (scarce && count > 1) {
      most = count / 2;
      continue;
    }
    if (scarce && room.recent > 0 && !std::exchange(nudged, true)) {
      // What the last commits freed is all that is left.
      nudge(room);
      nudge(measure(max_bytes));
      continue;
    }
    const std::span<const Victim> now = victims.subspan(at, count);
    const auto begun = begin_commit(room, room.tree_pages(count, 0) + pages_of(now, room));
    Commit& commit = *begun;
    const Erased erased = erase(commit, now, before, noted);
    commit.finish();
    if (!may_commit(commit, room, count, 0)) {
      if (count == 1) return at;
      most = count / 2;
      continue;
    }
    if (!disk_full_ && !disk_has(commit, room, count, 0)) continue;  // with as many as there is room for
    if (erased.report.removed > 0) commit.commit();
    nudged = false;
    for (const std::uint32_t slot : erased.slots) access_->assign(slot, 0);
    report.removed += erased.report.removed;
    report.bytes += erased.report.bytes;
    at += count;
  }
  return at;
}

std::size_t Writer::remove(std::span<const Victim> victims, std::uint64_t before, const WriteLimits& limits,
                           PruneReport& report) {
  const WriteLock::Hold hold = lock_.acquire(limits.lock_timeout);
  begin();
  disk_full_ = false;
  const std::size_t wanted = std::min(victims.size(), kMostRemovedAtOnce);
  const std::size_t done =
      remove_within(victims.first(wanted), before, budget(limits), {rows::Fate::kPruned, 0}, report);
  if (done == wanted) return wanted;
  remove_by_rewriting(victims.subspan(done), before, rows::Fate::kPruned, report);
  return victims.size();
}

}  // namespace tokcask
