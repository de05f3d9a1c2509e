// TokenizedCache: the store. Start here.
//
//   auto cache = tokcask::TokenizedCache::open("/data/tokens");
//   tokcask::CacheKey key(tokcask::section_id(text), tokenizer_sha, 2048);
//   if (const auto hit = cache.get(key)) use(hit->input_ids());
//   else cache.put(key, {.input_ids = tokenize(text)});
//
// Ownership: a TokenizedCache is a movable handle; one that was moved from is as if closed. Handles on one
// store in one process share one LMDB environment, which closes with the last handle and the last view.
// Threads: all members may be called from any thread at any time.
// Processes: any number may have the store open, readers and writers. After fork() the child's first call
// reopens the store; it never touches the environment it inherited, and puts that were pending at the fork
// belong to the parent alone. It belongs to its parent's run.
// Failure: see error.h. get and get_many never throw for what is in the store; damage is a miss and one
// warning.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tokcask/entries.h>
#include <tokcask/error.h>
#include <tokcask/explain.h>
#include <tokcask/export.h>
#include <tokcask/impl_ptr.h>
#include <tokcask/interrupt.h>
#include <tokcask/key.h>
#include <tokcask/options.h>
#include <tokcask/source_index.h>
#include <tokcask/stats.h>
#include <tokcask/survey.h>
#include <tokcask/tokens.h>

namespace tokcask {

class TOKCASK_API TokenizedCache {
 public:
  // Opens the store in directory `root`, or creates it. A store that is damaged, empty (a zero-byte file)
  // or of another format version is renamed to `<name>.set-aside-<n>` beside the new one, with a warning; the
  // new one has every entry that is intact. The last such file is kept.
  // Throws Error: kIo, kNotFound (read_only), kInvalidArgument, kUnsupported, kBusy.
  static TokenizedCache open(const std::filesystem::path& root, Options options = {});

  TokenizedCache(TokenizedCache&&) noexcept;
  TokenizedCache& operator=(TokenizedCache&&) noexcept;
  // Closes. A failing last commit is reported as a warning; call close() or flush() to have it thrown.
  ~TokenizedCache();

  // The entry under `key`, or nothing. Counts a hit or a miss, and records the access.
  [[nodiscard]] FoundTokens get(const CacheKey& key);

  // One result per key, in the order given; looked up in one pass over one snapshot.
  [[nodiscard]] std::vector<std::optional<TokenView>> get_many(std::span<const CacheKey> keys);

  // As get_many, but tells only whether each entry is there: tokens are not touched, unless somebody has
  // found a damaged record in the store since it was last rewritten or found whole by verify(): then they
  // are checked as get() checks them. Counts and records accesses the same.
  [[nodiscard]] std::vector<bool> contains_many(std::span<const CacheKey> keys);

  // The shas of the tokenizers that entries were made with, also when none of these is left.
  [[nodiscard]] std::vector<std::string> tokenizers();

  // The keys of all committed entries in key order, or of those of one tokenizer, one sequence length, or
  // both. One pass over the store's keys; tokens are not touched.
  [[nodiscard]] std::vector<CacheKey> keys(std::optional<std::string_view> tokenizer_sha = {},
                                           std::optional<std::int32_t> sequence_len = {});

  // The committed entries that follow `position` in key order, a chunk of them, and moves `position` behind
  // them. Every record is checked as get() checks it. Neither hits, misses nor access times change. What is
  // put behind the position before the walk is there may be in a later chunk. Throws Error(kDamaged, kIo)
  // where the store cannot be read.
  //   for (EntryPosition at;;) { const EntryChunk chunk = cache.entries(at); ...; if (chunk.end) break; }
  [[nodiscard]] EntryChunk entries(EntryPosition& position, const ChunkLimits& limits = {});

  // The committed entry under each key, or nothing; otherwise as entries().
  [[nodiscard]] std::vector<std::optional<Entry>> peek_many(std::span<const CacheKey> keys);

  // Stores a copy of `tokens`; an entry of the same key is replaced. One that has these very tokens stays, as
  // if it were put now, and takes no room. Visible to this process at once, to others after the next commit.
  // Throws Error(kInvalidArgument) and stores nothing for a mask of another length, and for more ids than the
  // key's sequence_len. May wait when the commit thread is behind. A put for which only protected entries
  // could be evicted is declined at commit: counted in stats(), explained once in a warning. `options` is for
  // entries that were made elsewhere and keep their times.
  void put(const CacheKey& key, const Tokens& tokens, const PutOptions& options = {});

  // As put(), but never waits: not for the write lock, for a commit, or for room in the batch. Returns
  // whether the entry is pending now; if not, it is counted in Stats::not_taken.
  bool try_put(const CacheKey& key, const Tokens& tokens);

  // Makes the last access of the committed entry under `key` not older than `last_access_ns` (now, if that is
  // in the future); no hit is counted. Returns whether there is such an entry.
  bool raise_last_access(const CacheKey& key, std::uint64_t last_access_ns);

  // As put for each. All are checked before any is stored: when one is refused, none of this call is, and
  // what was put before stays as it is.
  void put_many(std::span<const std::pair<CacheKey, Tokens>> entries);

  // Commits all pending puts and access times; returns when they would survive a power loss. Does nothing
  // through a read-only handle, which has nothing pending. Throws what went wrong, std::bad_alloc too; then
  // all that is not committed stays pending, as it does when the commit thread meets the same.
  void flush();

  // Flushes, ends the run, releases everything this handle holds. Idempotent. Views stay valid. Heeds no
  // InterruptScope.
  void close();

