// The engine: one open store in one process, shared by all handles and views of it there.
//
// Read side: snapshots. A look-up takes the newest one, which is kept for the next look-ups, and given up
// when none comes and no view has it (keeper.h); so an idle handle pins no pages. Write side: puts gather in
// a batch that a background thread commits, or a caller of flush(). get() looks into the batch first.
//
// When data.mdb is replaced by a new file (see compact.h), a new engine belongs to that one. The old engine
// serves what it has until all have moved on, and lives as long as a view needs it. Handles move with their
// next call (hand_over); puts that nobody fetches are committed to the new file by the old engine's commit
// thread. Nothing is written to the old file any more.
//
// Locks, in the order in which they may be nested: the old engine's commit_mutex_ before the new one's, then
// the store's write lock (writer.h), then pending_mutex_ or read_mutex_. No lock is held while a snapshot's
// last owner lets go of it, and neither the write lock nor the last two while an engine is opened.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <tokcask/entries.h>
#include <tokcask/error.h>
#include <tokcask/explain.h>
#include <tokcask/options.h>
#include <tokcask/stats.h>
#include <tokcask/survey.h>
#include <tokcask/tokens.h>

#include "cache/commit.h"
#include "cache/history.h"
#include "cache/keeper.h"
#include "cache/pending.h"
#include "cache/populator.h"
#include "cache/relatives.h"
#include "cache/store_files.h"
#include "cache/writer.h"
#include "lmdb/environment.h"
#include "record/key_list.h"
#include "shm/access_table.h"
#include "shm/key_table.h"

namespace tokcask {

// Thrown by an engine whose file was replaced by another handle of this process: whoever catches it goes on
// with the engine of the new file. Never leaves Handle.
struct Replaced {};

class Engine;

// Why a record that is intact is not served all the same.
inline constexpr const char* kNotCurrent = "it is not the record that the entry table knows";

// A snapshot that look-ups and views share. Gives its transaction back to the engine, which it keeps open.
class Snapshot {
 public:
  Snapshot(std::shared_ptr<Engine> engine, std::unique_ptr<lmdb::ReadTransaction> transaction);
  ~Snapshot();
  Snapshot(const Snapshot&) = delete;
  Snapshot& operator=(const Snapshot&) = delete;
  [[nodiscard]] const lmdb::ReadTransaction& transaction() const noexcept { return *transaction_; }

 private:
  std::shared_ptr<Engine> engine_;
  std::unique_ptr<lmdb::ReadTransaction> transaction_;
};

// A view of a record; an empty mask stands for ones.
TokenView view_of(std::span<const std::int32_t> ids, std::span<const std::int32_t> mask,
                  std::shared_ptr<const void> owner);

// Where the records of a list of keys lie in one snapshot.
struct Resolution {
  std::uint64_t txnid = 0;
  std::int64_t data_mtime_ns = 0;  // of the file, looked at after the transaction had begun
  std::vector<shm::Place> places;
};

// Threads: all members may be called concurrently. Never used in a child of the process that made it.
class Engine : public std::enable_shared_from_this<Engine> {
 public:
  // The engine of the store in `root`: the one this process has, or a new one. The pages of the file are
  // walked first, unless it is the one that `inspected` names. See open.cc.
  static std::shared_ptr<Engine> open(const std::filesystem::path& root, const Options& options,
                                      const FileId* inspected = nullptr);

  Engine(std::filesystem::path root, FileId file_id, std::unique_ptr<lmdb::Environment> environment);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  [[nodiscard]] const FileId& file_id() const noexcept { return file_id_; }

  // ---- Handles ----
  // What a handle belongs to: this run, if it is alive; else that of the options; else, for a data set, the
  // newest living one of this process; else one that begins.
  struct RunChoice {
    std::optional<shm::RunRef> run;
    bool of_process = false;
  };
  std::shared_ptr<Run> begin_run(const Options& options, const RunChoice& choice);
  // Commits what is pending and the figures of runs, and leaves the run. Throws what flush() throws, when all
  // that is done.
  void end_run(const std::shared_ptr<Run>& run);
  void message(Severity severity, std::string_view text);
  void welcome(const Run& run, bool is_member) noexcept;
  void tell_cut() noexcept;

