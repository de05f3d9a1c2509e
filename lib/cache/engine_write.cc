// The engine's write side: the pending batch and its commits.
#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <limits>
#include <new>
#include <thread>
#include <utility>

#include "cache/engine.h"
#include "cache/file_limit.h"
#include "cache/patience.h"
#include "cache/verify.h"
#include "os/clock.h"

namespace tokcask {

using lmdb::Table;

namespace {

// How often access times are committed while commits happen anyway.
constexpr std::chrono::seconds kFoldEvery{30};
// Between the commits of a large prune, and after a new file: long enough for one that waits for the write
// lock to find it free.
constexpr std::chrono::milliseconds kTurn{5};
constexpr std::uint64_t kNever = std::numeric_limits<std::uint64_t>::max();

}  // namespace

bool Engine::try_put(const CacheKey& key, const Tokens& tokens, const std::shared_ptr<Run>& run) {
  try {
    bool room = false;
    {
      const std::lock_guard lock(pending_mutex_);
      require_here();
      room = has_room(record::record_bytes(tokens.input_ids.size(), false), run->options);
    }
    if (room && put(key, tokens, {}, run, false)) return true;
  } catch (const Replaced&) {
    // Its pending puts are on the way to the new file, and so will be the next one.
  }
  run->not_taken.fetch_add(1, std::memory_order_relaxed);
  return false;
}

bool Engine::put(const CacheKey& key, const Tokens& tokens, const PutOptions& options,
                 const std::shared_ptr<Run>& run, bool wait) {
  PendingPut put;
  put.tokens = PendingTokens::copy_of(tokens);
  put.run = run;
  const std::uint64_t now = os::now_ns();
  put.created_ns = std::min(options.created_ns.value_or(now), now);
  const std::size_t size = put.tokens.record_bytes();
  std::unique_lock lock(pending_mutex_, std::defer_lock);
  bool stored = false;
  // What was committed after a look is looked for again. Only figures depend on it, so not for ever.
  constexpr int kMostLooks = 4;
  for (int looks = 1;; ++looks) {
    const std::uint64_t commits = commits_done_;
    stored = is_stored(key);
    lock.lock();
    require_here();
    if (wait) {
      wait_for_room(lock, size, run->options);
    } else if (!has_room(size, run->options)) {
      return false;
    }
    if (commits == commits_done_ || looks == kMostLooks) break;
    lock.unlock();
  }
  put.is_new = !stored && committing_.puts.find(key) == committing_.puts.end();
  put.stamp = access_->next_stamp();
  run->note(key);
  run->used(put.stamp);
  if (options.last_access_ns && *options.last_access_ns < put.stamp) {
    put.stamp = std::max<std::uint64_t>(*options.last_access_ns, 1);  // 0 is for what has none
    put.dated = true;
  }
  if (!start_committer()) throw no_committer();
  note_first_pending();
  active_.add(key, std::move(put), environment_->page_bytes());
  if (active_.puts.size() == 1 || 2 * active_.bytes >= batch_bytes_) pending_changed_.notify_one();
  return true;
}

// Whether the newest snapshot has a record under this key.
bool Engine::is_stored(const CacheKey& key) {
  try {
    const std::shared_ptr<Snapshot> snapshot = this->snapshot();
    const std::lock_guard lock(read_mutex_);
    return snapshot->transaction()
        .get(Table::kRecords, record::PaddedKey(key.canonical()).bytes())
        .has_value();
  } catch (const Error& error) {
    report_read_error(error);
    return false;
  }
}

bool Engine::has_room(std::size_t size, const Options& options) {
  batch_bytes_ = options.batch_bytes;
  batch_age_ = options.batch_age;
  const std::size_t pending = active_.bytes + committing_.bytes;
  return pending == 0 || pending + size <= batch_bytes_;
}

void Engine::wait_for_room(std::unique_lock<std::mutex>& lock, std::size_t size, const Options& options) {
  const auto fits = [&] { return has_room(size, options); };
  if (fits()) return;
  if (!start_committer()) throw no_committer();
  struct Waiting {  // lives with the lock held
    unsigned& count;
    explicit Waiting(unsigned& waiting) : count(waiting) { ++count; }
    ~Waiting() { --count; }
  } const waiting(waiting_puts_);
  pending_changed_.notify_one();
  const auto over = [&] { return fits() || failure_ || handed_over_; };
  if (!Patience::is_limited()) room_made_.wait(lock, over);
  for (Patience patience; !room_made_.wait_for(lock, Patience::kPause, over);) {
    lock.unlock();
    try {
      patience.check();
    } catch (...) {
      lock.lock();
      throw;
    }
    lock.lock();
  }
  require_here();
  if (!fits()) std::rethrow_exception(failure_);  // nothing was stored; what is pending stays pending
}

bool Engine::raise_last_access(const CacheKey& key, std::uint64_t last_access_ns) {
  const std::shared_ptr<Snapshot> snapshot = this->snapshot();
  const std::lock_guard lock(read_mutex_);
  const lmdb::ReadTransaction& transaction = snapshot->transaction();
  const Found found =
      look_up(transaction, transaction.get(Table::kRecords, record::PaddedKey(key.canonical()).bytes()), key);
  if (!found.record) return false;
  access_->touch(found.record->header.slot, std::min(last_access_ns, access_->next_stamp()));
  raised_ = true;
  return true;
}

void Engine::put_source_directory(std::string_view path, const SourceDirectory& files) {
  const std::lock_guard lock(pending_mutex_);
  require_here();
  note_first_pending();
  active_.directories.insert_or_assign(std::string(path), files);
}

void Engine::put_tokenizer_file(std::string_view path, const FileIdentity& identity, std::string_view sha) {
  const std::lock_guard lock(pending_mutex_);
  require_here();
  note_first_pending();
  active_.tokenizer_files.insert_or_assign(std::string(path),
                                           PendingTokenizerFile{identity, std::string(sha)});
}

void Engine::declare_tokenizer(std::string_view sha, const TokenizerTraits& traits, bool here_only) {
  {
    const std::lock_guard lock(read_mutex_);
    const auto value = lmdb::ReadTransaction(*environment_)
                           .get(Table::kMeta, rows::MetaKey::of_path(rows::Tag::kTraits, sha).bytes());
    if (value && rows::decode_traits(sha, *value) == traits) return;
    declared_.insert_or_assign(std::string(sha), traits);
  }
  if (here_only) return;
  const std::lock_guard lock(pending_mutex_);
  note_first_pending();
  active_.traits.insert_or_assign(std::string(sha), traits);
}

void Engine::save_manifest(std::string_view tokenizer_sha) {
  if (!tokenizer_sha.empty()) {
    const std::lock_guard lock(pending_mutex_);
    require_here();
    active_.tokenizer_sha = std::string(tokenizer_sha);
  }
  flush();
}

// With pending_mutex_ held, before anything is added: the age of a batch is that of its first part.
void Engine::note_first_pending() {
  if (active_.empty()) oldest_pending_ = std::chrono::steady_clock::now();
}

// ---- Commits ----

// Made when it is first needed, so that a process that only reads has one thread less.
bool Engine::start_committer() noexcept {
  if (committer_.joinable()) return true;
  try {
    committer_ = std::thread([this] { committer_loop(); });
    return true;
  } catch (const std::exception&) {
    return false;
  }
}

Error Engine::no_committer() const {
  return {Errc::kIo, fmt::format("{}: cannot start the thread that commits: too many threads, or no memory",
                                 root_.string())};
}

void Engine::committer_loop() {
  std::unique_lock lock(pending_mutex_);
  for (;;) {
    const auto ended = [&] { return stop_ || handed_over_; };
    pending_changed_.wait(lock, [&] { return ended() || !active_.empty(); });
    pending_changed_.wait_until(lock, oldest_pending_ + batch_age_, [&] {
      return ended() || waiting_puts_ > 0 || 2 * active_.bytes >= batch_bytes_;
    });
    if (ended()) return;
    if (active_.empty()) continue;
    lock.unlock();
    const bool failed = commit_in_background();
    lock.lock();
    // A full disk may have room again later.
    if (failed) pending_changed_.wait_for(lock, batch_age_, ended);
  }
}

bool Engine::commit_in_background() noexcept {
  const auto tell = [&](const char* why) {
    try {
      message(Severity::kWarning, fmt::format("{}; the puts are kept and tried again", why));
    } catch (const std::exception&) {
      // No memory to say it. The next flush() does, or the put that finds the batch full.
    }
    return true;
  };
  try {
    const std::lock_guard commit_lock(commit_mutex_);
    if (replaced()) {
      commit_elsewhere();
    } else {
      commit_pending(false, SaveRuns::kOwn);
    }
    return false;
  } catch (const Replaced&) {
    note_replaced();  // again, and then to the new file
    return false;
  } catch (const std::bad_alloc&) {
    return tell("out of memory");
  } catch (const std::exception& error) {
    return tell(error.what());
  }
}

Engine::Writing Engine::writer() {
  if (!writer_) {
    writer_ = std::make_unique<Writer>(*environment_, *access_, root_,
                                       [this](std::string_view text) { message(Severity::kWarning, text); });
  }
  return {keeper_, *writer_};
}

void Engine::with_own_writer(const Write& write) try { write(*writer()); } catch (const Replaced&) {
  note_new_file(Content::kLess);  // if it was this writer that made it
  throw;
}

void Engine::commit_pending(bool fold, SaveRuns save) {
  commit_pending(fold, save, [this](const Write& write) { with_own_writer(write); });
}

bool Engine::has_unsaved(SaveRuns save) const {
  const auto entries = access_->runs().entries();
  return std::any_of(entries.begin(), entries.end(), [&](const shm::RunTable::Entry& entry) {
    return entry.unsaved() && (save == SaveRuns::kAll || entry.own);
  });
}

void Engine::commit_pending(bool fold, SaveRuns save, const std::function<void(const Write&)>& with_writer) {
  const WithoutFileLimitSignal quiet;
  const bool raised = raised_.exchange(false);
  const bool unsaved = has_unsaved(save);
  {
    const std::lock_guard lock(pending_mutex_);
    // Only when memory ran out at the end of a commit that had failed.
    if (!committing_.empty()) active_.absorb(committing_, environment_->page_bytes());
    if (active_.empty() && !raised && !unsaved) return;
    std::swap(active_, committing_);
  }
  const auto now = std::chrono::steady_clock::now();
  fold = fold || now - last_fold_ > kFoldEvery;
  Writer::Keys done;
  bool elsewhere = false;
  std::exception_ptr ending;
  std::exception_ptr failure;
  bool interrupted = false;
  try {
    with_writer([&](Writer& writer) {
      elsewhere = &writer != writer_.get();
      writer.write(committing_, limits(), fold,
                   [&](const Writer::Keys& keys) { done.insert(done.end(), keys.begin(), keys.end()); });
    });
    if (fold) last_fold_ = now;
  } catch (const Replaced&) {
    ending = std::current_exception();
  } catch (const Error& error) {
    ending = std::current_exception();
    interrupted = error.code() == Errc::kInterrupted;
    if (!interrupted) failure = ending;
  } catch (const std::exception&) {
    ending = failure = std::current_exception();
  }
  {
    const std::lock_guard lock(pending_mutex_);
    ++commits_done_;
    const std::size_t page_bytes = environment_->page_bytes();
    failure_ = failure;
    if (ending) {
      for (const CacheKey* key : done) committing_.remove(*key, page_bytes);
      note_first_pending();
      active_.absorb(committing_, page_bytes);
    } else {
      if (elsewhere) {
        committing_.absorb(moved_, page_bytes);
        std::swap(moved_, committing_);
      }
      committing_ = Batch{};
    }
  }
  if (ending && raised) raised_ = true;
  room_made_.notify_all();
  if (interrupted) pending_changed_.notify_one();  // the commit thread goes on with it
  if (ending) std::rethrow_exception(ending);
}

void Engine::flush() {
  const auto lock = lock_patiently(commit_mutex_);
  if (handed_over()) throw Replaced{};
  commit_pending(true, SaveRuns::kOwn);
}

// ---- Removing, and new files ----

// Also what is no longer chosen when an entry's last access is `before` no more.
std::vector<Victim> Engine::chosen(const PruneOptions& options, std::uint64_t& before) {
  const lmdb::ReadTransaction transaction(*environment_);
  const rows::StoreRow store = read_store_row(transaction);
  if (options.keep_last_runs) {
    const std::vector<rows::RunRow> runs = read_runs(transaction);
    if (runs.size() < *options.keep_last_runs) return {};
    const rows::RunRow& oldest_kept = runs[runs.size() - *options.keep_last_runs];
    before = std::min(before, static_cast<std::uint64_t>(std::max<std::int64_t>(oldest_kept.started_ns, 0)));
  }
  std::uint32_t tokenizer = 0;
  if (options.tokenizer_sha) {
    TokenizerNames names;
    names.refresh(transaction, store.tokenizer_count);
    tokenizer = names.number(*options.tokenizer_sha);
    if (tokenizer == 0) return {};
  }
  const auto length = static_cast<std::uint32_t>(options.sequence_len.value_or(0));
  std::vector<Victim> victims = live_entries(transaction, store, *access_, [&](const rows::EntryRow& row) {
    return (tokenizer == 0 || row.tokenizer == tokenizer) && (length == 0 || row.sequence_len == length);
  });
  std::erase_if(victims, [&](const Victim& victim) { return victim.stamp >= before; });
  return victims;
}

void Engine::prune(const PruneOptions& options, PruneReport& report) {
  const WithoutFileLimitSignal quiet;
  std::uint64_t before = kNever;
  if (options.older_than) {
    const std::uint64_t now = os::now_ns();  // before any waiting: what is used meanwhile is not older
    const auto ago = static_cast<std::uint64_t>(std::max<std::int64_t>(options.older_than->count(), 0));
    before = ago < now ? now - ago : 0;
  }
  if (!options.dry_run) flush();
  const std::vector<Victim> victims = chosen(options, before);
  if (options.dry_run) {
    report.removed = victims.size();
    for (const Victim& victim : victims) report.bytes += victim.occupied;
    return;
  }
  std::span<const Victim> rest(victims);
  while (!rest.empty()) {
    {
      const auto lock = lock_patiently(commit_mutex_);
      rest = rest.subspan(writer()->remove(rest, before, limits(), report));
      note_new_file(Content::kLess);
    }
    if (!rest.empty()) std::this_thread::sleep_for(kTurn);
  }
}

std::uint64_t Engine::clear() {
  const WithoutFileLimitSignal quiet;
  const auto lock = lock_patiently(commit_mutex_);
  if (handed_over()) throw Replaced{};
  const std::uint64_t removed = writer()->clear(limits());
  std::uint64_t pending = 0;
  {
    const std::lock_guard pending_lock(pending_mutex_);
    pending = std::exchange(active_, Batch{}).new_entries;
    failure_ = nullptr;
  }
  note_new_file(Content::kLess);
  room_made_.notify_all();
  return pending + removed;
}

CompactReport Engine::compact() {
  const WithoutFileLimitSignal quiet;
  CompactReport report;
  {
    const auto lock = lock_patiently(commit_mutex_);
    if (handed_over()) throw Replaced{};
    commit_pending(true, SaveRuns::kOwn);
    report = writer()->compact(limits());
    note_new_file(Content::kSame);
  }
  // Who waited in vain has to come back by the new file. One that compacts in a loop shall not shut it out.
  std::this_thread::sleep_for(kTurn);
  return report;
}

void Engine::repair(VerifyReport& report) {
  if (report.structure_ok) {
    const CompactReport compacted = compact();
    report.saved = compacted.entries;
    report.lost = compacted.damaged;
    return;
  }
  const WithoutFileLimitSignal quiet;
  const auto lock = lock_patiently(commit_mutex_);
  if (handed_over()) throw Replaced{};
  note(writer()->repair(limits()), report);
  note_new_file(Content::kLess);
}

Writer::Lowered Engine::lower(std::uint64_t max_bytes, bool shrink, std::chrono::milliseconds lock_timeout) {
  const WithoutFileLimitSignal quiet;
  const auto lock = lock_patiently(commit_mutex_);
  const Writer::Lowered lowered = writer()->lower(max_bytes, shrink, {max_bytes, lock_timeout});
  note_new_file(lowered.removed == 0 ? Content::kSame : Content::kLess);
  return lowered;
}

}  // namespace tokcask
