// The engine: one open store in one process, shared by all handles and views of it there.
//
// Reading: each call takes the newest snapshot for its thread (readers.h), after a look at what is pending.
// Writing: puts gather in a batch (committer.h), which the writer commits.
//
// No lock of this class is held while another one is taken, nor over reading, writing or waiting.
#pragma once

#include <array>
#include <atomic>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tokcask/entries.h>
#include <tokcask/error.h>
#include <tokcask/explain.h>
#include <tokcask/options.h>
#include <tokcask/stats.h>
#include <tokcask/survey.h>
#include <tokcask/tokens.h>

#include "engine/checked.h"
#include "engine/populator.h"
#include "engine/readers.h"
#include "files/store_files.h"
#include "lmdb/environment.h"
#include "record/key_list.h"
#include "shm/access_table.h"
#include "shm/key_table.h"
#include "tables/section_entries.h"
#include "write/committer.h"

namespace tokcask {

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

  // Saves what is left of a store that cannot be opened, and says how that went; nothing where it can be.
  static std::optional<Recovery> recover_if_unusable(const std::filesystem::path& root,
                                                     const Options& options);

  Engine(std::filesystem::path root, FileId file_id, std::unique_ptr<lmdb::Environment> environment);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  [[nodiscard]] const std::filesystem::path& root() const noexcept { return root_; }
  [[nodiscard]] const FileId& file_id() const noexcept { return file_id_; }
  // Of this very file: another one for each file that the store had.
  [[nodiscard]] const shm::Uuid& file_uuid() const noexcept { return file_uuid_; }
  [[nodiscard]] const lmdb::Environment& environment() const noexcept { return *environment_; }
  [[nodiscard]] shm::AccessTable& access() noexcept { return *access_; }
  [[nodiscard]] Committer& committer() noexcept { return committer_; }
  // Reads parts of data.mdb into the page cache in the background.
  [[nodiscard]] Populator& populator() noexcept { return populator_; }

  // ---- Handles ----
  // What a handle belongs to: this run, if it is alive; else that of the options; else, for a data set, the
  // newest living one of this process; else one that begins.
  struct RunChoice {
    std::optional<shm::RunRef> run;
    bool of_process = false;
  };
  std::shared_ptr<Session> begin_session(const Options& options, const RunChoice& choice);
  // Takes over the run of an engine whose file this one's has replaced.
  void adopt(const std::shared_ptr<Session>& session);
  // Commits what is pending and the figures of runs, and leaves the run. Throws what a flush throws, when all
  // that is done.
  void end_session(const std::shared_ptr<Session>& session);
  // Ends a run without writing.
  void leave(const std::shared_ptr<Session>& session);
  // Takes a run out of the list of those that have this engine.
  void forget(const std::shared_ptr<Session>& session);
  // Throws Error(kBusy) when this process has more than `handles` of them.
  void require_at_most(std::size_t handles);
  void message(Severity severity, std::string_view text);

  // ---- Looking up (engine_read.cc) ----
  std::optional<TokenView> get(const CacheKey& key, Session& session);
  std::vector<std::optional<TokenView>> get_many(std::span<const CacheKey> keys, Session& session);
  std::vector<bool> contains_many(std::span<const CacheKey> keys, Session& session);
  bool raise_last_access(const CacheKey& key, std::uint64_t last_access_ns);
  // The newest snapshot, for this thread.
  [[nodiscard]] Reading read();
  // The stamp of an access: not less than those that this process was given before. Threads share no word for
  // it.
  [[nodiscard]] std::uint64_t access_stamp() noexcept;

  // ---- Rows and figures (engine_rows.cc) ----
  Stats stats(const Session& session);
  std::vector<RunFigures> runs();
  std::optional<SourceDirectory> source_directory(std::string_view path);
  std::optional<std::string> tokenizer_of_file(std::string_view path, const FileIdentity& identity);
  // With `here_only`, for this process alone.
  void declare_tokenizer(std::string_view sha, const TokenizerTraits& traits, bool here_only);
  std::vector<std::string> tokenizers();
  std::vector<CacheKey> keys(std::optional<std::string_view> tokenizer_sha,
                             std::optional<std::int32_t> sequence_len);
  std::vector<std::string> source_directories();
  StoreSurvey survey();
  VerifyReport verify();  // verify.cc
  // Writes what is committed into a new store in `to`; see TokenizedCache::copy().
  CopyReport copy(const std::filesystem::path& to, const Options& options);

