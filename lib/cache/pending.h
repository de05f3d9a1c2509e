// What has been put and is not committed yet. Plain data; the engine guards it.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <tokcask/explain.h>
#include <tokcask/key.h>
#include <tokcask/options.h>
#include <tokcask/source_index.h>
#include <tokcask/stats.h>
#include <tokcask/tokens.h>

#include "record/record.h"

namespace tokcask {

// Why look-ups of a run found nothing. Threads: all members may be called concurrently.
class Missed {
 public:
  void add(MissReason reason, const CacheKey& key, std::string_view other_tokenizer);
  [[nodiscard]] std::array<std::uint64_t, kMissReasons> counts() const;
  // The tokenizer that a section of kOtherTokenizer was stored under, and the key that was asked for; of the
  // first such miss. Nothing if there was none.
  struct Example {
    std::string other_tokenizer;  // empty for another reason
    CacheKey key;
  };
  [[nodiscard]] std::optional<Example> example(MissReason reason) const;

 private:
  std::array<std::atomic<std::uint64_t>, kMissReasons> counts_{};
  mutable std::mutex mutex_;
  std::array<std::optional<Example>, kMissReasons> examples_;
};

// One handle's run: counters that any thread adds to, and what of them is already in the store.
struct Run {
  Options options;
  std::uint64_t start = 0;         // access stamp
  std::optional<std::size_t> row;  // in the access table
  std::atomic<std::uint64_t> hits{0};
  std::atomic<std::uint64_t> derived{0};  // of the hits
  std::atomic<std::uint64_t> misses{0};
  std::atomic<std::uint64_t> puts{0};
  std::atomic<std::uint64_t> declined{0};
  std::atomic<std::uint64_t> evicted{0};
  std::atomic<std::uint64_t> raised{0};  // access times, by raise_last_access(): to be committed
  std::atomic<std::int64_t> tokenize_ns{0};
  std::atomic<std::uint64_t> run_id{0};
  std::atomic<std::uint64_t> bytes_after{0};
  std::atomic<std::int64_t> ended_ns{0};
  std::atomic<bool> told_declined{false};
  Missed missed;
  std::uint64_t saved = 0;  // activity() at the last commit; used by the committing thread alone

  [[nodiscard]] RunFigures figures() const {
    RunFigures f;
    f.run_id = run_id;
    f.started_ns = static_cast<std::int64_t>(start);
    f.ended_ns = ended_ns;
    f.hits = hits;
    f.derived = derived;
    f.misses = misses;
    f.puts = puts;
    f.declined = declined;
    f.evicted = evicted;
    f.tokenize_seconds = static_cast<double>(tokenize_ns.load()) / 1e9;
    f.bytes_after = bytes_after;
    return f;
  }
  // Changes when any figure does, its end included. 0: nothing happened that is worth a row.
  [[nodiscard]] std::uint64_t activity() const {
    const std::uint64_t done =
        hits + misses + puts + declined + evicted + raised + static_cast<std::uint64_t>(tokenize_ns.load());
    return done == 0 || ended_ns == 0 ? done : done + 1;
  }
};

// The bytes of one put: ids, then a mask at record::mask_offset. 64-byte aligned; shared with views of it.
struct PendingTokens {
  std::shared_ptr<const std::int32_t[]> data;
  std::size_t length = 0;
  bool has_mask = false;

  static PendingTokens copy_of(const Tokens& tokens);
  [[nodiscard]] std::span<const std::int32_t> ids() const { return {data.get(), length}; }
  [[nodiscard]] std::span<const std::int32_t> mask() const {
    if (!has_mask) return {};
    return {data.get() + record::mask_offset(length) / sizeof(std::int32_t), length};
  }
  [[nodiscard]] std::size_t payload_bytes() const { return record::payload_bytes(length, has_mask); }
  [[nodiscard]] std::size_t record_bytes() const { return record::record_bytes(length, has_mask); }
};

struct PendingPut {
  PendingTokens tokens;
  std::shared_ptr<Run> run;
  std::uint64_t stamp = 0;  // its last access
  std::uint64_t created_ns = 0;
  bool dated = false;   // `stamp` is one of its own, not that of the put
  bool is_new = false;  // the key was not in the store when it was put
};

struct KeyHash {
  std::size_t operator()(const CacheKey& key) const noexcept { return record::hash_key(key.canonical()); }
};

struct PendingTokenizerFile {
  FileIdentity identity;
  std::string sha;
};

// What one commit writes.
struct Batch {
  std::unordered_map<CacheKey, PendingPut, KeyHash> puts;
  std::map<std::string, SourceDirectory, std::less<>> directories;
  std::map<std::string, PendingTokenizerFile, std::less<>> tokenizer_files;
  std::map<std::string, TokenizerTraits, std::less<>> traits;  // by tokenizer sha
  std::optional<std::string> tokenizer_sha;
  std::size_t bytes = 0;          // of records
  std::uint64_t dated = 0;        // puts with dated
  std::uint64_t new_entries = 0;  // puts with is_new
  std::uint64_t new_bytes = 0;    // that they will occupy

  [[nodiscard]] bool empty() const {
    return puts.empty() && directories.empty() && tokenizer_files.empty() && traits.empty() && !tokenizer_sha;
  }
  void add(CacheKey key, PendingPut put, std::size_t page_bytes);
  void remove(const CacheKey& key, std::size_t page_bytes);
  // Takes over what `older` has and this does not.
  void absorb(Batch older, std::size_t page_bytes);
};

// Page bytes that an entry occupies: its overflow pages and its leaf node, or the node with the value inside.
[[nodiscard]] std::uint64_t occupied_bytes(std::size_t canonical_bytes, std::size_t record_bytes,
                                           std::size_t page_bytes) noexcept;

}  // namespace tokcask
