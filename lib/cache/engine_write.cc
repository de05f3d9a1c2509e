// The engine's write side: the pending batch and its commits.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "cache/clock.h"
#include "cache/engine.h"

namespace tokcask {

using lmdb::Table;

namespace {

// How often access times are committed while commits happen anyway.
constexpr std::chrono::seconds kFoldEvery{30};

}  // namespace

void Engine::put(const CacheKey& key, const Tokens& tokens, const PutOptions& options,
                 const std::shared_ptr<Run>& run) {
  PendingPut put;
  put.tokens = PendingTokens::copy_of(tokens);
  put.run = run;
  const std::uint64_t now = now_ns();
  put.created_ns = std::min(options.created_ns.value_or(now), now);
  const std::size_t size = put.tokens.record_bytes();
  bool stored = false;
  try {
    const std::shared_ptr<Snapshot> snapshot = this->snapshot();
    const std::lock_guard lock(read_mutex_);
    stored =
        snapshot->transaction().get(Table::kRecords, record::PaddedKey(key.canonical()).bytes()).has_value();
  } catch (const Error& error) {
    report_read_error(error);
  }

  std::unique_lock lock(pending_mutex_);
  batch_bytes_ = run->options.batch_bytes;
  batch_age_ = run->options.batch_age;
  const auto fits = [&] {
    const std::size_t pending = active_.bytes + committing_.bytes;
    return pending == 0 || pending + size <= batch_bytes_;
  };
  if (!fits()) {
    start_committer();
    ++waiting_puts_;
    pending_changed_.notify_one();
    room_made_.wait(lock, [&] { return fits() || failure_; });
    --waiting_puts_;
    if (!fits()) throw *failure_;  // nothing was stored; what is pending stays pending
  }
  put.is_new = !stored && committing_.puts.find(key) == committing_.puts.end();
  put.stamp = access_->next_stamp();
  run->note(key);
  run->used(put.stamp);
  if (options.last_access_ns && *options.last_access_ns < put.stamp) {
    put.stamp = std::max<std::uint64_t>(*options.last_access_ns, 1);  // 0 is for what has none
    put.dated = true;
  }
  note_first_pending();
  active_.add(key, std::move(put), environment_->page_bytes());
  start_committer();
  if (active_.puts.size() == 1 || 2 * active_.bytes >= batch_bytes_) pending_changed_.notify_one();
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
  note_first_pending();
  active_.directories.insert_or_assign(std::string(path), files);
}

void Engine::put_tokenizer_file(std::string_view path, const FileIdentity& identity, std::string_view sha) {
  const std::lock_guard lock(pending_mutex_);
  note_first_pending();
  active_.tokenizer_files.insert_or_assign(std::string(path),
                                           PendingTokenizerFile{identity, std::string(sha)});
}

void Engine::save_manifest(std::string_view tokenizer_sha) {
  if (!tokenizer_sha.empty()) {
    const std::lock_guard lock(pending_mutex_);
    active_.tokenizer_sha = std::string(tokenizer_sha);
  }
  flush();
}

// With pending_mutex_ held, before anything is added: the age of a batch is that of its first part.
void Engine::note_first_pending() {
  if (active_.empty()) oldest_pending_ = std::chrono::steady_clock::now();
}

// ---- Commits ----

// With pending_mutex_ held. Made when it is first needed, so that a process that only reads has one thread
// less.
void Engine::start_committer() {
  if (!committer_.joinable()) committer_ = std::thread([this] { committer_loop(); });
}

void Engine::committer_loop() {
  std::unique_lock lock(pending_mutex_);
  for (;;) {
    pending_changed_.wait(lock, [&] { return stop_ || !active_.empty(); });
    pending_changed_.wait_until(lock, oldest_pending_ + batch_age_, [&] {
      return stop_ || waiting_puts_ > 0 || 2 * active_.bytes >= batch_bytes_;
    });
    if (stop_) return;
    if (active_.empty()) continue;
    lock.unlock();
    std::optional<Error> failure;
    try {
      const std::lock_guard commit_lock(commit_mutex_);
      commit_pending(false, SaveRuns::kOwn);
    } catch (const Error& error) {
      failure = error;
    }
    if (failure) {
      message(Severity::kWarning, fmt::format("{}; the puts are kept and tried again", failure->what()));
    }
    lock.lock();
    // A full disk may have room again later.
    if (failure) pending_changed_.wait_for(lock, batch_age_, [&] { return stop_; });
  }
}

Writer& Engine::writer() {
  if (!writer_) {
    writer_ = std::make_unique<Writer>(
        *environment_, *access_, root_, [this](std::string_view text) { message(Severity::kWarning, text); },
        [this](const CacheKey& key, std::uint64_t generation) {
          const std::lock_guard lock(read_mutex_);
          withheld_[record::hash_key(key.canonical())] = generation;
          withholds_ = true;
        });
  }
  return *writer_;
}

bool Engine::has_unsaved(SaveRuns save) const {
  const auto entries = access_->runs().entries();
  return std::any_of(entries.begin(), entries.end(), [&](const shm::RunTable::Entry& entry) {
    return entry.unsaved() && (save == SaveRuns::kAll || entry.own);
  });
}

void Engine::commit_pending(bool fold, SaveRuns save) {
  const bool raised = raised_.exchange(false);
  const bool unsaved = has_unsaved(save);
  {
    const std::lock_guard lock(pending_mutex_);
    if (active_.empty() && !raised && !unsaved) return;
    std::swap(active_, committing_);
  }
  const auto now = std::chrono::steady_clock::now();
  fold = fold || now - last_fold_ > kFoldEvery;
  Writer::Keys done;
  std::optional<Error> failure;
  try {
    writer().write(committing_, limits(), fold,
                   [&](const Writer::Keys& keys) { done.insert(done.end(), keys.begin(), keys.end()); });
    if (fold) last_fold_ = now;
  } catch (const Error& error) {
    failure = error;
    if (raised) raised_ = true;
  }
  {
    const std::lock_guard lock(pending_mutex_);
    Batch rest = std::exchange(committing_, Batch{});
    failure_ = failure;
    if (failure) {
      for (const CacheKey* key : done) rest.remove(CacheKey(*key), environment_->page_bytes());
      note_first_pending();
      active_.absorb(std::move(rest), environment_->page_bytes());
    }
  }
  room_made_.notify_all();
  if (failure) throw *failure;
}

void Engine::flush() {
  const std::lock_guard lock(commit_mutex_);
  commit_pending(true, SaveRuns::kOwn);
}

std::uint64_t Engine::prune(std::chrono::nanoseconds age) {
  const std::uint64_t now = now_ns();  // before any waiting: what is used meanwhile is not older than `age`
  const auto ago = static_cast<std::uint64_t>(std::max<std::int64_t>(age.count(), 0));
  const std::lock_guard lock(commit_mutex_);
  commit_pending(true, SaveRuns::kOwn);
  return writer().remove_older(ago < now ? now - ago : 0, limits());
}

std::uint64_t Engine::clear() {
  const std::lock_guard lock(commit_mutex_);
  std::uint64_t pending = 0;
  {
    const std::lock_guard pending_lock(pending_mutex_);
    pending = std::exchange(active_, Batch{}).new_entries;
    failure_.reset();
  }
  room_made_.notify_all();
  return pending + writer().remove_all(limits());
}

}  // namespace tokcask
