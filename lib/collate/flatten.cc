// Flattened rows.
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <vector>

#include <tokcask/collate.h>
#include <tokcask/error.h>

#include "collate/rows.h"
#include "collate/widen.h"

namespace tokcask {
namespace {

using collate::loops;
using collate::Row;

// The sequences of `rows`, then the padding's, as visit(number, begin, row); without a row for padding.
template <typename Visit>
void for_each_sequence(std::span<const Row> rows, const FlatShape& shape, const Visit& visit) {
  std::size_t sequence = 0;
  std::size_t begin = 0;
  for (const Row& row : rows) {
    if (row.ids.empty()) continue;
    visit(sequence++, begin, &row);
    begin += row.ids.size();
  }
  for (; begin < shape.tokens; ++begin) visit(sequence++, begin, static_cast<const Row*>(nullptr));
}

void write_numbers(std::span<const Row> rows, const FlatShape& shape, const FlatArrays& out) {
  for_each_sequence(rows, shape, [&](std::size_t sequence, std::size_t begin, const Row* row) {
    if (!out.cu_seqlens.empty()) out.cu_seqlens[sequence] = static_cast<std::int32_t>(begin);
    if (!out.seq_idx.empty()) {
      std::fill_n(out.seq_idx.begin() + static_cast<std::ptrdiff_t>(begin),
                  row == nullptr ? 1 : row->ids.size(), static_cast<std::int32_t>(sequence));
    }
  });
  if (!out.cu_seqlens.empty()) out.cu_seqlens.back() = static_cast<std::int32_t>(shape.tokens);
}

FlatShape shape_of(std::span<const Row> rows, const Padding& padding) {
  if (padding.columns != 0)
    throw Error(Errc::kInvalidArgument, "flattened rows have no columns to be padded to");
  if (padding.side == PaddingSide::kLeft) {
    throw Error(Errc::kInvalidArgument, "flattened rows cannot be padded to the left");
  }
  FlatShape shape;
  std::size_t tokens = 0;
  for (const Row& row : rows) {
    const std::size_t n = row.ids.size();
    tokens += n;
    shape.sequences += n > 0 ? 1 : 0;
    shape.longest = std::max(shape.longest, n);
  }
  shape.tokens = collate::round_up(tokens, padding.multiple_of);
  if (shape.tokens > std::numeric_limits<std::int32_t>::max()) {
    throw Error(Errc::kInvalidArgument,
                fmt::format("{} tokens are more than int32 can count in one flattened batch", shape.tokens));
  }
  shape.sequences += shape.tokens - tokens;
  return shape;
}

}  // namespace

FlatShape flat_shape(std::span<const Tokens> rows, const Padding& padding) {
  return shape_of(collate::taken(rows, padding), padding);
}

void flatten_rows(std::span<const Tokens> given, const Padding& padding, const FlatArrays& out) {
  const std::vector<Row> rows = collate::taken(given, padding);
  const FlatShape shape = shape_of(rows, padding);
  if (!out.labels.empty()) collate::check_loss(rows, padding);
  collate::check_size("input_ids", out.input_ids.size(), 1, shape.tokens);
  collate::check_size("position_ids", out.position_ids.size(), 1, shape.tokens);
  collate::check_size("labels", out.labels.size(), 1, shape.tokens);
  collate::check_size("cu_seqlens", out.cu_seqlens.size(), 1, shape.sequences + 1);
  collate::check_size("seq_idx", out.seq_idx.size(), 1, shape.tokens);
  const auto at = [](std::span<std::int64_t> array, std::size_t begin) {
    return array.empty() ? nullptr : array.data() + begin;
  };
  for_each_sequence(rows, shape, [&](std::size_t /*sequence*/, std::size_t begin, const Row* row) {
    std::int64_t* const ids = at(out.input_ids, begin);
    std::int64_t* const positions = at(out.position_ids, begin);
    std::int64_t* const labels = at(out.labels, begin);
    const std::size_t n = row == nullptr ? 1 : row->ids.size();
    if (positions != nullptr) loops().count(positions, n);
    if (row == nullptr) {
      if (ids != nullptr) *ids = padding.token_id;
      if (labels != nullptr) *labels = kIgnoredLabel;
      return;
    }
    if (ids != nullptr) loops().widen(row->ids.data(), n, ids);
    if (labels != nullptr) collate::write_labels(*row, 1, padding, labels);
  });
  write_numbers(rows, shape, out);
}

}  // namespace tokcask