  // ---- Moving to a new file (engine_move.cc) ----
  // Whether data.mdb is another file than this engine's by now. Costs a load and, once a second, a stat.
  [[nodiscard]] bool replaced() noexcept;
  // The new file, if it was this engine that made it: it needs no inspection.
  [[nodiscard]] const FileId* made() const noexcept {
    return has_made_.load(std::memory_order_acquire) ? &made_ : nullptr;
  }
  // Whether this process has made a new file that lacks entries of this one: nothing may be read here any
  // more.
  [[nodiscard]] bool outdated() const noexcept { return outdated_.load(std::memory_order_acquire); }
  void note_replaced() noexcept { replaced_.store(true, std::memory_order_relaxed); }
  // Gives `next` what is pending, and `run`. From then on nothing can be put here. Returns false when `next`
  // is replaced itself, or when a commit is going on, unless `wait` is true.
  bool hand_over(Engine& next, const std::shared_ptr<Run>& run, bool wait);
  [[nodiscard]] bool handed_over();
  // Ends a run without writing.
  void leave(const std::shared_ptr<Run>& run);

  // ---- Reading ----
  std::optional<TokenView> get(const CacheKey& key, Run& run);
  std::vector<std::optional<TokenView>> get_many(std::span<const CacheKey> keys, Run& run);
  std::vector<bool> contains_many(std::span<const CacheKey> keys, Run& run);
  Stats stats(const Run& run);
  std::vector<RunFigures> runs();
  VerifyReport verify();  // verify.cc
  std::optional<SourceDirectory> source_directory(std::string_view path);
  std::optional<std::string> tokenizer_of_file(std::string_view path, const FileIdentity& identity);

  // ---- Reading without a trace (engine_entries.cc) ----
  std::vector<std::string> tokenizers();
  std::vector<CacheKey> keys(std::optional<std::string_view> tokenizer_sha,
                             std::optional<std::int32_t> sequence_len);
  std::vector<std::string> source_directories();
  EntryChunk entries(EntryPosition& position, const ChunkLimits& limits);
  std::vector<std::optional<Entry>> peek_many(std::span<const CacheKey> keys);
  StoreSurvey survey();  // engine_survey.cc

  // ---- Explaining (engine_explain.cc) ----
  Explanation explain(const CacheKey& key, const Run& run);
  std::string miss_summary(const Run& run);

  // ---- Reading by place (engine_resolve.cc, prepared.cc) ----
  // The newest snapshot. While it is held its pages are not reused.
  std::shared_ptr<Snapshot> snapshot();
  // Throws Error(kDamaged) when something that was read from the map was not there.
  void require_read() const { environment_->require_read(); }
  // Looks every key up in one pass over one snapshot, reports what is damaged, and protects what it finds. Of
  // another sequence length where `derive_lengths`, and where that serves.
  Resolution resolve(const record::KeyList& keys, bool derive_lengths);
  // Protects what the places name, as resolve() does.
  void protect(std::span<const shm::Place> places) noexcept;
  // data.mdb as this process has it mapped: LMDB's map, reserved once, so the address never changes.
  [[nodiscard]] const std::byte* map() const noexcept { return environment_->map(); }
  [[nodiscard]] std::uint64_t file_bytes() const { return environment_->file_bytes(); }
  [[nodiscard]] std::uint64_t page_bytes() const { return environment_->page_bytes(); }
  [[nodiscard]] std::int64_t modified_ns() const { return environment_->modified_ns(); }
  // The entry rows of a chunk of slots as the snapshot has them (rows::EntryChunk), or null.
  const std::byte* entry_chunk(const Snapshot& snapshot, std::uint64_t number);
  std::uint32_t slot_count(const Snapshot& snapshot);
  // The row of one slot, or nothing when it is damaged or not there.
  std::optional<rows::EntryRow> entry_row(const Snapshot& snapshot, std::uint32_t slot);
  // How many ids of an entry of another sequence length, which has `length`, serve `key`.
  std::optional<std::size_t> serves(const Snapshot& snapshot, const CacheKey& key, std::uint32_t stored_len,
                                    std::size_t length);
  [[nodiscard]] shm::AccessTable& access() noexcept { return *access_; }
  // Of this very file: another one for each file that the store had.
  [[nodiscard]] const shm::Uuid& file_uuid() const noexcept { return file_uuid_; }
  [[nodiscard]] const std::filesystem::path& root() const noexcept { return root_; }
  // Reads parts of data.mdb into the page cache in the background.
  [[nodiscard]] Populator& populator() noexcept { return populator_; }

