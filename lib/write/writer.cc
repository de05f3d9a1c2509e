#include "write/writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <thread>
#include <utility>

#include <tokcask/error.h>

#include "os/clock.h"

namespace tokcask {

using lmdb::Table;
using rows::MetaKey;
using rows::Tag;

namespace {

constexpr std::uint64_t kNever = std::numeric_limits<std::uint64_t>::max();
constexpr unsigned kMostAttempts = 32;
constexpr unsigned kMostScattered = 16;  // every other one makes twice as much go as the one before
constexpr std::size_t kMostFailures = 8;
constexpr std::chrono::milliseconds kMostWaited{500};  // for readers

std::uint64_t end_of(const Commit& commit, const room::Space& space, room::Work work) {
  work.freed = commit.freed_pages();
  return room::end_after(space, work, commit.next_page(), true);
}

bool may_commit(const Commit& commit, const room::Space& space, const room::Work& work, std::uint64_t mark) {
  return end_of(commit, space, work) <= std::max(mark, space.end);
}

// When the runs began that are recorded, in order.
std::vector<std::uint64_t> run_starts(const lmdb::ReadTransaction& transaction) {
  std::vector<std::uint64_t> starts;
  for (const rows::RunRow& run : read_runs(transaction)) {
    if (run.started_ns > 0) starts.push_back(static_cast<std::uint64_t>(run.started_ns));
  }
  std::sort(starts.begin(), starts.end());
  return starts;
}

}  // namespace

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

// A store that was removed is written to as before, for those who still have it open.
void Writer::require_own_file() const {
  const auto current = files::id_of(root_ / "data.mdb");
  if (!current || *current == environment_->file_id()) return;
  throw Error(Errc::kIo,
              fmt::format("{}: was replaced by another file while it was open; close it in all handles, then "
                          "open it again",
                          (root_ / "data.mdb").string()));
}

void Writer::begin() {
  require_own_file();
  environment_->clear_dead_readers();
  disk_full_ = false;
  wait_until_ = std::chrono::steady_clock::now() + kMostWaited;
}

std::uint64_t Writer::budget(const WriteLimits& limits) const {
  return budget_of(read_store_row(lmdb::ReadTransaction(*environment_)), limits.max_bytes);
}

// ---- Room ----

room::Space Writer::measure(std::uint64_t max_bytes) {
  constexpr std::uint64_t kNodeBytes = 18;  // of a record of the free list, besides its numbers
  room::Space space;
  space.page_bytes = environment_->page_bytes();
  space.limit = std::min(max_bytes, environment_->map_bytes()) / space.page_bytes;
  // Asked before this thread's own snapshot is one of them.
  const std::uint64_t oldest = environment_->oldest_reader().value_or(kNever);
  const lmdb::ReadTransaction snapshot(*environment_);
  space.txnid = snapshot.id();
  space.end = environment_->page_count();
  space.records = snapshot.stat(Table::kRecords);
  space.meta = snapshot.stat(Table::kMeta);
  space.slots = read_store_row(snapshot).slot_count;
  for (const lmdb::FreedPages& freed : snapshot.free_list()) {
    const std::uint64_t size = 8 * (freed.count + 1);
    const std::uint64_t bytes =
        kNodeBytes + (lmdb::value_pages(8, size, space.page_bytes) > 0 ? std::uint64_t{8} : size);
    space.free_list_bytes += bytes;
    if (freed.txnid >= oldest) {
      space.held += freed.count;
    } else if (freed.txnid >= space.txnid) {
      space.recent += freed.count;
    } else {
      if (space.reusable_bytes == 0) space.oldest_freed = freed.txnid;
      space.reusable += freed.count;
      space.reusable_bytes += bytes;
    }
  }
  // So that entries can always be removed, also when others fill the disk.
  if (!disk_full_) has_blocks(space.end, space);
  if (disk_full_) space.limit = std::min(space.limit, std::max(allocated_, space.end));
  return space;
}

bool Writer::has_blocks(std::uint64_t end, const room::Space& space) {
  constexpr std::uint64_t kMostAhead = 1024;
  const std::uint64_t page_bytes = space.page_bytes;
  const auto get = [&](std::uint64_t until) {
    if (!environment_->allocate(allocated_ * page_bytes, (until - allocated_) * page_bytes)) return false;
    allocated_ = until;
    return true;
  };
  allocated_ = std::max(allocated_, space.end);
  // What lies between the marks of a budget as large as the file.
  const std::uint64_t ahead = std::min(room::reserve(space) + end / 50, kMostAhead);
  const std::uint64_t least = std::min(end + ahead, space.limit);
  if (least <= allocated_) return true;
  if (disk_full_) return false;
  // Some more at once, where there is room.
  if (get(std::min(least + ahead, space.limit)) || get(least)) return true;
  for (std::uint64_t size = (least - allocated_) / 2; size > 0; size /= 2) get(allocated_ + size);
  disk_full_ = true;
  return false;
}

bool Writer::commit_nothing(const room::Space& space) {
  if (!room::fits(space, {}, space.limit)) return false;
  Commit commit(*environment_, names_);
  commit.finish();
  if (commit.id() != space.txnid + 1 || !may_commit(commit, space, {}, space.limit)) return false;
  commit.commit();
  return true;
}

bool Writer::wait_for_readers(const room::Space& space,
                              const std::function<bool(const room::Space&)>& enough) {
  constexpr std::chrono::milliseconds kPause{2};
  const std::uint64_t max_bytes = space.limit * space.page_bytes;
  for (room::Space now = space; !enough(now) && now.held > space.held / 8;) {
    if (std::chrono::steady_clock::now() >= wait_until_) return false;
    // What the last commit freed is held by whoever reads, until there is a newer one to move on to.
    if (environment_->oldest_reader() == now.txnid) commit_nothing(now);
    std::this_thread::sleep_for(kPause);
    now = measure(max_bytes);
  }
  return true;
}

std::size_t Writer::make_room(const Round& round, std::size_t at, std::size_t count, unsigned scattered,
                              const room::Space& space) {
  const Candidates& items = round.items;
  const room::Work work = work_of(items[at]);
  const std::uint64_t first = room::pages_of(space, work);
  const std::uint64_t high = room::high_mark(space);
  if (first > high) return 0;
  // As if nobody held any free page. The commit that makes them reusable takes some itself.
  const std::uint64_t nothing = room::pages_of_nothing(space);
  room::Space later = space;
  later.reusable += room::minus(space.recent + space.held, nothing);
  const std::uint64_t lacking = room::minus(first, later.available(high));
  const std::size_t rest = items.size() - at;
  std::uint64_t wanted = lacking;
  if (lacking > 0 || fitting(later, items, at, rest) < rest) {
    // A batch that is large for the store makes some more go at once: it needs that, and fewer commits.
    const std::uint64_t all = room::pages_of(space, work_of(items, at, rest));
    wanted = std::max({wanted, room::minus(space.live(), room::low_mark(space)),
                       room::minus(std::min(all, space.limit / 8), later.available(high))});
  }
  if (scattered > 0 && scattered <= kMostScattered) {
    // What readers hold may lie side by side: they are waited for, and if that does not do, more goes.
    const auto never = [](const room::Space&) { return false; };
    if (scattered % 2 == 1 && space.held > 0 && wait_for_readers(space, never)) return 1;
    wanted = std::max(wanted, work.value_pages << (scattered - 1) / 2);
  }
  if (wanted > 0) {
    if (const std::size_t made = evict(round, at, wanted, std::max<std::uint64_t>(lacking, 1), space);
        made > 0)
      return made;
    // Nothing may go; or no page is left to remove with, because readers hold them.
    room::Work one;
    one.removals = 1;
    if (lacking > 0 && (space.held == 0 || room::fits(space, one, room::removal_mark(space)))) return 0;
  }
  if (count > 0) return 0;
  if (first <= space.available(high) + room::minus(space.recent, nothing))
    return commit_nothing(space) ? rest : 0;
  if (space.held == 0) return 0;
  const std::size_t group = std::max<std::size_t>(fitting(later, items, at, rest), 1);
  const room::Work of_group = work_of(items, at, group);
  const auto fit = [](const room::Space& now, const room::Work& some) {
    return room::fits(now, some, room::high_mark(now));
  };
  if (wait_for_readers(space, [&](const room::Space& now) { return fit(now, of_group); })) return group;
  return fit(measure(round.max_bytes), work) ? group : 0;
}

// Evicts entries of `wanted` pages for the puts from `at` on, or of `least` if there are no more. Returns for
// how many puts, or 0. None of these may find its own past removed for another: each has a bound of what may
// go for it.
std::size_t Writer::evict(const Round& round, std::size_t at, std::uint64_t wanted, std::uint64_t least,
                          const room::Space& space) {
  const Candidates& items = round.items;
  const std::uint64_t protected_from = access_->runs().oldest_start().value_or(kNever);
  room::Space later = space;
  later.reusable += space.recent + space.held + wanted;
  for (std::size_t count = std::max<std::size_t>(fitting(later, items, at, items.size() - at), 1); count > 0;
       count /= 2) {
    std::uint64_t older_than = kNever;
    for (std::size_t i = at; i < at + count; ++i) older_than = std::min(older_than, items[i].bound());
    const std::vector<Victim> victims =
        victims_.take(*environment_, *access_, {protected_from, older_than}, wanted);
    std::uint64_t pages = 0;
    for (const Victim& victim : victims) pages += victim.pages(space.page_bytes);
    if (victims.empty() || pages < least) {
      victims_.put_back(victims);
      // A smaller group may be newer as a whole.
      if (older_than >= protected_from) return 0;
      continue;
    }
    PruneReport report;
    const std::size_t taken = remove_within(victims, kNever, round.max_bytes,
                                            {rows::Fate::kEvicted, items[at].session().run_id(), 0}, report);
    victims_.put_back({victims.begin() + static_cast<std::ptrdiff_t>(taken), victims.end()});
    items[at].session().evicted += report.removed;
    commit_nothing(measure(round.max_bytes));
    return taken > 0 ? count : 0;
  }
  return 0;
}

// ---- Puts ----

room::Work Writer::work_of(const Candidate& item) const {
  const std::uint64_t page_bytes = environment_->page_bytes();
  const std::string& canonical = item.key().canonical();
  room::Work work;
  work.put(canonical.size(), item.put().tokens.record_bytes(), item.key().section_id(), page_bytes);
  if (!item.is_new) work.freed = work.value_pages;
  if (const std::string_view sha = item.key().tokenizer_sha(); names_.number(sha) == 0)
    work.row(8, record::round_up(sha.size(), 8), page_bytes);
  return work;
}

room::Work Writer::work_of(const Candidates& items, std::size_t at, std::size_t count) const {
  room::Work work;
  for (std::size_t i = at; i < at + count; ++i) work.add(work_of(items[i]));
  return work;
}

std::size_t Writer::fitting(const room::Space& space, const Candidates& items, std::size_t at,
                            std::size_t most) const {
  const std::uint64_t high = room::high_mark(space);
  room::Work work;
  std::size_t count = 0;
  for (; count < most; ++count) {
    work.add(work_of(items[at + count]));
    if (!room::fits(space, work, high)) break;
  }
  return count;
}

// Two processes that both missed put the same, and the second must neither take room nor lose the entry.
bool Writer::is_same(const lmdb::ReadTransaction& snapshot, const lmdb::Cursor& cursor, Candidate& item) {
  const std::string& key = item.key().canonical();
  const auto value = cursor.find(record::PaddedKey(key).bytes());
  item.is_new = !value;
  const char* reason = nullptr;
  const auto there = value ? record::decode(*value, record::hash_key(key), &reason) : std::nullopt;
  const Tokens& tokens = item.put().tokens.tokens;
  if (!there || !std::ranges::equal(there->ids, tokens.input_ids) ||
      !std::ranges::equal(there->mask, tokens.attention_mask) ||
      !std::ranges::equal(there->parts.bytes(), tokens.parts.bytes()) || !record::checksum_ok(*there)) {
    return false;
  }
  const std::uint32_t slot = there->header.slot;
  const auto chunk =
      snapshot.get(Table::kMeta, MetaKey(Tag::kEntries, slot / rows::kEntriesPerChunk).bytes());
  if (!chunk || !rows::is_current(*chunk, slot, there->header.generation)) return false;
  access_->touch(slot, item.put().stamp);
  ++item.session().puts;
  return true;
}

Writer::Candidates Writer::candidates(const Batch& batch, const OnDone& on_done) {
  Candidates items;
  for (const Item& item : batch.puts)
    items.push_back({&item, item.second.dated ? item.second.stamp : kNever, true});
  std::sort(items.begin(), items.end(), by_key);  // neighbours share pages
  const lmdb::ReadTransaction snapshot(*environment_);
  const rows::StoreRow store = read_store_row(snapshot);
  names_.refresh(snapshot, store.tokenizer_count, store.names_epoch);
  Keys same;
  if (snapshot.stat(Table::kRecords).entries > 0) {
    const lmdb::Cursor cursor(snapshot, Table::kRecords);
    std::erase_if(items, [&](Candidate& item) {
      if (!is_same(snapshot, cursor, item)) return false;
      same.push_back(&item.key());
      return true;
    });
  }
  if (!same.empty()) on_done(same);
  // Those first that may make the most go, so that no room is given to one that must make room again.
  std::stable_sort(items.begin(), items.end(), comes_first);
  return items;
}

void Writer::write(const Batch& batch, const WriteLimits& limits, bool fold, const OnDone& on_done) {
  const WriteLock::Hold hold = lock_.acquire(limits.lock_timeout);
  begin();
  const rows::StoreRow store = read_store_row(lmdb::ReadTransaction(*environment_));
  const std::uint64_t max_bytes = budget_of(store, limits.max_bytes);
  Bookkeeping books(batch, *access_, max_bytes, store.hint_bytes, fold, notes_, stamps_);
  Round round{candidates(batch, on_done), max_bytes, &books, {}};
  for (std::size_t at = 0; at < round.items.size();) {
    const std::size_t count = put_next(round, at);
    Keys keys;
    for (std::size_t i = at; i < at + count; ++i) keys.push_back(&round.items[i].key());
    if (count > 0) on_done(keys);
    at += std::max<std::size_t>(count, 1);
  }
  settle_failures(round, on_done);
  write_rest(books, max_bytes);
}

std::size_t Writer::put_next(Round& round, std::size_t at) {
  std::size_t most = round.items.size() - at;
  unsigned scattered = 0;
  bool wants_room = false;
  bool has_made_room = false;  // then what fits is put, and room is made for the rest
  for (unsigned attempts = 0;;) {
    const room::Space space = measure(round.max_bytes);
    const std::size_t count = fitting(space, round.items, at, most);
    if (wants_room || count == 0 || (count < most && !has_made_room)) {
      if (!std::exchange(round.weighed, true)) {
        weigh(round.items, at);
        continue;
      }
      const bool fits = count > 0 && !std::exchange(wants_room, false);
      // While readers hold pages, time is what limits it.
      if (space.held == 0) ++attempts;
      const std::size_t made = attempts <= kMostAttempts ? make_room(round, at, count, scattered, space) : 0;
      if (made > 0) {
        most = made;
        has_made_room = true;
        continue;
      }
      if (!fits) break;
    }
    try {
      const Written written = put_group(round, at, count, space);
      if (written.committed) return count;
      if (written.measure_again) continue;
      wants_room = written.fit == 0;
      if (wants_room) ++scattered;
      most = std::max<std::size_t>(written.fit, 1);
    } catch (const Error& error) {
      if (error.code() != Errc::kIo) throw;
      if (count == 1) return note_failure(round, at, error.what());
      most = count / 2;
    }
  }
  decline(round.items[at], round.max_bytes);
  return 1;
}

// To be called while the error is handled. Returns 0, for no put that is done.
std::size_t Writer::note_failure(Round& round, std::size_t at, const char* what) {
  round.failures.push_back({&round.items[at], std::current_exception(), what});
  // Where nothing succeeds, it is not the put.
  if (round.failures.size() >= kMostFailures && !round.committed_since)
    std::rethrow_exception(round.failures.front().error);
  return 0;
}

void Writer::settle_failures(Round& round, const OnDone& on_done) {
  if (round.failures.empty()) return;
  if (!round.committed_since) std::rethrow_exception(round.failures.front().error);
  for (const Failure& failure : round.failures) {
    warn_(fmt::format("{} cannot be stored: {}", failure.item->key().canonical(), failure.what));
    ++failure.item->session().declined;
    on_done({&failure.item->key()});
  }
}

namespace {

// Puts counted in the figures of their runs, which the same transaction saves. Taken back if it fails.
class CountedPuts {
 public:
  CountedPuts() = default;
  CountedPuts(const CountedPuts&) = delete;
  CountedPuts& operator=(const CountedPuts&) = delete;
  ~CountedPuts() {
    for (Session* const session : sessions_) --session->puts;
  }
  void add(Session& session) {
    sessions_.push_back(&session);
    ++session.puts;
  }
  void keep() noexcept { sessions_.clear(); }