  // Declares how a tokenizer truncates, so that entries of one sequence length may serve look-ups of another.
  // Kept in the store, but through a read-only handle for this process only. Only for who has established it:
  // see explain.h.
  void declare_tokenizer(std::string_view tokenizer_sha, const TokenizerTraits& traits);

  // What a look-up of `key` would find in what is committed, and if nothing, why. Counts and touches nothing.
  // Reads every entry row when the section is stored under another tokenizer: 10 ms for a million.
  [[nodiscard]] Explanation explain(const CacheKey& key);
  // Why the look-ups of this handle that found nothing did so. By MissReason.
  [[nodiscard]] std::array<std::uint64_t, kMissReasons> miss_reasons();
  // The same for people, in one line; empty when there were none that nobody expects: kNeverStored, kPruned
  // and kCleared alone are nothing to tell. close() gives it as a warning.
  [[nodiscard]] std::string miss_summary();

  // Removes the entries that `options` choose, those of living runs too; what is pending is committed before.
  // The file keeps its size, and later entries use the space; compact() gives it back. Others get their turn
  // to write in between, so what they put meanwhile may stay. Throws Error(kInvalidArgument) when nothing is
  // chosen.
  PruneReport prune(const PruneOptions& options);
  // Removes entries whose last access is older than `age`; returns how many.
  std::uint64_t prune(std::chrono::nanoseconds age);
  // Removes every entry, also those of the current run and those pending, and what is remembered of
  // directories and tokenizers; returns how many entries. The file becomes small where nobody else has the
  // store open. Else the file keeps its size, and later entries use the space.
  std::uint64_t clear();

  // Writes the store into a new file, in key order and without gaps, and puts that file in the place of
  // data.mdb. Needs the store alone: no other process, and no other handle or data set of this process, has
  // it open; else Error(kBusy) says who has. Other threads' calls of this handle wait. Views stay valid, and
  // the space of the old file returns with the last of them. Records that are damaged are left out. Needs the
  // space of the new file beside the old one. Throws Error(kIo) when there is not that much; then the store
  // is as it was.
  CompactReport compact();

  // Writes what is committed into a new store in directory `to`, which must not hold a store: in key order
  // and without gaps, from one snapshot, while others read and write. What this handle has pending is
  // committed before, unless it is read-only. Damaged records are left out. Blocks for the time of writing it
  // all; the pages of the snapshot are not reused meanwhile. The copy is durable, and is another store: it
  // has no living runs. Throws Error(kInvalidArgument) when `to` holds a store, Error(kIo), Error(kBusy).
  CopyReport copy(const std::filesystem::path& to);

  // Checks every page, every record against its checksum, and the tables against each other, on one snapshot,
  // while others read and write. Neither hits, misses nor access times change.
  //
  // To repair needs the store alone, as compact() does: damaged records are left out of a new file; where
  // pages or tables are damaged, all that is intact is saved into a new file, and the old one is kept as
  // `kept_as`.
  // What was damaged is then a miss. Throws Error(kReadOnly, kBusy), and kIo when there is no room for the
  // new file; then the store is as it was.
  [[nodiscard]] VerifyReport verify(const VerifyOptions& options = {});

  // Remembers which tokenizer this store was last used with, and flushes.
  void save_manifest(std::string_view tokenizer_sha = {});

  [[nodiscard]] Stats stats();
  // The runs of the store that did anything, living ones included, newest first; at most the last 256.
  [[nodiscard]] std::vector<RunFigures> runs();
  // The run this handle belongs to, for Options::run_id in another process; 0 if it has none.
  [[nodiscard]] std::uint64_t run_id();
  // What the store holds, by tokenizer, length and last access. One pass over 40 bytes per committed entry,
  // on one snapshot; tokens are not touched, and neither hits, misses nor access times change.
  [[nodiscard]] StoreSurvey survey();
  // Adds to the run's figures the time that the caller spent tokenizing.
  void add_tokenize_seconds(double seconds);

  [[nodiscard]] const std::filesystem::path& root() const;

  // The files remembered for a directory (absolute path), or nothing. See source_index.h.
  [[nodiscard]] std::optional<SourceDirectory> source_directory(std::string_view path);
  // The paths of all directories of which files are remembered and committed, sorted bytewise.
  [[nodiscard]] std::vector<std::string> source_directories();
  // Replaces what is remembered for it. Pending until the next commit, like a put.
  void put_source_directory(std::string_view path, const SourceDirectory& files);

  // The canonical hash of the tokenizer in file `path`, if remembered for a file of this identity. Any text
  // may stand for a path: of a content, for instance, which needs no identity.
  [[nodiscard]] std::optional<std::string> tokenizer_of_file(std::string_view path,
                                                             const FileIdentity& identity);
  void remember_tokenizer_file(std::string_view path, const FileIdentity& identity,
                               std::string_view tokenizer_sha);

 private:
  class Impl;
  explicit TokenizedCache(std::unique_ptr<Impl> impl) noexcept;
  detail::ImplPtr<Impl> impl_;
};

// Checks the store in `root` as TokenizedCache::verify() does, also one that cannot be opened any more, and
// sets nothing aside unless it is to be repaired. Of `options` the time limit, the sink and what concerns
// file systems count. Throws Error as TokenizedCache::open() and verify() do, but not kDamaged.
[[nodiscard]] TOKCASK_API VerifyReport verify(const std::filesystem::path& root,
                                              const VerifyOptions& verify_options = {}, Options options = {});

}  // namespace tokcask