  // ---- Writing ----
  // All throw Replaced, and have changed nothing, when data.mdb is another file; what was pending still is.
  void put(const CacheKey& key, const Tokens& tokens, const PutOptions& options,
           const std::shared_ptr<Run>& run) {
    static_cast<void>(put(key, tokens, options, run, true));
  }
  // As put(), but rather than wait it returns false, and counts that.
  bool try_put(const CacheKey& key, const Tokens& tokens, const std::shared_ptr<Run>& run);
  bool raise_last_access(const CacheKey& key, std::uint64_t last_access_ns);
  void put_source_directory(std::string_view path, const SourceDirectory& files);
  void put_tokenizer_file(std::string_view path, const FileIdentity& identity, std::string_view sha);
  // With `here_only`, for this process alone.
  void declare_tokenizer(std::string_view sha, const TokenizerTraits& traits, bool here_only);
  void save_manifest(std::string_view tokenizer_sha);
  void flush();
  // What it adds to `report` is done, also when it throws.
  void prune(const PruneOptions& options, PruneReport& report);
  std::uint64_t clear();
  CompactReport compact();
  // Makes whole what verify() found, and adds to `report` what that saved.
  void repair(VerifyReport& report);
  Writer::Lowered lower(std::uint64_t max_bytes, bool shrink, std::chrono::milliseconds lock_timeout);

 private:
  friend class Snapshot;

  // What a look-up found: a miss, a record that may be served, or one to be checked first.
  struct Found {
    std::optional<record::Record> record;
    const char* damage = nullptr;
    bool checked = false;
    // When it is an entry of another sequence length: its key, and how many of its ids serve.
    std::optional<std::pair<CacheKey, std::size_t>> served;
  };
  // Why there is nothing under a key, before its history is looked into.
  struct Missing {
    MissReason reason = MissReason::kNeverStored;
    std::string other_tokenizer;  // kOtherTokenizer: one that the section is stored under
    std::uint64_t when_ns = 0;
    std::uint64_t run_id = 0;
  };

  // Reading (engine_read.cc)
  void give_back(std::unique_ptr<lmdb::ReadTransaction> transaction) noexcept;
  // With read_mutex_ held. With kOff a record that was seen to be current is as good as one that was checked.
  Found look_up(const lmdb::ReadTransaction& transaction, std::optional<lmdb::Bytes> value,
                const CacheKey& key, VerifyPolicy policy = VerifyPolicy::kFirst) const;
  // What is served of a record that was found.
  static TokenView view_of(const Found& found, std::shared_ptr<const void> owner);
  // All that follow with read_mutex_ held too. An entry of another sequence length that serves `key`, or why
  // there is none.
  Found derive(const lmdb::ReadTransaction& transaction, Relatives& relatives, const CacheKey& key,
               const Options& options, Missing& missing);
  Missing why_missing(const lmdb::ReadTransaction& transaction, const CacheKey& key,
                      const std::vector<Relatives::Relative>& relatives);
  static std::string missing_text(const lmdb::ReadTransaction& transaction, const rows::StoreRow& store,
                                  const CacheKey& key, const Missing& missing,
                                  const std::vector<EntryInfo>& related, const TokenizerTraits& traits);
  std::optional<TokenView> pending_view(const CacheKey& key, const Run& run);
  // For each key that is there, in key order: its index, its record, and what keeps that alive. Counts and
  // touches.
  using Hit = std::function<void(std::size_t, TokenView)>;
  void look_up_many(std::span<const CacheKey> keys, bool with_tokens, Run& run, const Hit& hit);
  // Reads whole what `policy` wants checked, without the lock; what fails becomes damage. The rest is
  // remembered as checked.
  void check(std::span<Found> found, VerifyPolicy policy = VerifyPolicy::kFirst);
  // What the store knows of a record that look_up() found, with read_mutex_ held.
  EntryInfo info_of(const lmdb::ReadTransaction& transaction, const CacheKey& key,
                    const record::Record& record) const;
  void report_damage(std::string_view key, const char* reason);
  void report_read_error(const Error& error);
  std::optional<std::vector<std::byte>> meta_row(const rows::MetaKey& key);
  // Of a run that is in the store.
  [[nodiscard]] RunFigures figures_of(const rows::RunRow& row) const;
  [[nodiscard]] RunFigures last_run(std::uint64_t last_stored);

