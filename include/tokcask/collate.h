// Rows of tokens as the int64 arrays that trainers take: padded, flattened or packed.
//
// Each layout has a function that says how large its arrays are and one that fills them. Which array belongs
// to what is told by names that the field has: input_ids, attention_mask, labels, position_ids.
//
// Rows are cut only where Padding says so; any other row that does not fit is an error. Masks go into padded
// rows; the other layouts have no place for them, and take all tokens.
//
// Labels are the ids of what is learned, and kIgnoredLabel elsewhere. Padding::loss names what says so.
//
// Ownership: rows and arrays are borrowed for the call. The arrays must not overlap the rows or one another.
// An array that is empty is not wanted, and not written; any other must have just the size that is stated.
//
// Errors: Error(kInvalidArgument), which names the row, before anything is written.
//
// Threads: pure functions without state. Any thread may call them, for the same rows too.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include <tokcask/export.h>
#include <tokcask/tokens.h>

namespace tokcask {

// The label that losses ignore.
inline constexpr std::int64_t kIgnoredLabel = -100;

enum class PaddingSide { kRight, kLeft };

struct Padding {
  std::int64_t token_id = 0;
  PaddingSide side = PaddingSide::kRight;
  // Tokens per row of the array, before they are rounded up to a multiple. 0: as many as the longest row has.
  std::size_t columns = 0;
  std::size_t multiple_of = 1;
  // Whether labels are kIgnoredLabel for tokens of the rows that equal token_id, too.
  bool ignore_token = false;

  // Of a row with more tokens than this its first so many are taken, or its last; labels, mask and spans
  // alike. 0: all.
  std::size_t max_tokens = 0;
  bool keep_end = false;

  // The parts of rows (parts.h) that say what is learned: a token is where all of them say so.
  //   spans    inside of one of the spans
  //   integer  from this index on: the tokens of a prompt; it may be beyond the end
  //   array    as long as the ids: these are the labels, of any integer type
  // "completion" is the integer "prompt_length" in rows that have no part of that name.
  // Each row must have each of them, or it is an error. None: all tokens are learned. Not given: the same,
  // but a row that has spans, or an array "labels", is an error, because it is likely that they are meant.
  std::optional<std::span<const std::string_view>> loss = {};
};

// Padded: one row of the array for each row. All arrays are [rows, padded_columns()], row-major.

[[nodiscard]] TOKCASK_API std::size_t padded_columns(std::span<const Tokens> rows, const Padding& padding);

struct PaddedArrays {
  std::span<std::int64_t> input_ids = {};
  std::span<std::int64_t> attention_mask = {};  // the row's mask, or ones; 0 where padded
  std::span<std::int64_t> labels = {};          // the ids; kIgnoredLabel where padded
};

TOKCASK_API void pad_rows(std::span<const Tokens> rows, const Padding& padding, const PaddedArrays& out);

// Flattened: all rows one after another, without padding between them, for attention kernels that are told
// where each sequence begins. Rows without tokens leave no trace. The total can be rounded up to
// padding.multiple_of; then each token of the padding is a sequence of its own, at position 0. columns and
// padding to the left make no sense here and are refused. So is a total that int32 cannot count.

struct FlatShape {
  std::size_t tokens = 0;     // padding included
  std::size_t sequences = 0;  // padding included
  std::size_t longest = 0;    // tokens of the longest sequence
};

[[nodiscard]] TOKCASK_API FlatShape flat_shape(std::span<const Tokens> rows, const Padding& padding);

struct FlatArrays {
  std::span<std::int64_t> input_ids = {};     // [tokens]
  std::span<std::int64_t> position_ids = {};  // [tokens]; from 0 in each sequence
  std::span<std::int64_t> labels = {};        // [tokens]; kIgnoredLabel for the first token of each sequence
  std::span<std::int32_t> cu_seqlens = {};    // [sequences + 1]; where each sequence begins, and the total
  std::span<std::int32_t> seq_idx = {};       // [tokens]; the number of the token's sequence
};

TOKCASK_API void flatten_rows(std::span<const Tokens> rows, const Padding& padding, const FlatArrays& out);

// Packed: several rows in each row of the array, a bin. Bin i holds the rows from bin_ends[i - 1], or 0, to
// bin_ends[i]; the last end is the number of rows. All arrays are [bins, packed_columns()], row-major.
//
// There is no attention mask: models find the sequences of a bin by the positions that restart, but only
// where they are given no mask.

[[nodiscard]] TOKCASK_API std::size_t packed_columns(std::span<const Tokens> rows,
                                                     std::span<const std::size_t> bin_ends,
                                                     const Padding& padding);

struct PackedArrays {
  std::span<std::int64_t> input_ids = {};
  std::span<std::int64_t> position_ids = {};  // from 0 in each row of tokens; 0 where padded
  std::span<std::int64_t> labels = {};  // kIgnoredLabel for the first token of each row and where padded
};

TOKCASK_API void pad_packed(std::span<const Tokens> rows, std::span<const std::size_t> bin_ends,
                            const Padding& padding, const PackedArrays& out);

// Which rows share a bin.
struct Packing {
  std::vector<std::uint32_t> rows;    // by their place in the lengths, bin by bin
  std::vector<std::size_t> bin_ends;  // as above
};

// Best fit decreasing: the longest row first, of equals the first; each into the bin whose space is the
// smallest that suffices, of equals the one that came to that space first; into a new bin where there is
// none. Rows without tokens are left out. A row longer than `capacity` is an error: it is neither split nor
// cut.
//
// Takes O(n log n) time and O(n) memory, whatever the capacity: 0.1 to 0.3 s for a million rows.
[[nodiscard]] TOKCASK_API Packing pack_best_fit_decreasing(std::span<const std::uint32_t> lengths,
                                                           std::size_t capacity);

}  // namespace tokcask