 private:
  std::vector<Session*> sessions_;
};

}  // namespace

// Writes `count` puts in one transaction and commits it, with all else that is to be written if these are the
// last puts and it fits. Aborted if the file could pass its marks.
Writer::Written Writer::put_group(Round& round, std::size_t at, std::size_t count, const room::Space& space) {
  const auto first = round.items.begin() + static_cast<std::ptrdiff_t>(at);
  std::sort(first, first + static_cast<std::ptrdiff_t>(count), by_key);
  room::Work work = work_of(round.items, at, count);
  Bookkeeping* books = nullptr;
  if (at + count == round.items.size() && !round.books->passes_share()) {
    room::Work all = work;
    all.add(round.books->work(space.page_bytes, true));
    if (room::fits(space, all, room::high_mark(space))) {
      work = all;
      books = round.books;
    }
  }
  const std::uint64_t most_pages = std::max(room::high_mark(space), space.end);
  Commit commit(*environment_, names_);
  if (commit.id() != space.txnid + 1) return {.measure_again = true};
  CountedPuts counted;
  std::vector<std::pair<std::uint32_t, std::uint64_t>> stamps;
  stamps.reserve(count);
  for (std::size_t i = 0; i < count; ++i) {
    const Candidate& item = round.items[at + i];
    stamps.emplace_back(commit.put(item.key(), item.put().of_commit()), item.put().stamp);
    if (commit.next_page() > most_pages) return {.fit = i};
    counted.add(item.session());
  }
  if (books != nullptr) books->apply(commit, true);
  commit.finish();
  const std::uint64_t mark = room::minus(space.limit, room::reserve(space));
  if (commit.next_page() > most_pages || !may_commit(commit, space, work, mark)) return {.fit = count / 2};
  if (!disk_full_ && !has_blocks(end_of(commit, space, work), space)) return {.measure_again = true};
  access_->grow(commit.store().slot_count);
  commit.commit();
  wait_until_ = std::chrono::steady_clock::now() + kMostWaited;
  counted.keep();
  // Somebody may have used the entry since: the newer stamp stays. A put with a stamp of its own has that
  // one, whatever the entry had before.
  for (std::size_t i = 0; i < count; ++i) {
    const auto [slot, stamp] = stamps[i];
    if (round.items[at + i].put().dated || access_->stamp(slot) < stamp) access_->assign(slot, stamp);
  }
  if (books != nullptr) books->committed();
  if (!round.failures.empty()) round.committed_since = true;
  return {.fit = count, .committed = true};
}

// What no commit of puts has written.
void Writer::write_rest(Bookkeeping& books, std::uint64_t max_bytes) {
  if (books.passes_share()) {
    erase_within(
        max_bytes, std::numeric_limits<std::size_t>::max(),
        [](Commit& commit, std::size_t most) { return commit.forget_hints(most); }, [] {});
  }
  bool waited = false;
  for (const bool with_hints : {true, false}) {
    if (!books.wanted()) return;
    for (;;) {
      const room::Space space = measure(max_bytes);
      const room::Work work = books.work(space.page_bytes, with_hints);
      // What is kept for removals is not for this.
      const std::uint64_t mark =
          with_hints ? room::high_mark(space) : room::minus(space.limit, room::reserve(space));
      if (!room::fits(space, work, mark)) {
        // What the last commits freed may be all that is left.
        if (space.recent > 0 && !std::exchange(waited, true) && commit_nothing(space)) continue;
        break;
      }
      Commit commit(*environment_, names_);
      if (commit.id() != space.txnid + 1) continue;
      books.apply(commit, with_hints);
      commit.finish();
      if (!may_commit(commit, space, work, mark)) break;
      if (!disk_full_ && !has_blocks(end_of(commit, space, work), space)) continue;
      commit.commit();
      return books.committed();
    }
  }
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
    if (put.dated || !candidate.is_new || !put.session->options.protect_run) continue;
    if (put.session->hits.value() < std::max(kFewHits, store.entry_count / kShareHit)) continue;
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
std::string Writer::why_declined(const Candidate& item, const room::Space& space) const {
  const std::string& key = item.key().canonical();
  const std::uint64_t bytes = space.limit * space.page_bytes;
  const std::string budget = disk_full_ ? fmt::format("{} bytes that the full disk has for it", bytes)
                                        : fmt::format("budget of {} bytes", bytes);
  const char* const advice = disk_full_ ? "free some space" : "raise max_bytes";
  const room::Work work = work_of(item);
  if (room::pages_of(space, work) > room::high_mark(space))
    return fmt::format("{} is too large for the {}, and is not stored", key, budget);
  room::Space later = space;
  later.reusable += space.held;
  if (!room::fits(space, work, room::high_mark(space)) && room::fits(later, work, room::high_mark(later))) {
    return fmt::format(
        "readers hold {} bytes that are free in the {}, so {} and others are not stored; hold views for a "
        "shorter time, or {}",
        space.held * space.page_bytes, budget, key, advice);
  }
  const auto oldest = access_->runs().oldest();
  const bool by_other = oldest && oldest->run_id != item.session().run_id();
  std::string since = by_other ? fmt::format("since run {} began, which is alive", oldest->run_id)
                               : (oldest ? "in this run" : "as lately");
  if (item.older_than < item.put().stamp) since = item.put().dated ? "later" : "as lately";
  return fmt::format(
      "the {} {} full of entries that were used {}, so {} and others are not stored; {} to keep more", budget,
      disk_full_ ? "are" : "is", since, key, advice);
}

void Writer::decline(const Candidate& item, std::uint64_t max_bytes) {
  try {
    remove_stored(item.key(), max_bytes);
  } catch (const Error& error) {
    if (error.code() != Errc::kBusy) throw;
    // Readers hold every page. What is stored under the key stays: by the contract of keys, the same tokens.
  }
  Session& session = item.session();
  ++session.declined;
  const room::Space space = measure(max_bytes);
  if (!session.told_declined.exchange(true)) warn_(why_declined(item, space));
  const std::uint64_t now = access_->next_stamp();
  notes_.push_back({record::hash_key(item.key().canonical()), now, now,
                    static_cast<std::uint32_t>(session.run_id()), rows::Fate::kDeclined});
}

// What a declined put was to replace is not served any more. Throws Error(kBusy) when no page is left to
// remove it with.
void Writer::remove_stored(const CacheKey& key, std::uint64_t max_bytes) {
  Victim stored;
  {
    const lmdb::ReadTransaction snapshot(*environment_);
    const auto value = snapshot.get(Table::kRecords, record::PaddedKey(key.canonical()).bytes());
    const char* reason = nullptr;
    const auto there =
        value ? record::decode(*value, record::hash_key(key.canonical()), &reason) : std::nullopt;
    if (!there) return;
    stored.slot = there->header.slot;
    stored.generation = there->header.generation;
  }
  PruneReport report;
  remove_all({&stored, 1}, kNever, max_bytes, {}, report);
}

// The next entry in this slot has not been used yet.
void Writer::free_slot(std::uint32_t slot) {
  access_->assign(slot, 0);
  const auto taken = stamps_.find(slot / rows::kStampsPerChunk);
  if (taken != stamps_.end()) taken->second[slot % rows::kStampsPerChunk] = 0;
}

// ---- Removing ----

bool Writer::erase_within(std::uint64_t max_bytes, std::size_t left, const Erase& erase,
                          const std::function<void()>& committed) {
  std::size_t most = kMostRemovedAtOnce;
  bool waited = false;
  while (left > 0) {
    const room::Space space = measure(max_bytes);
    const std::uint64_t mark = room::removal_mark(space);
    room::Work work;
    for (most = std::min(most, left);; most /= 2) {
      work.removals = most;
      if (most == 1 || room::fits(space, work, mark)) break;
    }
    if (!room::fits(space, work, mark)) {
      // What the last commits freed is all that is left.
      if (space.recent == 0 || std::exchange(waited, true) || !commit_nothing(space)) return false;
      continue;
    }
    Commit commit(*environment_, names_);
    if (commit.id() != space.txnid + 1) continue;
    const std::size_t dealt = erase(commit, most);
    commit.finish();
    if (!may_commit(commit, space, work, mark)) {
      if (most == 1) return false;
      most /= 2;
      continue;
    }
    if (!disk_full_ && !has_blocks(end_of(commit, space, work), space)) continue;
    commit.commit();
    committed();
    waited = false;
    left = dealt < most ? 0 : left - dealt;
  }
  return true;
}

std::size_t Writer::remove_within(std::span<const Victim> victims, std::uint64_t before,
                                  std::uint64_t max_bytes, const Removal& why, PruneReport& report) {
  const Removal noted{why.fate, why.run_id, why.fate == rows::Fate::kNone ? 0 : history_ring(max_bytes)};
  std::size_t at = 0;
  std::size_t taken = 0;
  PruneReport erased;
  std::vector<std::uint32_t> slots;
  const auto erase = [&](Commit& commit, std::size_t most) {
    erased = {};
    slots.clear();
    taken = most;
    for (const Victim& victim : victims.subspan(at, most)) {
      if (access_->stamp(victim.slot) >= before) continue;
      const std::uint64_t bytes = commit.erase(victim.slot, victim.generation, noted, victim.stamp);
      if (bytes == 0) continue;
      ++erased.removed;
      erased.bytes += bytes;
      slots.push_back(victim.slot);
    }
    return taken;
  };
  erase_within(max_bytes, victims.size(), erase, [&] {
    for (const std::uint32_t slot : slots) free_slot(slot);
    report.removed += erased.removed;
    report.bytes += erased.bytes;
    at += taken;
  });
  return at;
}

Error Writer::held_error(const room::Space& space) const {
  return {
      Errc::kBusy,
      fmt::format("{}: no page is left to remove entries with: readers hold {} bytes that are free in the "
                  "{} bytes that the file may have{}; let go of views, then try again",
                  (root_ / "data.mdb").string(), space.held * space.page_bytes,
                  space.limit * space.page_bytes, disk_full_ ? " on the full disk" : "")};
}

void Writer::remove_all(std::span<const Victim> victims, std::uint64_t before, std::uint64_t max_bytes,
                        const Removal& why, PruneReport& report) {
  room::Work one;
  one.removals = 1;
  const auto enough = [&](const room::Space& now) { return room::fits(now, one, room::removal_mark(now)); };
  for (;;) {
    victims = victims.subspan(remove_within(victims, before, max_bytes, why, report));
    if (victims.empty()) return;
    const room::Space space = measure(max_bytes);
    if (space.held == 0 || !wait_for_readers(space, enough)) throw held_error(space);
  }
}

std::size_t Writer::remove(std::span<const Victim> victims, std::uint64_t before, const WriteLimits& limits,
                           PruneReport& report) {
  const WriteLock::Hold hold = lock_.acquire(limits.lock_timeout);
  begin();
  const std::size_t wanted = std::min(victims.size(), kMostRemovedAtOnce);
  remove_all(victims.first(wanted), before, budget(limits), {rows::Fate::kPruned, 0, 0}, report);
  return wanted;
}

std::uint64_t Writer::clear(const WriteLimits& limits) {
  const WriteLock::Hold hold = lock_.acquire(limits.lock_timeout);
  begin();
  const std::uint64_t max_bytes = budget(limits);
  std::vector<Victim> entries;
  std::uint64_t count = 0;
  {
    const lmdb::ReadTransaction snapshot(*environment_);
    const rows::StoreRow store = read_store_row(snapshot);
    count = store.entry_count;
    entries = live_entries(snapshot, store, *access_);
  }
  PruneReport report;
  remove_all(entries, kNever, max_bytes, {}, report);
  const auto erase_all = [&](const Erase& erase) {
    if (!erase_within(max_bytes, std::numeric_limits<std::size_t>::max(), erase, [] {}))
      throw held_error(measure(max_bytes));
  };
  erase_all([](Commit& commit, std::size_t most) { return commit.erase_unknown(most); });
  erase_all([](Commit& commit, std::size_t most) { return commit.forget_hints(most); });
  erase_all([&](Commit& commit, std::size_t most) {
    rows::StoreRow& store = commit.store();
    store.entry_count = store.total_bytes = store.payload_bytes = 0;
    store.cleared_ns = os::now_ns();
    store.cleared_entries = count;
    return commit.forget_names(most);
  });
  access_->note_damage(false);
  return count;
}

}  // namespace tokcask
