// How a cache is opened. Every default is meant to be right; see each field for when it is not.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace tokcask {

enum class Severity { kInfo, kWarning };

// Receives one line without a newline. May be called from any thread, also from the commit thread, and must
// not call back into the cache.
using MessageSink = std::function<void(Severity, std::string_view)>;

// When a record's checksum is compared. Whatever the policy, a record is served only if its header fits its
// key and its size, and is the one that the entry table names.
enum class VerifyPolicy {
  kOff,     // never
  kFirst,   // at a process's first look-up of it
  kAlways,  // at each look-up: finds bits that flip in memory or on disk later, at the price of reading it
            // whole
};

struct Options {
  // Hard cap on the size of data.mdb, in bytes. Nothing: the one that the store was last given, and
  // kDefaultMaxBytes for a new store. A file that is larger is compacted when it is opened for writing, which
  // needs the store alone. If that does not do, Error(kInvalidArgument), and nothing is changed, unless
  // `shrink` is set. Values under kMinMaxBytes and over kMaxMaxBytes are refused.
  std::optional<std::uint64_t> max_bytes = {};
  static constexpr std::uint64_t kDefaultMaxBytes = std::uint64_t{10} << 30;
  // 64 pages of 4 KiB. A store with larger pages needs 64 of those, and says so when it is opened.
  static constexpr std::uint64_t kMinMaxBytes = 256 * 1024;
  static constexpr std::uint64_t kMaxMaxBytes = std::uint64_t{1} << 40;  // what is mapped

  // Where what is stored does not fit max_bytes, remove entries, those used least lately first, until it
  // does. An act of this open(): neither a child made by fork() nor who joins a run by `run_id` repeats it.
  bool shrink = false;

  // Open an existing store without ever taking its write lock. Absent: Error(kNotFound).
  bool read_only = false;

  // Belong to this run, if it is alive on this store: what it did and what it protects is then told for all
  // its processes together. 0, or a run that is not alive: begin one. Handles that were inherited through
  // fork() or pickled know their run by themselves; this is for processes that a launcher starts.
  std::uint64_t run_id = 0;

  // Protect what this handle's run uses from eviction, until the run ends. False: plain LRU, for a process
  // that never ends, as a server, where whatever its run ever used would stay, and puts be declined for ever.
  // Views stay valid, and while a run that protects is alive, what anybody used since that began stays. A run
  // protects while one of its handles has this set.
  bool protect_run = true;

  // Look without a trace: no run, no hits in the store's figures, no access times. Read-only.
  bool observe = false;

  // What a kill can cost: puts are committed when this many payload bytes are pending...
  std::uint64_t batch_bytes = std::uint64_t{64} << 20;
  // ... or when the oldest pending put is this old.
  std::chrono::milliseconds batch_age{1000};

  // How long a commit waits for another process's write lock before Error(kBusy).
  std::chrono::milliseconds lock_timeout{60'000};

  // Have all of data.mdb read into the page cache in the background, in file order: for a store that is about
  // to be read as a whole and is not in memory yet.
  bool populate = false;

  // Serve a key that has no entry from an entry of the same section and tokenizer at another sequence length,
  // where that provably holds the same ids; see TokenizedCache::declare_tokenizer(). Off: exact keys only.
  bool derive_lengths = true;

  VerifyPolicy verify = VerifyPolicy::kFirst;

  // Network file systems do not share memory maps and locks between hosts, so they are refused.
  bool allow_network_filesystem = false;

  // Where warnings go. Empty: one line each on standard error.
  MessageSink on_message = {};
};

// Which entries prune() removes: those of which all holds that is given. At least one must be.
struct PruneOptions {
  // The last access is longer ago than this.
  std::optional<std::chrono::nanoseconds> older_than = {};
  // The whole sha of the tokenizer.
  std::optional<std::string> tokenizer_sha = {};
  std::optional<std::int32_t> sequence_len = {};
  // Not used since the start of the oldest of the newest so many runs whose figures are recorded; at least 1.
  // While there are fewer runs, nothing is removed.
  std::optional<unsigned> keep_last_runs = {};
  // Only count what is committed; a read-only handle may do that.
  bool dry_run = false;
};

}  // namespace tokcask