  // Writing (engine_write.cc)
  bool is_stored(const CacheKey& key);
  bool put(const CacheKey& key, const Tokens& tokens, const PutOptions& options,
           const std::shared_ptr<Run>& run, bool wait);
  // With pending_mutex_ held: whether the batch has room for `size` bytes more.
  [[nodiscard]] bool has_room(std::size_t size, const Options& options);
  // With pending_mutex_ held by `lock`: until it has.
  void wait_for_room(std::unique_lock<std::mutex>& lock, std::size_t size, const Options& options);
  void note_first_pending();
  // Returns whether there is one. With pending_mutex_ held.
  bool start_committer() noexcept;
  [[nodiscard]] Error no_committer() const;
  void committer_loop();
  // One commit of the commit thread. Returns whether it failed, after a warning.
  bool commit_in_background() noexcept;
  // With commit_mutex_ held. Without puts, only if figures have changed that are to be saved: those of this
  // process's runs, or of all.
  enum class SaveRuns { kOwn, kAll };
  void commit_pending(bool fold, SaveRuns save);
  [[nodiscard]] bool has_unsaved(SaveRuns save) const;
  // Where a batch is written: `write` is given the writer, with the commit lock of its engine held.
  using Write = std::function<void(Writer&)>;
  void with_own_writer(const Write& write);
  void commit_pending(bool fold, SaveRuns save, const std::function<void(const Write&)>& with_writer);
  // For the commit thread: the same, to the file that took the place of this engine's.
  void commit_elsewhere();
  enum class Content { kSame, kLess };
  void note_new_file(Content content);  // with commit_mutex_ held
  void require_here() const;            // with pending_mutex_ held
  std::vector<Victim> chosen(const PruneOptions& options, std::uint64_t& before);
  // The writer, for as long as one call of it takes.
  class Writing {
   public:
    Writing(Keeper& keeper, Writer& writer) : pause_(keeper), writer_(&writer) {}
    Writer* operator->() const { return writer_; }
    Writer& operator*() const { return *writer_; }

   private:
    const Keeper::Pause pause_;
    Writer* writer_;
  };
  Writing writer();
  // Of all handles that write: the smallest budget, the shortest patience.
  WriteLimits limits();

  const std::filesystem::path root_;
  const std::filesystem::path data_;
  const FileId file_id_;
  const std::unique_ptr<lmdb::Environment> environment_;
  const unsigned generation_;  // see fork.h
  shm::Uuid uuid_{};           // of the store
  shm::Uuid file_uuid_{};
  std::shared_ptr<shm::AccessTable> access_;  // shared with the runs
  Populator populator_;

  std::atomic<bool> told_private_{false};
  std::atomic<bool> told_cut_{false};

  std::atomic<bool> replaced_{false};
  std::atomic<std::uint64_t> replaced_seen_{0};  // the access table's count when this was looked into last
  std::atomic<std::int64_t> look_again_ns_{0};   // steady clock
  FileId made_{};                                // not changed once has_made_ is set
  std::atomic<bool> has_made_{false};
  std::atomic<bool> outdated_{false};

  std::mutex read_mutex_;
  std::weak_ptr<Snapshot> current_;
  Keeper keeper_;
  std::vector<std::unique_ptr<lmdb::ReadTransaction>> idle_;  // reset; each keeps a reader slot
  // By slot, the low half of the generation whose checksum this process has seen to be right; 0: none.
  std::vector<std::uint32_t> checked_;
  // The same of records whose generation alone was looked at, for handles that want no more.
  std::vector<std::uint32_t> seen_;
  DeclaredTraits declared_;  // that the store may not have yet
  History history_;

  std::mutex message_mutex_;
  std::set<std::uint64_t> damage_told_;  // key hashes
  bool read_error_told_ = false;

  std::mutex runs_mutex_;
  std::vector<std::shared_ptr<Run>> runs_;

  std::mutex commit_mutex_;
  std::unique_ptr<Writer> writer_;  // made by the first write: it creates a file
  std::chrono::steady_clock::time_point last_fold_{};
  std::atomic<bool> raised_{false};  // access times, by raise_last_access(): to be committed

  std::mutex pending_mutex_;
  std::condition_variable pending_changed_;
  std::condition_variable room_made_;
  Batch active_;      // takes puts
  Batch committing_;  // being committed; read-only
  // Went to the new file from here. Still shown to those who look here, until they have moved on.
  Batch moved_;
  bool handed_over_ = false;
  std::atomic<std::uint64_t> commits_done_{0};  // also those that failed
  std::chrono::steady_clock::time_point oldest_pending_{};
  std::chrono::milliseconds batch_age_{0};  // of the handle that put last
  std::size_t batch_bytes_ = 0;
  std::exception_ptr failure_;  // of the last commit
  unsigned waiting_puts_ = 0;
  bool stop_ = false;
  std::thread committer_;
};

}  // namespace tokcask
