// Figures of a cache, its runs, and its checks. Plain values.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <tokcask/export.h>

namespace tokcask {

enum class RunState {
  kAlive,
  kEnded,
  kKilled,  // the process that began it died without closing it
};

// "alive", "ended", "killed".
[[nodiscard]] TOKCASK_API std::string_view to_string(RunState state) noexcept;

// A run: what a process does between open() and close() of a handle, with all that its children and workers
// do for it. See Options::run_id.
struct RunFigures {
  std::uint64_t run_id = 0;     // 1 for the store's first run; 0 when there was none
  std::int64_t started_ns = 0;  // nanoseconds since the Unix epoch
  std::int64_t ended_ns = 0;    // 0 while the run is alive; when it was killed, its last activity
  RunState state = RunState::kAlive;
  std::int64_t last_active_ns = 0;  // the last look-up or put; 0: none yet
  std::uint64_t hits = 0;           // those that were derived included
  std::uint64_t derived = 0;        // served from an entry of another sequence length
  std::uint64_t misses = 0;
  std::uint64_t puts = 0;         // entries committed
  std::uint64_t declined = 0;     // puts declined because only protected entries were left to evict
  std::uint64_t evicted = 0;      // entries evicted to make room
  double tokenize_seconds = 0.0;  // as told by add_tokenize_seconds()
  std::uint64_t bytes_after = 0;  // total_bytes when its figures were last saved
  // Of the first key that was looked up or put: at most 64 bytes of its tokenizer's sha, and its length.
  // Empty and 0 before that.
  std::string tokenizer_sha;
  std::uint32_t sequence_len = 0;
  bool several_tokenizers = false;  // other tokenizers or lengths were used too

  [[nodiscard]] double hit_rate() const noexcept {
    const std::uint64_t total = hits + misses;
    return total == 0 ? 0.0 : static_cast<double>(hits) / static_cast<double>(total);
  }
};

// All of it is read in O(1).
struct Stats {
  std::uint64_t entry_count = 0;     // committed, plus pending keys that are not committed yet
  std::uint64_t total_bytes = 0;     // page bytes that live entries occupy
  std::uint64_t payload_bytes = 0;   // token ids (and irregular masks) of committed entries, 4 bytes each
  std::uint64_t file_bytes = 0;      // size of data.mdb
  std::uint64_t max_bytes = 0;       // the budget in force for this handle
  std::uint64_t last_max_bytes = 0;  // the budget of the handle that committed last; 0: none has
  std::uint64_t pending = 0;         // puts not committed yet
  std::uint64_t not_taken = 0;       // puts of this handle that try_put() did not take
  RunFigures run;                    // what this handle did so far, and the id of the run it belongs to
  RunFigures last_run;        // the newest run that did anything, this one included, with all its members
  std::string tokenizer_sha;  // as told by save_manifest(), or empty
};

// One finding of verify().
struct Damage {
  std::string key;  // canonical key, or empty when the damage is not inside one record
  std::string reason;
};

struct VerifyOptions {
  // Makes whole what was found to be damaged, as far as that goes.
  bool repair = false;
};

struct VerifyReport {
  std::uint64_t records = 0;     // records looked at
  std::uint64_t damaged = 0;     // of these, how many would be a miss
  bool structure_ok = true;      // pages, counts and tables agree
  std::vector<Damage> findings;  // at most kMaxFindings, the counts above are complete
  static constexpr std::size_t kMaxFindings = 100;
  // Of a repair; all that is above is what was found before it.
  bool repaired = false;    // something was damaged, and the store was checked again and is whole now
  std::uint64_t saved = 0;  // entries that the repaired store has
  std::uint64_t lost = 0;   // entries that could not be saved, as far as can be told
  std::string kept_as;  // the name of the damaged data file, where it was replaced by one of what is intact
};

// What compact() did.
struct CompactReport {
  std::uint64_t bytes_before = 0;  // size of data.mdb
  std::uint64_t bytes_after = 0;
  std::uint64_t entries = 0;  // in the new file
  std::uint64_t damaged = 0;  // records that were left out, because they could not have been served
};

// What copy() made.
struct CopyReport {
  std::uint64_t bytes = 0;    // size of the copy's data.mdb
  std::uint64_t entries = 0;  // in it
  std::uint64_t damaged = 0;  // records that were left out, because they could not have been served
};

// What prune() removed, or would have.
struct PruneReport {
  std::uint64_t removed = 0;  // entries
  std::uint64_t bytes = 0;    // page bytes that they occupied
};

}  // namespace tokcask
