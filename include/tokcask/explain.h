// Why a look-up found nothing, and what lets an entry of one sequence length serve another. Plain values.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <tokcask/entries.h>
#include <tokcask/export.h>

namespace tokcask {

// What is known of the way in which a tokenizer truncates, for `truncation=True, padding=False`. To be
// declared only by who has established it: a wrong declaration makes wrong tokens. Nothing is assumed of a
// tokenizer of which nothing is declared.
struct TokenizerTraits {
  // A text that is cut gives exactly sequence_len ids. So an entry of fewer is a whole text, and serves every
  // length that it fits into.
  bool cuts_at_length = false;
  // What is left of a text that is cut is a prefix of the ids of the whole text: cut on the right, and no
  // special token comes after the text. So an entry serves every length not greater than its own.
  bool cuts_to_prefix = false;
  friend bool operator==(const TokenizerTraits&, const TokenizerTraits&) = default;
};

enum class MissReason : std::uint8_t {
  kNeverStored,     // as far as the store's history goes back
  kOtherTokenizer,  // the section is stored under another tokenizer, not under this one
  kOtherLength,     // the section is stored for this tokenizer at another sequence length that cannot serve
  kEvicted,         // to make room, or because the budget was lowered
  kPruned,
  kDeclined,  // its last put found no room
  kCleared,   // the store was cleared since it was made; what it held then is not known
  kDamaged,   // a record is there, and is not what was stored
};
inline constexpr std::size_t kMissReasons = 8;
// "never stored", "other tokenizer", ...
[[nodiscard]] TOKCASK_API std::string_view to_string(MissReason reason) noexcept;

// What a look-up of one key would find now, and why.
struct Explanation {
  bool found = false;
  bool derived = false;                          // found, in an entry of another sequence length
  MissReason reason = MissReason::kNeverStored;  // when not found
  std::string text;                              // for people: a sentence or two
  std::int64_t when_ns = 0;        // when it was stored, evicted, pruned, declined or cleared; 0: not known
  std::uint64_t run_id = 0;        // of the run that did that to it; 0: not known
  std::vector<EntryInfo> related;  // entries of the same section under other keys, in key order; at most 64
};

}  // namespace tokcask
