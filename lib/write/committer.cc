#include "write/committer.h"

#include <fmt/format.h>

#include <algorithm>
#include <new>
#include <utility>

#include "os/clock.h"
#include "os/file_limit.h"
#include "os/patience.h"
#include "tables/check.h"

namespace tokcask {

namespace {

// How often access times are committed while commits happen anyway.
constexpr std::chrono::seconds kFoldEvery{30};

}  // namespace

Committer::Committer(const lmdb::Environment& environment, shm::AccessTable& access,
                     std::filesystem::path root, Host host)
    : environment_(&environment), access_(&access), root_(std::move(root)), host_(std::move(host)) {}

Committer::~Committer() {
  {
    const std::lock_guard lock(pending_mutex_);
    stop_ = true;
  }
  pending_changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

// ---- What is pending ----

bool Committer::has_room(const Tokens& tokens, const Options& options) {
  const std::lock_guard lock(pending_mutex_);
  return fits(record::record_bytes(tokens), options);
}

bool Committer::put(const CacheKey& key, const Tokens& tokens, const PutOptions& options,
                    const std::shared_ptr<Session>& session, Room room) {
  PendingPut put;
  put.tokens = PendingTokens::copy_of(tokens);
  put.session = session;
  const std::uint64_t now = os::now_ns();
  put.created_ns = std::min(options.created_ns.value_or(now), now);
  const std::size_t size = put.tokens.record_bytes();
  std::unique_lock lock(pending_mutex_);
  if (room == Room::kWait) {
    wait_for_room(lock, size, session->options);
  } else if (!fits(size, session->options)) {
    return false;
  }
  put.stamp = access_->next_stamp();
  session->note(key);
  session->used(put.stamp);
  if (options.last_access_ns && *options.last_access_ns < put.stamp) {
    put.stamp = std::max<std::uint64_t>(*options.last_access_ns, 1);  // 0 is for what has none
    put.dated = true;
  }
  if (!start_thread()) throw no_thread();
  note_first_pending();
  active_.add(key, std::move(put), environment_->page_bytes());
  count_pending();
  if (active_.puts.size() == 1 || 2 * active_.bytes >= batch_bytes_) pending_changed_.notify_one();
  return true;
}

bool Committer::fits(std::size_t size, const Options& options) {
  batch_bytes_ = options.batch_bytes;
  batch_age_ = options.batch_age;
  const std::size_t pending = active_.bytes + committing_.bytes;
  return pending == 0 || pending + size <= batch_bytes_;
}

void Committer::wait_for_room(std::unique_lock<std::mutex>& lock, std::size_t size, const Options& options) {
  const auto room = [&] { return fits(size, options); };
  if (room()) return;
  if (!start_thread()) throw no_thread();
  struct Waiting {  // lives with the lock held
    unsigned& count;
    explicit Waiting(unsigned& waiting) : count(waiting) { ++count; }
    ~Waiting() { --count; }
  } const waiting(waiting_puts_);
  pending_changed_.notify_one();
  const auto over = [&] { return room() || failure_; };
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
  if (!room()) std::rethrow_exception(failure_);  // nothing was stored; what is pending stays pending
}

void Committer::put_source_directory(std::string_view path, const SourceDirectory& files) {
  const std::lock_guard lock(pending_mutex_);
  note_first_pending();
  active_.directories.insert_or_assign(std::string(path), files);
}

void Committer::put_tokenizer_file(std::string_view path, const FileIdentity& identity,
                                   std::string_view sha) {
  const std::lock_guard lock(pending_mutex_);
  note_first_pending();
  active_.tokenizer_files.insert_or_assign(std::string(path),
                                           PendingTokenizerFile{identity, std::string(sha)});
}

void Committer::put_traits(std::string_view sha, const TokenizerTraits& traits) {
  const std::lock_guard lock(pending_mutex_);
  note_first_pending();
  active_.traits.insert_or_assign(std::string(sha), traits);
}

void Committer::put_tokenizer_sha(std::string_view sha) {
  const std::lock_guard lock(pending_mutex_);
  active_.tokenizer_sha = std::string(sha);
}

// Before anything is added: the age of a batch is that of its first part.
void Committer::note_first_pending() {
  if (active_.empty()) oldest_pending_ = std::chrono::steady_clock::now();
}

void Committer::count_pending() noexcept {
  pending_.store(active_.puts.size() + committing_.puts.size(), std::memory_order_release);
}

std::optional<TokenView> Committer::find(const CacheKey& key, bool touch) {
  // Who is told 0 takes a snapshot after this, which has what was committed before.
  if (pending_.load(std::memory_order_acquire) == 0) return std::nullopt;
  const std::lock_guard lock(pending_mutex_);
  for (Batch* const batch : {&active_, &committing_}) {
    const auto found = batch->puts.find(key);
    if (found == batch->puts.end()) continue;
    // The writer reads those of `committing_` without the lock.
    if (touch && batch == &active_) found->second.stamp = access_->next_stamp();
    const PendingTokens& put = found->second.tokens;
    return view_of(put.tokens, put.data);
  }
  return std::nullopt;
}

std::optional<SourceDirectory> Committer::source_directory(std::string_view path) {
  const std::lock_guard lock(pending_mutex_);
  for (const Batch* const batch : {&active_, &committing_}) {
    const auto found = batch->directories.find(path);
    if (found != batch->directories.end()) return found->second;
  }
  return std::nullopt;
}

std::optional<std::string> Committer::tokenizer_of_file(std::string_view path, const FileIdentity& identity) {
  const std::lock_guard lock(pending_mutex_);
  for (const Batch* const batch : {&active_, &committing_}) {
    const auto found = batch->tokenizer_files.find(path);
    if (found == batch->tokenizer_files.end()) continue;
    return found->second.identity == identity ? found->second.sha : std::string();
  }
  return std::nullopt;
}

void Committer::add_to(Stats& stats) {
  const std::size_t page_bytes = environment_->page_bytes();
  const std::lock_guard lock(pending_mutex_);
  active_.find_new(page_bytes, [&](const CacheKey& key) {
    return !committing_.puts.contains(key) && !host_.is_stored(key);
  });
  committing_.find_new(page_bytes, [&](const CacheKey& key) { return !host_.is_stored(key); });
  for (const Batch* const batch : {&active_, &committing_}) {
    stats.entry_count += batch->new_entries;
    stats.total_bytes += batch->new_bytes;
    stats.pending += batch->puts.size();
  }
  if (active_.tokenizer_sha) stats.tokenizer_sha = *active_.tokenizer_sha;
}

void Committer::take_pending(Committer& other) {
  const std::scoped_lock lock(pending_mutex_, other.pending_mutex_);
  if (other.active_.empty()) return;
  note_first_pending();
  batch_age_ = other.batch_age_;
  batch_bytes_ = other.batch_bytes_;
  active_.absorb(other.active_, environment_->page_bytes());
  count_pending();
  other.count_pending();
  start_thread();  // without one, the next put starts it, and flush() needs none
  pending_changed_.notify_one();
}

// ---- Commits ----

// Made when it is first needed, so that a process that only reads has one thread less.
bool Committer::start_thread() noexcept {
  if (thread_.joinable()) return true;
  try {
    thread_ = std::thread([this] { loop(); });
    return true;
  } catch (const std::exception&) {
    return false;
  }
}

Error Committer::no_thread() const {
  return {Errc::kIo, fmt::format("{}: cannot start the thread that commits: too many threads, or no memory",
                                 root_.string())};
}

void Committer::loop() {
  std::unique_lock lock(pending_mutex_);
  for (;;) {
    pending_changed_.wait(lock, [&] { return stop_ || !active_.empty(); });
    // An age beyond what the clock can count to means never.
    const auto age = std::min<std::chrono::milliseconds>(batch_age_, std::chrono::hours(24 * 365));
    pending_changed_.wait_until(lock, oldest_pending_ + age, [&] {
      return stop_ || waiting_puts_ > 0 || 2 * active_.bytes >= batch_bytes_;
    });
    if (stop_) return;
    if (active_.empty()) continue;
    lock.unlock();
    const bool failed = commit_in_background();
    lock.lock();
    // A full disk may have room again later.
    if (failed) pending_changed_.wait_for(lock, age, [&] { return stop_; });
  }
}

bool Committer::commit_in_background() noexcept {
  const auto tell = [&](const char* why) {
    try {
      host_.warn(fmt::format("{}; the puts are kept and tried again", why));
    } catch (const std::exception&) {
      // No memory to report it. The next flush() does, or the put that finds the batch full.
    }
    return true;
  };
  try {
    const std::lock_guard lock(commit_mutex_);
    commit(false, Save::kOwnRuns);
    return false;
  } catch (const std::bad_alloc&) {
    return tell("out of memory");
  } catch (const std::exception& error) {
    return tell(error.what());
  }
}

Writer& Committer::writer() {
  if (!writer_) writer_ = std::make_unique<Writer>(*environment_, *access_, root_, host_.warn);
  return *writer_;
}

bool Committer::has_unsaved(Save save) const {
  const auto entries = access_->runs().entries();
  return std::any_of(entries.begin(), entries.end(), [&](const shm::RunTable::Entry& entry) {
    return entry.unsaved() && (save == Save::kAllRuns || entry.own);
  });
}

// Moves what is pending to `committing_`; false where there is nothing to commit.
bool Committer::take_batch(bool raised, Save save) {
  const bool unsaved = has_unsaved(save);
  const std::lock_guard lock(pending_mutex_);
  // Only when memory ran out at the end of a commit that had failed.
  if (!committing_.empty()) active_.absorb(committing_, environment_->page_bytes());
  if (active_.empty() && !raised && !unsaved) return false;
  std::swap(active_, committing_);
  return true;
}

void Committer::commit(bool fold, Save save) {
  const WithoutFileLimitSignal quiet;
  const bool raised = raised_.exchange(false);
  if (!take_batch(raised, save)) return;
  const auto now = std::chrono::steady_clock::now();
  fold = fold || now - last_fold_ > kFoldEvery;
  Writer::Keys done;
  std::exception_ptr ending;
  std::exception_ptr failure;
  try {
    writer().write(committing_, host_.limits(), fold,
                   [&](const Writer::Keys& keys) { done.insert(done.end(), keys.begin(), keys.end()); });
    if (fold) last_fold_ = now;
  } catch (const Error& error) {
    ending = std::current_exception();
    if (error.code() != Errc::kInterrupted) failure = ending;
  } catch (const std::exception&) {
    ending = failure = std::current_exception();
  }
  end_commit(done, ending, failure);
  if (!ending) return;
  if (raised) raised_ = true;
  if (!failure) pending_changed_.notify_one();  // it was interrupted: the thread goes on with it
  std::rethrow_exception(ending);
}

void Committer::end_commit(const Writer::Keys& done, const std::exception_ptr& ending,
                           const std::exception_ptr& failure) {
  {
    const std::lock_guard lock(pending_mutex_);
    failure_ = failure;
    if (ending) {
      for (const CacheKey* key : done) committing_.remove(*key, environment_->page_bytes());
      note_first_pending();
      active_.absorb(committing_, environment_->page_bytes());
    } else {
      committing_ = Batch{};
    }
    count_pending();
  }
  room_made_.notify_all();
}

void Committer::flush(Save save) {
  const auto lock = lock_patiently(commit_mutex_);
  std::optional<lmdb::Environment::Closing> closing;
  if (save == Save::kAllRuns) closing.emplace(*environment_);
  commit(true, save);
}

void Committer::leave(Session& session) {
  const std::lock_guard lock(commit_mutex_);
  session.leave();
}

// ---- New files ----

CompactReport Committer::compact() {
  const WithoutFileLimitSignal quiet;
  const auto lock = lock_patiently(commit_mutex_);
  commit(true, Save::kOwnRuns);
  return writer().compact(host_.limits());
}

void Committer::repair(VerifyReport& report) {
  if (report.structure_ok) {
    const CompactReport compacted = compact();
    report.saved = compacted.entries;
    report.lost = compacted.damaged;
    return;
  }
  const WithoutFileLimitSignal quiet;
  const auto lock = lock_patiently(commit_mutex_);
  tokcask::add_to(report, writer().repair(host_.limits()));
}

Writer::Lowered Committer::lower(std::uint64_t max_bytes, bool shrink,
                                 std::chrono::milliseconds lock_timeout) {
  const WithoutFileLimitSignal quiet;
  const auto lock = lock_patiently(commit_mutex_);
  return writer().lower(max_bytes, shrink, {max_bytes, lock_timeout});
}

std::optional<FileId> Committer::new_file() {
  const std::lock_guard lock(commit_mutex_);
  return writer_ ? writer_->new_file() : std::nullopt;
}

}  // namespace tokcask
