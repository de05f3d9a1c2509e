// What is put and not committed yet, and who commits it.
//
// Puts gather in a batch. A thread of the committer's own, or a caller of flush(), hands the batch to the
// writer. While that goes on, puts gather in the next batch, and look-ups find the puts of both. What a
// commit could not write stays pending, before all that came later.
//
// Locks, in the order in which they may be nested: commit_mutex_, the store's write lock (writer.h),
// pending_mutex_. The last one is held for short: never over reading, writing or waiting.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string_view>
#include <thread>

#include <tokcask/entries.h>
#include <tokcask/error.h>
#include <tokcask/explain.h>
#include <tokcask/options.h>
#include <tokcask/source_index.h>
#include <tokcask/stats.h>
#include <tokcask/tokens.h>

#include "lmdb/environment.h"
#include "shm/access_table.h"
#include "write/pending.h"
#include "write/writer.h"

namespace tokcask {

// Threads: all members may be called concurrently. Never used in a child of the process that made it.
class Committer {
 public:
  struct Host {
    std::function<WriteLimits()> limits;  // of all handles that write
    std::function<void(std::string_view)> warn;
    std::function<bool(const CacheKey&)> is_stored;  // in the newest snapshot
  };
  Committer(const lmdb::Environment& environment, shm::AccessTable& access, std::filesystem::path root,
            Host host);
  // Drops what is pending.
  ~Committer();
  Committer(const Committer&) = delete;
  Committer& operator=(const Committer&) = delete;

  // ---- What is pending ----
  enum class Room {
    kWait,  // for room in the batch, if there is none
    kNow,   // or false is returned, and nothing is put
  };
  // Throws Error, also that of the last commit when the batch is full; then nothing was put.
  bool put(const CacheKey& key, const Tokens& tokens, const PutOptions& options,
           const std::shared_ptr<Session>& session, Room room);
  // Whether there is room for so many tokens now.
  [[nodiscard]] bool has_room(const Tokens& tokens, const Options& options);
  void put_source_directory(std::string_view path, const SourceDirectory& files);
  void put_tokenizer_file(std::string_view path, const FileIdentity& identity, std::string_view sha);
  void put_traits(std::string_view sha, const TokenizerTraits& traits);
  void put_tokenizer_sha(std::string_view sha);
  // Access times changed in shared memory that the next commit is to store.
  void note_raised() noexcept { raised_ = true; }

  // The tokens of a put that is not committed. With `touch` the look-up is an access. A commit that ends
  // meanwhile is visible to a snapshot that is taken afterwards.
  [[nodiscard]] std::optional<TokenView> find(const CacheKey& key, bool touch);
  [[nodiscard]] std::optional<SourceDirectory> source_directory(std::string_view path);
  // The sha, or an empty one where the file that is pending has another identity.
  [[nodiscard]] std::optional<std::string> tokenizer_of_file(std::string_view path,
                                                             const FileIdentity& identity);
  // Adds what is pending. Looks for each key in the store once.
  void add_to(Stats& stats);

  // Takes over what another one has pending, which is used no more.
  void take_pending(Committer& other);

  // ---- Commits ----
  enum class Save {
    kOwnRuns,  // figures of this process's runs that changed
    kAllRuns,
  };
  void flush(Save save = Save::kOwnRuns);
  // Has the last member of a run leave while no commit counts its puts.
  void leave(Session& session);

  // ---- Removing ----
  // What is added to `report` is done, also when it throws.
  void prune(const PruneOptions& options, PruneReport& report);
  std::uint64_t clear();

  // ---- New files: the caller holds the store alone, and uses this no more once there is a new file ----
  CompactReport compact();
  Writer::Lowered lower(std::uint64_t max_bytes, bool shrink, std::chrono::milliseconds lock_timeout);
  // Makes whole what verify() found, and adds to `report` what that saved.
  void repair(VerifyReport& report);
  [[nodiscard]] std::optional<FileId> new_file();

 private:
  // With pending_mutex_ held:
  [[nodiscard]] bool fits(std::size_t size, const Options& options);
  void wait_for_room(std::unique_lock<std::mutex>& lock, std::size_t size, const Options& options);
  void note_first_pending();
  void count_pending() noexcept;
  bool start_thread() noexcept;  // returns whether there is one

  [[nodiscard]] Error no_thread() const;
  void loop();
  // Returns whether it failed, after a warning.
  bool commit_in_background() noexcept;
  // With commit_mutex_ held:
  Writer& writer();
  void commit(bool fold, Save save);
  [[nodiscard]] bool take_batch(bool raised, Save save);
  void end_commit(const Writer::Keys& done, const std::exception_ptr& ending,
                  const std::exception_ptr& failure);
  [[nodiscard]] bool has_unsaved(Save save) const;

  const lmdb::Environment* environment_;
  shm::AccessTable* access_;
  const std::filesystem::path root_;
  const Host host_;

  std::mutex commit_mutex_;
  std::unique_ptr<Writer> writer_;  // made by the first write: it creates a file
  std::chrono::steady_clock::time_point last_fold_{};
  std::atomic<bool> raised_{false};

  std::mutex pending_mutex_;
  std::condition_variable pending_changed_;
  std::condition_variable room_made_;
  Batch active_;                         // takes puts
  Batch committing_;                     // being committed; read-only
  std::atomic<std::size_t> pending_{0};  // puts of both
  std::chrono::steady_clock::time_point oldest_pending_{};
  std::chrono::milliseconds batch_age_{0};  // of the handle that put last
  std::size_t batch_bytes_ = 0;
  std::exception_ptr failure_;  // of the last commit
  unsigned waiting_puts_ = 0;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace tokcask
