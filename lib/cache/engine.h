// The engine: one open store in one process, shared by all handles and views of it there.
//
// Read side: snapshots. A look-up takes the newest one, and gives it up at its end unless a view keeps it; so
// an idle handle pins no pages. Write side: puts gather in a batch that a background thread commits, or a
// caller of flush(). get() looks into the batch first.
//
// Locks, in the order in which they may be nested: commit_mutex_, then the store's write lock (writer.h),
// then pending_mutex_ or read_mutex_. No lock is held while a snapshot's last owner lets go of it.
#pragma once

#include <sys/types.h>

#include <array>
#include <atomic>
#include <condition_variable>
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
#include <unordered_map>
#include <utility>
#include <vector>

#include <tokcask/entries.h>
#include <tokcask/error.h>
#include <tokcask/options.h>
#include <tokcask/stats.h>
#include <tokcask/survey.h>
#include <tokcask/tokens.h>

#include "cache/commit.h"
#include "cache/pending.h"
#include "cache/populator.h"
#include "cache/writer.h"
#include "lmdb/environment.h"
#include "record/key_list.h"
#include "shm/access_table.h"
#include "shm/key_table.h"

namespace tokcask {

class Engine;

// Why a record that is intact is not served all the same.
inline constexpr const char* kNotCurrent = "it is not the record that the entry table knows";

// What names a file for as long as anybody has it open.
using FileId = std::pair<dev_t, ino_t>;

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
  std::shared_ptr<Run> begin_run(const Options& options);
  // Commits what is pending and the run's figures. Throws what flush() throws, after the run has ended.
  void end_run(const std::shared_ptr<Run>& run);
  void message(Severity severity, std::string_view text);

  // ---- Reading ----
  std::optional<TokenView> get(const CacheKey& key, Run& run);
  std::vector<std::optional<TokenView>> get_many(std::span<const CacheKey> keys, Run& run);
  std::vector<bool> contains_many(std::span<const CacheKey> keys, Run& run);
  Stats stats(const Run& run);
  VerifyReport verify();
  std::optional<SourceDirectory> source_directory(std::string_view path);
  std::optional<std::string> tokenizer_of_file(std::string_view path, const FileIdentity& identity);

  // ---- Reading without a trace (engine_entries.cc) ----
  std::vector<CacheKey> keys(std::optional<std::string_view> tokenizer_sha,
                             std::optional<std::int32_t> sequence_len);
  EntryChunk entries(EntryPosition& position, const ChunkLimits& limits);
  std::vector<std::optional<Entry>> peek_many(std::span<const CacheKey> keys);
  StoreSurvey survey();  // engine_survey.cc

  // ---- Reading by place (engine_resolve.cc, prepared.cc) ----
  // The newest snapshot. While it is held its pages are not reused.
  std::shared_ptr<Snapshot> snapshot();
  // Looks every key up in one pass over one snapshot, reports what is damaged, and protects what it finds.
  Resolution resolve(const record::KeyList& keys);
  // data.mdb as this process has it mapped: LMDB's map, reserved once, so the address never changes.
  [[nodiscard]] const std::byte* map() const noexcept { return map_; }
  [[nodiscard]] std::uint64_t file_bytes() const { return environment_->file_bytes(); }
  // The entry rows of a chunk of slots as the snapshot has them (rows::EntryChunk), or null.
  const std::byte* entry_chunk(const Snapshot& snapshot, std::uint64_t number);
  std::uint32_t slot_count(const Snapshot& snapshot);
  // Whether a record may not be served that the store still has; see withheld_.
  [[nodiscard]] bool withholds() const noexcept { return withholds_.load(std::memory_order_relaxed); }
  [[nodiscard]] shm::AccessTable& access() noexcept { return *access_; }
  [[nodiscard]] const std::array<std::uint8_t, 16>& uuid() const noexcept { return uuid_; }
  [[nodiscard]] const std::filesystem::path& root() const noexcept { return root_; }
  // Reads parts of data.mdb into the page cache in the background.
  [[nodiscard]] Populator& populator() noexcept { return populator_; }

