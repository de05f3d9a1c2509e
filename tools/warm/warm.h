// Filling a store with the tokens of a corpus: one section per file.
//
// What is kept between runs, and what it saves:
//   - the index of files: a file whose stat(2) figures are the same is not read again;
//   - the tokenizer file's identity: a run without a miss does not load the tokenizer;
//   - the entries themselves: a section whose key is there is not tokenized again.
// All keys are looked up before anything is stored, so that entries this run needs are protected from being
// evicted for those it adds. A run may be killed at any time; the next one goes on with what was committed.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include <tokcask/cache.h>

#include "corpus/walk.h"
#include "tokenize/tokenizer.h"
#include "warm/monitor.h"

namespace tokcask::warm {

struct WarmOptions {
  std::string corpus;
  std::string tokenizer;
  std::int32_t sequence_len = 0;
  corpus::WalkOptions walk;
  unsigned jobs = 0;  // 0: all cores
  bool rehash = false;
};

struct WarmSeconds {
  double scan = 0;      // walking, reading, hashing, looking up
  double tokenize = 0;  // the tokenizer at work, its loading included
  double store = 0;     // handing tokens over, and waiting until all of it is durable
  double total = 0;
};

struct WarmFigures {
  std::uint64_t files = 0;     // regular files that the options let through
  std::uint64_t sections = 0;  // of these, text that was or could be tokenized
  std::uint64_t hits = 0;      // sections whose tokens were there, or came from an equal file of this run
  std::uint64_t derived = 0;   // of the hits, those served from an entry of another sequence length
  std::uint64_t misses = 0;
  std::array<std::uint64_t, kMissReasons> miss_reasons{};  // of all look-ups that found nothing
  std::uint64_t stored = 0;                                // sections tokenized and handed to the store
  std::uint64_t declined = 0;                              // of these, how many the budget had no room for
  std::uint64_t tokens = 0;                                // ids of the sections tokenized
  std::uint64_t files_read = 0;
  bool tokenizer_loaded = false;
  bool interrupted = false;
  std::string tokenizer_sha;
  corpus::WalkSkipped skipped;  // by the walk; files that could not be read are added to `unreadable`
  std::uint64_t binary = 0;
  std::uint64_t too_large = 0;
  corpus::NamedFiles not_utf8;
  WarmSeconds seconds;
  Stats store;  // after the last commit

  [[nodiscard]] double hit_rate() const noexcept {
    const std::uint64_t total = hits + misses;
    return total == 0 ? 0.0 : static_cast<double>(hits) / static_cast<double>(total);
  }
};

// Runs until done or until `monitor` says stop, then commits what there is. The cache stays open. Throws
// Error for a corpus or tokenizer that cannot be used, and for a store that cannot be written; what was
// committed by then stays.
[[nodiscard]] WarmFigures warm(TokenizedCache& cache, const WarmOptions& options,
                               const cli::TokenizerLoader& load, Monitor& monitor);

}  // namespace tokcask::warm
