#include <algorithm>
#include <limits>

#include "support.h"

namespace tokcask {
namespace {

using test::Array;
using test::refusal;
using test::Rows;

using Values = std::vector<std::int64_t>;

struct Padded {
  Values input_ids;
  Values attention_mask;
  Values labels;
};

// As pad_rows, element by element.
Padded reference(const Rows& rows, const Padding& padding, std::size_t columns) {
  Padded all;
  for (const Tokens& row : rows.tokens()) {
    const std::size_t n = row.input_ids.size();
    const std::size_t begin = padding.side == PaddingSide::kLeft ? columns - n : 0;
    for (std::size_t column = 0; column < columns; ++column) {
      const bool inside = column >= begin && column < begin + n;
      const std::int64_t id = inside ? row.input_ids[column - begin] : padding.token_id;
      const bool ignored = !inside || (padding.ignore_token && id == padding.token_id);
      all.input_ids.push_back(id);
      all.attention_mask.push_back(!inside                      ? 0
                                   : row.attention_mask.empty() ? 1
                                                                : row.attention_mask[column - begin]);
      all.labels.push_back(ignored ? -100 : id);
    }
  }
  return all;
}

std::size_t longest(const Rows& rows) {
  std::size_t most = 0;
  for (const Tokens& row : rows.tokens()) most = std::max(most, row.input_ids.size());
  return most;
}

// Some padding that the rows fit into, and how many columns it makes.
std::pair<Padding, std::size_t> random_padding(std::mt19937_64& random, std::size_t least) {
  Padding padding;
  padding.token_id = static_cast<std::int64_t>(random() % 4) - 1;
  padding.side = random() % 2 == 0 ? PaddingSide::kRight : PaddingSide::kLeft;
  padding.ignore_token = random() % 2 == 0;
  padding.multiple_of = std::vector<std::size_t>{1, 2, 3, 8, 64, 1000}[random() % 6];
  if (random() % 2 == 0 && least > 0) padding.columns = least + random() % 40;
  std::size_t columns = std::max(padding.columns, least);
  while (columns % padding.multiple_of != 0) ++columns;
  return {padding, columns};
}

}  // namespace

TEST_CASE("padded rows are what a plain loop makes of them") {
  const std::uint64_t seed = test::test_seed();
  INFO("TOKCASK_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  for (int round = 0; round < 400; ++round) {
    CAPTURE(round);
    const Rows rows(random, random() % 20);
    const auto [padding, columns] = random_padding(random, longest(rows));
    REQUIRE(padded_columns(rows.tokens(), padding) == columns);
    const Padded expected = reference(rows, padding, columns);
    const std::size_t size = rows.size() * columns;
    // Each array alone or with others, from any start.
    const auto wanted = random() % 8;
    Array<std::int64_t> ids((wanted & 1) != 0 ? 0 : size, random() % 8);
    Array<std::int64_t> mask((wanted & 2) != 0 ? 0 : size, random() % 8);
    Array<std::int64_t> labels((wanted & 4) != 0 ? 0 : size, random() % 8);
    pad_rows(rows.tokens(), padding,
             {.input_ids = ids.span(), .attention_mask = mask.span(), .labels = labels.span()});
    if (!ids.values().empty()) CHECK(ids.values() == expected.input_ids);
    if (!mask.values().empty()) CHECK(mask.values() == expected.attention_mask);
    if (!labels.values().empty()) CHECK(labels.values() == expected.labels);
    CHECK(ids.margins_untouched());
    CHECK(mask.margins_untouched());
    CHECK(labels.margins_untouched());
  }
}

TEST_CASE("an example, to the right and to the left") {
  const Rows rows({3, 0, 1});  // 1 2 3, none, 4
  Padding padding{.token_id = 9, .columns = 3, .multiple_of = 2};
  CHECK(padded_columns(rows.tokens(), padding) == 4);
  Values ids(12), mask(12), labels(12);
  const PaddedArrays out{.input_ids = ids, .attention_mask = mask, .labels = labels};
  pad_rows(rows.tokens(), padding, out);
  CHECK(ids == Values{1, 2, 3, 9, 9, 9, 9, 9, 4, 9, 9, 9});
  CHECK(mask == Values{1, 1, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0});
  CHECK(labels == Values{1, 2, 3, -100, -100, -100, -100, -100, 4, -100, -100, -100});
  padding.side = PaddingSide::kLeft;
  pad_rows(rows.tokens(), padding, out);
  CHECK(ids == Values{9, 1, 2, 3, 9, 9, 9, 9, 9, 9, 9, 4});
  CHECK(mask == Values{0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1});
}

TEST_CASE("what does not fit is refused, not cut") {
  const Rows rows({2, 17, 3});
  Values ids(48, 5);
  const Padding padding{.columns = 16};
  CHECK(refusal([&] { (void)padded_columns(rows.tokens(), padding); }) ==
        "row 1 has 17 tokens, which do not fit into 16");
  CHECK(refusal([&] { pad_rows(rows.tokens(), padding, {.input_ids = ids}); }) ==
        "row 1 has 17 tokens, which do not fit into 16");
  // Rounding makes room, but the length that was asked for is the limit.
  CHECK(refusal([&] { (void)padded_columns(rows.tokens(), {.columns = 16, .multiple_of = 5}); }) != "");
  CHECK(ids == Values(48, 5));
}

TEST_CASE("arguments that make no sense are refused before anything is written") {
  const Rows rows({2, 3});
  Values ids(6, 5), mask(5, 5), labels(6, 5);
  CHECK(refusal([&] { (void)padded_columns(rows.tokens(), {.multiple_of = 0}); }) ==
        "padding to a multiple of 0");
  constexpr std::size_t kMost = std::numeric_limits<std::size_t>::max();
  CHECK(refusal([&] { (void)padded_columns(rows.tokens(), {.columns = kMost - 1, .multiple_of = 1000}); }) !=
        "");
  CHECK(refusal([&] {
          pad_rows(rows.tokens(), {}, {.input_ids = ids, .attention_mask = mask, .labels = labels});
        }) == "attention_mask has 5 elements, but must have 2 x 3");
  // A product that wraps around to the right size.
  CHECK(refusal([&] { pad_rows(rows.tokens(), {.columns = kMost / 2 + 4}, {.labels = labels}); }) != "");
  std::vector<Tokens> irregular = rows.tokens();
  irregular[1].attention_mask = rows[0].input_ids;
  CHECK(refusal([&] { pad_rows(irregular, {}, {.input_ids = ids}); }) ==
        "attention_mask of row 1 has 2 elements, but its input_ids has 3");
  CHECK(ids == Values(6, 5));
  CHECK(labels == Values(6, 5));
}

TEST_CASE("no rows and rows without tokens") {
  CHECK(padded_columns({}, {}) == 0);
  CHECK(padded_columns({}, {.columns = 5, .multiple_of = 4}) == 8);
  const Rows rows({0, 0});
  CHECK(padded_columns(rows.tokens(), {.multiple_of = 8}) == 0);
  pad_rows(rows.tokens(), {}, {});
  Values ids(4);
  pad_rows(rows.tokens(), {.token_id = 7, .columns = 2}, {.input_ids = ids});
  CHECK(ids == Values(4, 7));
}

TEST_CASE("packed rows are what a plain loop makes of them") {
  const std::uint64_t seed = test::test_seed();
  INFO("TOKCASK_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  for (int round = 0; round < 400; ++round) {
    CAPTURE(round);
    const Rows rows(random, random() % 20);
    std::vector<std::size_t> ends;
    for (std::size_t end = 0; end < rows.size(); ends.push_back(end)) {
      end = std::min<std::size_t>(rows.size(), end + random() % 4);
    }
    std::size_t most = 0;
    std::vector<Values> ids, positions, labels;
    for (std::size_t bin = 0, row = 0; bin < ends.size(); ++bin) {
      for (Values* values : {&ids.emplace_back(), &positions.emplace_back(), &labels.emplace_back()})
        values->clear();
      for (; row < ends[bin]; ++row) {
        for (std::size_t i = 0; i < rows[row].input_ids.size(); ++i) {
          ids[bin].push_back(rows[row].input_ids[i]);
          positions[bin].push_back(static_cast<std::int64_t>(i));
          labels[bin].push_back(i == 0 ? -100 : rows[row].input_ids[i]);
        }
      }
      most = std::max(most, ids[bin].size());
    }
    const auto [padding, columns] = random_padding(random, most);
    REQUIRE(packed_columns(rows.tokens(), ends, padding) == columns);
    const auto expected = [&, columns = columns, padding = padding](std::vector<Values> bins,
                                                                    std::int64_t pad, bool ignore) {
      Values all;
      for (Values& bin : bins) {
        if (ignore && padding.ignore_token) std::ranges::replace(bin, padding.token_id, -100);
        const bool left = padding.side == PaddingSide::kLeft;
        bin.insert(left ? bin.begin() : bin.end(), columns - bin.size(), pad);
        all.insert(all.end(), bin.begin(), bin.end());
      }
      return all;
    };
    const std::size_t size = ends.size() * columns;
    Array<std::int64_t> out_ids(size, random() % 8), out_positions(size, random() % 8), out_labels(size);
    pad_packed(
        rows.tokens(), ends, padding,
        {.input_ids = out_ids.span(), .position_ids = out_positions.span(), .labels = out_labels.span()});
    CHECK(out_ids.values() == expected(ids, padding.token_id, false));
    CHECK(out_positions.values() == expected(positions, 0, false));
    CHECK(out_labels.values() == expected(labels, -100, true));
    CHECK(out_ids.margins_untouched());
    CHECK(out_positions.margins_untouched());
    CHECK(out_labels.margins_untouched());
  }
}

TEST_CASE("bins that do not hold all rows in order, or too much, are refused") {
  const Rows rows({2, 3, 4});
  const auto refused = [&](const std::vector<std::size_t>& ends, const Padding& padding = {}) {
    return refusal([&] { (void)packed_columns(rows.tokens(), ends, padding); });
  };
  CHECK(refused({1, 3}) == "");
  CHECK(refused({0, 3, 3}) == "");
  CHECK(refused({1, 2}) == "the bins hold 2 rows of 3");
  CHECK(refused({}) == "the bins hold 0 rows of 3");
  CHECK(refused({2, 1, 3}) == "bin 1 ends at row 1 of 3, but begins at row 2");
  CHECK(refused({4}) == "bin 0 ends at row 4 of 3, but begins at row 0");
  CHECK(refused({1, 3}, {.columns = 6}) == "bin 1 has 7 tokens, which do not fit into 6");
  const std::vector<std::size_t> ends{1, 3};
  Values ids(13);
  CHECK(refusal([&] { pad_packed(rows.tokens(), ends, {}, {.position_ids = ids}); }) ==
        "position_ids has 13 elements, but must have 2 x 7");
}

}  // namespace tokcask
