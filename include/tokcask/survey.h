// What a store holds, summed up: by tokenizer and sequence length, by length of section, by last access.
//
// Plain values, of one snapshot: committed entries only. All times are nanoseconds since the Unix epoch.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tokcask {

// The entries of one tokenizer and one sequence length.
struct SurveyGroup {
  std::string tokenizer_sha;  // empty if the store has lost the name
  std::int32_t sequence_len = 0;
  std::uint64_t entries = 0;
  // Payload bytes / 4. Exact, but that an entry with a stored mask (one that is not all ones) counts the
  // mask's elements too, and up to 15 between ids and mask.
  std::uint64_t tokens = 0;
  std::uint64_t bytes = 0;  // of the pages that they occupy
  // When the entries that were put first and last were made, exact to the puts of one commit; 0: not known.
  std::uint64_t first_stored_ns = 0;
  std::uint64_t last_stored_ns = 0;
};

// Entries of more tokens than the bin before has and at most `up_to`, a power of two. The first bin's is 1.
struct LengthBin {
  std::uint64_t up_to = 1;
  std::uint64_t entries = 0;
  std::uint64_t bytes = 0;
};

// Entries whose last access is at least as long ago as the bin before says and less than `under_seconds`.
struct AgeBin {
  static constexpr std::uint64_t kNoLimit = ~std::uint64_t{0};
  std::uint64_t under_seconds = kNoLimit;
  std::uint64_t entries = 0;
  std::uint64_t bytes = 0;
};

struct StoreSurvey {
  std::uint64_t taken_ns = 0;       // when: ages are counted from here
  std::vector<SurveyGroup> groups;  // most bytes first
  std::vector<LengthBin> lengths;   // from 1 up to the longest entry; empty for an empty store
  std::vector<AgeBin> last_access;  // under a minute, an hour, a day, a week (7 d), a month (30 d), older
  AgeBin last_access_unknown;       // entries of which no access is known; they are evicted first
};

}  // namespace tokcask
