// Padded and packed rows.
#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include <tokcask/collate.h>
#include <tokcask/error.h>

#include "collate/rows.h"
#include "collate/widen.h"

namespace tokcask {
namespace {

using collate::loops;
using collate::Row;

// `holder` names what has `tokens`: "row 3".
void check_fits(const char* holder, std::size_t index, std::size_t tokens, const Padding& padding) {
  if (padding.columns == 0 || tokens <= padding.columns) return;
  throw Error(Errc::kInvalidArgument, fmt::format("{} {} has {} tokens, which do not fit into {}", holder,
                                                  index, tokens, padding.columns));
}

// Where in an array the tokens and the padding of one of its rows go.
class Target {
 public:
  Target(const Padding& padding, std::size_t row, std::size_t columns, std::size_t tokens)
      : tokens_(row * columns), padding_(tokens_ + tokens), padded_(columns - tokens) {
    if (padding.side == PaddingSide::kLeft) {
      padding_ = tokens_;
      tokens_ += padded_;
    }
  }

  // Writes the padding and returns where the first token belongs; null for an array that is not wanted.
  [[nodiscard]] std::int64_t* prepare(std::span<std::int64_t> array, std::int64_t value) const {
    if (array.empty()) return nullptr;
    loops().fill(array.data() + padding_, padded_, value);
    return array.data() + tokens_;
  }

 private:
  std::size_t tokens_;
  std::size_t padding_;
  std::size_t padded_;
};

void check_bins(std::size_t rows, std::span<const std::size_t> bin_ends) {
  std::size_t begin = 0;
  for (std::size_t i = 0; i < bin_ends.size(); ++i) {
    if (bin_ends[i] < begin || bin_ends[i] > rows) {
      throw Error(Errc::kInvalidArgument, fmt::format("bin {} ends at row {} of {}, but begins at row {}", i,
                                                      bin_ends[i], rows, begin));
    }
    begin = bin_ends[i];
  }
  if (begin != rows) {
    throw Error(Errc::kInvalidArgument, fmt::format("the bins hold {} rows of {}", begin, rows));
  }
}

// Calls visit(bin, its rows) for each bin.
template <typename Visit>
void for_each_bin(std::span<const Row> rows, std::span<const std::size_t> bin_ends, const Visit& visit) {
  std::size_t begin = 0;
  for (std::size_t i = 0; i < bin_ends.size(); ++i) {
    visit(i, rows.subspan(begin, bin_ends[i] - begin));
    begin = bin_ends[i];
  }
}

std::size_t tokens_of(std::span<const Row> rows) {
  std::size_t tokens = 0;
  for (const Row& row : rows) tokens += row.ids.size();
  return tokens;
}

std::size_t columns_of(std::span<const Row> rows, const Padding& padding) {
  std::size_t longest = 0;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    check_fits("row", i, rows[i].ids.size(), padding);
    longest = std::max(longest, rows[i].ids.size());
  }
  return collate::round_up(padding.columns == 0 ? longest : padding.columns, padding.multiple_of);
}

std::size_t columns_of(std::span<const Row> rows, std::span<const std::size_t> bin_ends,
                       const Padding& padding) {
  std::size_t longest = 0;
  for_each_bin(rows, bin_ends, [&](std::size_t bin, std::span<const Row> inside) {
    const std::size_t tokens = tokens_of(inside);
    check_fits("bin", bin, tokens, padding);
    longest = std::max(longest, tokens);
  });
  return collate::round_up(padding.columns == 0 ? longest : padding.columns, padding.multiple_of);
}

}  // namespace

std::size_t padded_columns(std::span<const Tokens> rows, const Padding& padding) {
  return columns_of(collate::taken(rows, padding), padding);
}

void pad_rows(std::span<const Tokens> given, const Padding& padding, const PaddedArrays& out) {
  const std::vector<Row> rows = collate::taken(given, padding);
  const std::size_t columns = columns_of(rows, padding);
  if (!out.labels.empty()) collate::check_loss(rows, padding);
  collate::check_size("input_ids", out.input_ids.size(), rows.size(), columns);
  collate::check_size("attention_mask", out.attention_mask.size(), rows.size(), columns);
  collate::check_size("labels", out.labels.size(), rows.size(), columns);
  // Row by row, so that the ids come from memory once.
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (i + 1 < rows.size()) collate::fetch_ahead(rows[i + 1]);
    const Row& row = rows[i];
    const std::size_t n = row.ids.size();
    const Target target(padding, i, columns, n);
    if (std::int64_t* const ids = target.prepare(out.input_ids, padding.token_id)) {
      loops().widen(row.ids.data(), n, ids);
    }
    if (std::int64_t* const mask = target.prepare(out.attention_mask, 0)) {
      if (row.mask.empty()) {
        loops().fill(mask, n, 1);
      } else {
        loops().widen(row.mask.data(), n, mask);
      }
    }
    if (std::int64_t* const labels = target.prepare(out.labels, kIgnoredLabel)) {
      collate::write_labels(row, 0, padding, labels);
    }
  }
}

std::size_t packed_columns(std::span<const Tokens> rows, std::span<const std::size_t> bin_ends,
                           const Padding& padding) {
  check_bins(rows.size(), bin_ends);
  return columns_of(collate::taken(rows, padding), bin_ends, padding);
}

void pad_packed(std::span<const Tokens> given, std::span<const std::size_t> bin_ends, const Padding& padding,
                const PackedArrays& out) {
  check_bins(given.size(), bin_ends);
  const std::vector<Row> rows = collate::taken(given, padding);
  const std::size_t columns = columns_of(rows, bin_ends, padding);
  if (!out.labels.empty()) collate::check_loss(rows, padding);
  collate::check_size("input_ids", out.input_ids.size(), bin_ends.size(), columns);
  collate::check_size("position_ids", out.position_ids.size(), bin_ends.size(), columns);
  collate::check_size("labels", out.labels.size(), bin_ends.size(), columns);
  for_each_bin(rows, bin_ends, [&](std::size_t bin, std::span<const Row> inside) {
    const Target target(padding, bin, columns, tokens_of(inside));
    std::int64_t* ids = target.prepare(out.input_ids, padding.token_id);
    std::int64_t* positions = target.prepare(out.position_ids, 0);
    std::int64_t* labels = target.prepare(out.labels, kIgnoredLabel);
    for (const Row& row : inside) {
      const std::size_t n = row.ids.size();
      if (ids != nullptr) {
        loops().widen(row.ids.data(), n, ids);
        ids += n;
      }
      if (positions != nullptr) {
        loops().count(positions, n);
        positions += n;
      }
      if (labels != nullptr) {
        collate::write_labels(row, 1, padding, labels);
        labels += n;
      }
    }
  });
}

}  // namespace tokcask
