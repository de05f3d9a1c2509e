// merge(): the entries of several stores in one.
//
//   auto out = tokcask::TokenizedCache::open("/data/all", {.max_bytes = std::uint64_t{100} << 30});
//   std::vector<tokcask::TokenizedCache> inputs;
//   inputs.push_back(tokcask::TokenizedCache::open("/data/part-1", {.read_only = true}));
//   const auto report = tokcask::merge(out, inputs);
//
// What becomes of an entry of an input:
//   its key is new        it is put, with the time it was made and its last access
//   same key, same tokens the one that is there stays, with the later last access of the two
//   same key, others      a conflict: what `out` has, or of the inputs the first named, stays as it is
// An entry that is damaged in an input, or has more ids than its sequence_len, is left out; one that is
// damaged in `out` is replaced.
//
// Nothing is remembered between runs: one that was stopped or killed is begun again, finds what it had
// merged, and ends where a single run would have. With a budget that does not hold everything, the entries
// that were used last are kept, as far as pages allow.
// Memory: a chunk of each input and a batch of puts, whatever the stores hold. Nothing else is pinned.
// The inputs and `out` may be in use by others. What another process puts under a key while that key is being
// merged may be replaced.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include <tokcask/cache.h>
#include <tokcask/export.h>

namespace tokcask {

struct MergeOptions {
  // Called now and then with the entries looked at so far and about how many there are in all. False: stop,
  // commit what was merged, and return. May be empty.
  std::function<bool(std::uint64_t done, std::uint64_t total)> on_progress = {};
};

// entries == merged + already_there + conflicts + declined, unless it was stopped.
struct MergeReport {
  std::uint64_t entries = 0;        // of the inputs, looked at
  std::uint64_t merged = 0;         // put
  std::uint64_t already_there = 0;  // in `out`, or merged from an input before, with the same tokens
  std::uint64_t newer_access = 0;   // of these, how many made the last access later
  std::uint64_t conflicts = 0;
  std::uint64_t damaged = 0;      // records of the inputs that were left out
  std::uint64_t declined = 0;     // not put, because the budget has no room for them
  std::uint64_t bytes_after = 0;  // total_bytes of `out`
  bool stopped = false;
  std::vector<std::string> conflicting;  // the keys of the first kMostNamed conflicts
  static constexpr std::size_t kMostNamed = 20;
};

// Merges `inputs` into `out` and flushes it. Throws Error(kInvalidArgument) and changes nothing if an input
// is the store that `out` is; otherwise what entries(), put() and flush() throw. What was committed by then
// stays.
[[nodiscard]] TOKCASK_API MergeReport merge(TokenizedCache& out, std::span<TokenizedCache> inputs,
                                            const MergeOptions& options = {});

}  // namespace tokcask