  // ---- Entries with what is known of them, without a trace (engine_entries.cc) ----
  EntryChunk entries(EntryPosition& position, const ChunkLimits& limits);
  std::vector<std::optional<Entry>> peek_many(std::span<const CacheKey> keys);

  // ---- Explaining (engine_explain.cc) ----
  Explanation explain(const CacheKey& key, const Session& session);
  std::array<std::uint64_t, kMissReasons> miss_reasons(Session& session);
  std::string miss_summary(Session& session);

  // ---- Reading by place (engine_resolve.cc, prepared.cc) ----
  // Looks every key up in one pass over one snapshot, reports what is damaged, and protects what it finds. Of
  // another sequence length where `derive_lengths`, and where that serves.
  Resolution resolve(const record::KeyList& keys, bool derive_lengths);
  // Protects what the places name, as resolve() does.
  void protect(std::span<const shm::Place> places) noexcept;
  // How many ids of an entry of another sequence length, which has `length`, serve `key`.
  std::optional<std::size_t> serves(const lmdb::ReadTransaction& transaction, const CacheKey& key,
                                    std::uint32_t stored_len, std::size_t length);

 private:
  class LookUp;

  // What a look-up found: a miss, a record that may be served, or one to be checked first.
  struct Found {
    std::optional<record::Record> record;
    const char* damage = nullptr;
    bool checked = false;
    // When it is an entry of another sequence length: its key, and how many of its ids serve.
    std::optional<std::pair<CacheKey, std::size_t>> served;
  };

  // With kOff a record that was seen to be current is as good as one that was checked.
  Found look_up(const lmdb::ReadTransaction& transaction, std::optional<lmdb::Bytes> value,
                const CacheKey& key, VerifyPolicy policy = VerifyPolicy::kFirst) const;
  // Reads whole what `policy` wants checked; what fails becomes damage. The rest is remembered as checked.
  void check(Found& found, VerifyPolicy policy = VerifyPolicy::kFirst) noexcept;
  // What is served of a record that was found.
  static TokenView view_of(const Found& found, const std::shared_ptr<const void>& owner);
  // For each key that is there: its index, its record, and what keeps that alive.
  using Hit = std::function<void(std::size_t, TokenView)>;
  void look_up_many(std::span<const CacheKey> keys, bool with_tokens, Session& session, const Hit& hit);
  EntryInfo info_of(const lmdb::ReadTransaction& transaction, const CacheKey& key,
                    const record::Record& record) const;
  [[nodiscard]] DeclaredTraits declared();
  void explain_misses(Session& session);
  void report_damage(std::string_view key, const char* reason);
  void report_read_error(const Error& error);
  void welcome(const Session& session, bool is_member) noexcept;
  WriteLimits limits();
  std::optional<std::vector<std::byte>> meta_row(const rows::MetaKey& key);
  [[nodiscard]] RunFigures figures_of(const rows::RunRow& row) const;
  [[nodiscard]] RunFigures last_run(std::uint64_t last_stored);

  const std::filesystem::path root_;
  const FileId file_id_;
  const std::unique_ptr<lmdb::Environment> environment_;
  shm::Uuid file_uuid_{};
  std::shared_ptr<shm::AccessTable> access_;  // shared with the runs
  Readers readers_;
  CheckedTable checked_;
  CheckedTable seen_;  // records whose generation alone was looked at, for handles that want no more
  Populator populator_;

  std::mutex runs_mutex_;
  std::vector<std::shared_ptr<Session>> sessions_;

  std::mutex told_mutex_;
  std::set<std::uint64_t> damage_told_;  // key hashes
  std::atomic<bool> read_error_told_{false};
  std::atomic<bool> private_told_{false};

  std::mutex declared_mutex_;
  DeclaredTraits declared_;  // that the store may not have yet

  Committer committer_;  // the last one: its thread uses all of this
};

}  // namespace tokcask