  // ---- Writing ----
  void put(const CacheKey& key, const Tokens& tokens, const PutOptions& options,
           const std::shared_ptr<Run>& run);
  bool raise_last_access(const CacheKey& key, std::uint64_t last_access_ns, Run& run);
  void put_source_directory(std::string_view path, const SourceDirectory& files);
  void put_tokenizer_file(std::string_view path, const FileIdentity& identity, std::string_view sha);
  void save_manifest(std::string_view tokenizer_sha);
  void flush();
  std::uint64_t prune(std::chrono::nanoseconds age);
  std::uint64_t clear();

 private:
  friend class Snapshot;

  // What a look-up found: a miss, a record that may be served, or one to be checked first.
  struct Found {
    std::optional<record::Record> record;
    const char* damage = nullptr;
    bool checked = false;
  };

  // Reading (engine_read.cc)
  void give_back(std::unique_ptr<lmdb::ReadTransaction> transaction) noexcept;
  // Both with read_mutex_ held.
  Found look_up(const lmdb::ReadTransaction& transaction, std::optional<lmdb::Bytes> value,
                const CacheKey& key) const;
  void remember_checked(const record::Header& header);
  std::optional<TokenView> pending_view(const CacheKey& key);
  // For each key that is there, in key order: its index, its record, and what keeps that alive. Counts and
  // touches.
  using Hit = std::function<void(std::size_t, TokenView)>;
  void look_up_many(std::span<const CacheKey> keys, bool with_tokens, Run& run, const Hit& hit);
  // Reads whole what was not checked yet, without the lock; what fails becomes damage. The rest is remembered
  // as checked.
  void check(std::span<Found> found);
  // What the store knows of a record that look_up() found, with read_mutex_ held.
  EntryInfo info_of(const lmdb::ReadTransaction& transaction, const CacheKey& key,
                    const record::Record& record) const;
  void report_damage(std::string_view key, const char* reason);
  void report_read_error(const Error& error);
  std::optional<std::vector<std::byte>> meta_row(const rows::MetaKey& key);

  // Writing (engine_write.cc)
  void note_first_pending();
  void start_committer();
  void committer_loop();
  void commit_pending(bool fold);  // with commit_mutex_ held
  Writer& writer();
  // Of all handles that write: the smallest budget, the shortest patience.
  WriteLimits limits();

  const std::filesystem::path root_;
  const FileId file_id_;
  const std::unique_ptr<lmdb::Environment> environment_;
  const unsigned generation_;  // see fork.h
  std::array<std::uint8_t, 16> uuid_{};
  const std::byte* map_ = nullptr;
  std::unique_ptr<shm::AccessTable> access_;
  Populator populator_;

  std::atomic<bool> told_private_{false};

  std::mutex read_mutex_;
  std::weak_ptr<Snapshot> current_;
  std::vector<std::unique_ptr<lmdb::ReadTransaction>> idle_;  // reset; each keeps a reader slot
  // By slot, the low half of the generation whose checksum this process has seen to be right; 0: none.
  std::vector<std::uint32_t> checked_;
  // By key hash, the generation of a record whose replacement was declined and that could not be removed: not
  // served by this process. Other processes see what was committed.
  std::unordered_map<std::uint64_t, std::uint64_t> withheld_;
  std::atomic<bool> withholds_{false};  // !withheld_.empty(), for who has no lock

  std::mutex message_mutex_;
  std::set<std::uint64_t> damage_told_;  // key hashes
  bool read_error_told_ = false;

  std::mutex runs_mutex_;
  Runs runs_;

  std::mutex commit_mutex_;
  std::unique_ptr<Writer> writer_;  // made by the first write: it creates a file
  std::chrono::steady_clock::time_point last_fold_{};

  std::mutex pending_mutex_;
  std::condition_variable pending_changed_;
  std::condition_variable room_made_;
  Batch active_;      // takes puts
  Batch committing_;  // being committed; read-only
  std::chrono::steady_clock::time_point oldest_pending_{};
  std::chrono::milliseconds batch_age_{0};  // of the handle that put last
  std::size_t batch_bytes_ = 0;
  std::optional<Error> failure_;  // of the last commit
  unsigned waiting_puts_ = 0;
  bool stop_ = false;
  std::thread committer_;
};

}  // namespace tokcask
