#include <algorithm>
#include <limits>

#include "support.h"

namespace tokcask {
namespace {

using test::Array;
using test::refusal;
using test::Rows;

struct Flat {
  std::vector<std::int64_t> input_ids;
  std::vector<std::int64_t> position_ids;
  std::vector<std::int64_t> labels;
  std::vector<std::int32_t> cu_seqlens{0};
  std::vector<std::int32_t> seq_idx;
  std::size_t longest = 0;
};

// As flatten_rows, element by element.
Flat reference(const Rows& rows, const Padding& padding) {
  Flat flat;
  const auto add = [&](std::span<const std::int64_t> ids, bool is_padding) {
    if (ids.empty()) return;
    for (std::size_t i = 0; i < ids.size(); ++i) {
      const bool ignored = i == 0 || is_padding || (padding.ignore_token && ids[i] == padding.token_id);
      flat.input_ids.push_back(ids[i]);
      flat.position_ids.push_back(static_cast<std::int64_t>(i));
      flat.labels.push_back(ignored ? -100 : ids[i]);
      flat.seq_idx.push_back(static_cast<std::int32_t>(flat.cu_seqlens.size()) - 1);
    }
    flat.cu_seqlens.push_back(static_cast<std::int32_t>(flat.input_ids.size()));
    flat.longest = std::max(flat.longest, ids.size());
  };
  for (const Tokens& row : rows.tokens()) {
    add(std::vector<std::int64_t>(row.input_ids.begin(), row.input_ids.end()), false);
  }
  while (flat.input_ids.size() % padding.multiple_of != 0) add(std::vector{padding.token_id}, true);
  return flat;
}

}  // namespace

TEST_CASE("flattened rows are what a plain loop makes of them") {
  const std::uint64_t seed = test::test_seed();
  INFO("TOKCASK_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  for (int round = 0; round < 400; ++round) {
    CAPTURE(round);
    const Rows rows(random, random() % 20);
    const Padding padding{.token_id = static_cast<std::int64_t>(random() % 4) - 1,
                          .multiple_of = std::vector<std::size_t>{1, 2, 3, 8, 64, 1000}[random() % 6],
                          .ignore_token = random() % 2 == 0};
    const Flat expected = reference(rows, padding);
    const FlatShape shape = flat_shape(rows.tokens(), padding);
    REQUIRE(shape.tokens == expected.input_ids.size());
    REQUIRE(shape.sequences + 1 == expected.cu_seqlens.size());
    CHECK(shape.longest == expected.longest);
    // Each array alone or with others, from any start.
    const auto wanted = random() % 32;
    const auto size = [&](int bit, std::size_t n) { return (wanted >> bit & 1) != 0 ? 0 : n; };
    Array<std::int64_t> ids(size(0, shape.tokens), random() % 8);
    Array<std::int64_t> positions(size(1, shape.tokens), random() % 8);
    Array<std::int64_t> labels(size(2, shape.tokens), random() % 8);
    Array<std::int32_t> seqlens(size(3, shape.sequences + 1), random() % 8);
    Array<std::int32_t> numbers(size(4, shape.tokens), random() % 8);
    flatten_rows(rows.tokens(), padding,
                 {.input_ids = ids.span(),
                  .position_ids = positions.span(),
                  .labels = labels.span(),
                  .cu_seqlens = seqlens.span(),
                  .seq_idx = numbers.span()});
    if (!ids.values().empty()) CHECK(ids.values() == expected.input_ids);
    if (!positions.values().empty()) CHECK(positions.values() == expected.position_ids);
    if (!labels.values().empty()) CHECK(labels.values() == expected.labels);
    if (!seqlens.values().empty()) CHECK(seqlens.values() == expected.cu_seqlens);
    if (!numbers.values().empty()) CHECK(numbers.values() == expected.seq_idx);
    CHECK(ids.margins_untouched());
    CHECK(positions.margins_untouched());
    CHECK(labels.margins_untouched());
    CHECK(seqlens.margins_untouched());
    CHECK(numbers.margins_untouched());
  }
}

TEST_CASE("an example, with padding") {
  const Rows rows({2, 0, 3});  // 1 2, none, 3 4 5
  const Padding padding{.token_id = 9, .multiple_of = 4};
  const FlatShape shape = flat_shape(rows.tokens(), padding);
  CHECK(shape.tokens == 8);
  CHECK(shape.sequences == 5);
  CHECK(shape.longest == 3);
  std::vector<std::int64_t> ids(8), positions(8), labels(8);
  std::vector<std::int32_t> seqlens(6), numbers(8);
  flatten_rows(rows.tokens(), padding,
               {.input_ids = ids,
                .position_ids = positions,
                .labels = labels,
                .cu_seqlens = seqlens,
                .seq_idx = numbers});
  CHECK(ids == std::vector<std::int64_t>{1, 2, 3, 4, 5, 9, 9, 9});
  CHECK(positions == std::vector<std::int64_t>{0, 1, 0, 1, 2, 0, 0, 0});
  CHECK(labels == std::vector<std::int64_t>{-100, 2, -100, 4, 5, -100, -100, -100});
  CHECK(seqlens == std::vector<std::int32_t>{0, 2, 5, 6, 7, 8});
  CHECK(numbers == std::vector<std::int32_t>{0, 0, 1, 1, 1, 2, 3, 4});
}

TEST_CASE("rows without tokens leave no trace, and no padding") {
  const Rows rows({0, 0});
  const FlatShape shape = flat_shape(rows.tokens(), {.multiple_of = 8});
  CHECK(shape.tokens == 0);
  CHECK(shape.sequences == 0);
  CHECK(shape.longest == 0);
  std::vector<std::int32_t> seqlens{7};
  flatten_rows(rows.tokens(), {}, {.cu_seqlens = seqlens});
  CHECK(seqlens == std::vector<std::int32_t>{0});
}

TEST_CASE("a total that int32 cannot count is refused") {
  // One row many times, so that it takes no memory to speak of.
  const Rows million({1'000'000});
  std::vector<Tokens> rows(2147, million[0]);
  CHECK(flat_shape(rows, {}).tokens == 2'147'000'000);
  CHECK(refusal([&] { (void)flat_shape(rows, {.multiple_of = 1'000'000'000}); }) ==
        "3000000000 tokens are more than int32 can count in one flattened batch");
  rows.push_back(million[0]);
  CHECK(refusal([&] { (void)flat_shape(rows, {}); }) ==
        "2148000000 tokens are more than int32 can count in one flattened batch");
}

TEST_CASE("arguments that make no sense are refused before anything is written") {
  const Rows rows({2, 3});
  CHECK(refusal([&] { (void)flat_shape(rows.tokens(), {.multiple_of = 0}); }) ==
        "padding to a multiple of 0");
  CHECK(refusal([&] { (void)flat_shape(rows.tokens(), {.columns = 8}); }) != "");
  CHECK(refusal([&] { (void)flat_shape(rows.tokens(), {.side = PaddingSide::kLeft}); }) != "");
  std::vector<std::int64_t> ids(5, 7);
  std::vector<std::int32_t> seqlens(2), numbers(4);
  CHECK(refusal([&] { flatten_rows(rows.tokens(), {}, {.input_ids = ids, .cu_seqlens = seqlens}); }) ==
        "cu_seqlens has 2 elements, but must have 1 x 3");
  CHECK(refusal([&] { flatten_rows(rows.tokens(), {}, {.input_ids = ids, .seq_idx = numbers}); }) ==
        "seq_idx has 4 elements, but must have 1 x 5");
  CHECK(ids == std::vector<std::int64_t>(5, 7));
}

}  // namespace tokcask
