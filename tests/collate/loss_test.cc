// What is learned of rows, and what is cut of them: in each layout the same.
#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <vector>

#include "support.h"

namespace tokcask {
namespace {

using test::refusal;

using Values = std::vector<std::int64_t>;
using Names = std::vector<std::string_view>;

// Rows with spans "assistant" and "mine", the number "prompt_length" and an array "labels".
struct Labelled {
  Labelled(std::mt19937_64& random, std::size_t count) : rows(random, count), parts(count), labels(count) {
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t n = rows[i].input_ids.size();
      for (const char* const name : {"assistant", "mine"}) {
        std::vector<Span> spans;
        for (std::uint32_t at = static_cast<std::uint32_t>(random() % 5); at < n;) {
          const auto end = static_cast<std::uint32_t>(std::min<std::size_t>(n, at + 1 + random() % 9));
          spans.push_back({at, end});
          at = end + static_cast<std::uint32_t>(random() % 4);
        }
        parts[i].spans(name, spans);
      }
      parts[i].integer("prompt_length", static_cast<std::int64_t>(random() % (n + 4)));
      for (std::size_t k = 0; k < n; ++k) labels[i].push_back(static_cast<std::int16_t>(random()));
      parts[i].array("labels", ElementType::kInt16, std::as_bytes(std::span(labels[i])));
      tokens.push_back({rows[i].input_ids, rows[i].attention_mask, parts[i].list()});
    }
  }

  // The label of one token of the whole row.
  [[nodiscard]] std::int64_t label(std::size_t row, std::size_t at, const Names& loss) {
    const PartList list = parts[row].list();
    std::int64_t label = rows[row].input_ids[at];
    for (const std::string_view name : loss) {
      if (name == "labels") label = labels[row][at];
    }
    for (const std::string_view name : loss) {
      if (name == "completion" && static_cast<std::int64_t>(at) < *list.integer("prompt_length")) return -100;
      const auto spans = list.spans(name);
      if (!spans) continue;
      if (std::ranges::none_of(*spans, [&](const Span& span) { return at >= span.begin && at < span.end; }))
        return -100;
    }
    return label;
  }

  test::Rows rows;
  std::vector<Parts> parts;
  std::vector<std::vector<std::int16_t>> labels;
  std::vector<Tokens> tokens;
};

}  // namespace

TEST_CASE("loss: what is learned is what a plain loop finds, in each layout, cut at each end") {
  const std::uint64_t seed = test::test_seed();
  INFO("TOKCASK_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  const std::vector<Names> choices{
      {}, {"assistant"}, {"completion"}, {"mine", "completion"}, {"labels"}, {"assistant", "labels", "mine"}};
  for (int round = 0; round < 300; ++round) {
    CAPTURE(round);
    Labelled given(random, 1 + random() % 8);
    const Names& loss = choices[random() % choices.size()];
    Padding padding{.token_id = -7, .loss = std::span(loss)};
    if (random() % 3 != 0) padding.max_tokens = 1 + random() % 40;
    padding.keep_end = random() % 2 == 0;
    // By row: the labels of what is taken of it.
    std::vector<Values> wanted(given.tokens.size());
    std::size_t longest = 0;
    std::size_t total = 0;
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      const std::size_t n = given.rows[i].input_ids.size();
      const std::size_t most = padding.max_tokens == 0 ? n : std::min(n, padding.max_tokens);
      const std::size_t begin = padding.keep_end ? n - most : 0;
      for (std::size_t k = 0; k < most; ++k) wanted[i].push_back(given.label(i, begin + k, loss));
      longest = std::max(longest, most);
      total += most;
    }
    const std::size_t columns = padded_columns(given.tokens, padding);
    CHECK(columns == longest);
    Values ids(wanted.size() * columns), labels(ids.size());
    pad_rows(given.tokens, padding, {.input_ids = ids, .labels = labels});
    Values flat;
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      Values row = wanted[i];
      if (!row.empty()) row[0] = -100;
      flat.insert(flat.end(), row.begin(), row.end());
      row = wanted[i];
      row.resize(columns, -100);
      CHECK(Values(labels.begin() + static_cast<std::ptrdiff_t>(i * columns),
                   labels.begin() + static_cast<std::ptrdiff_t>((i + 1) * columns)) == row);
    }
    CHECK(flat_shape(given.tokens, padding).tokens == total);
    Values flat_labels(total);
    flatten_rows(given.tokens, padding, {.labels = flat_labels});
    CHECK(flat_labels == flat);
    const std::vector<std::size_t> bins{given.tokens.size()};
    CHECK(packed_columns(given.tokens, bins, padding) == total);
    Values packed(total);
    pad_packed(given.tokens, bins, padding, {.labels = packed});
    CHECK(packed == flat);
  }
}

TEST_CASE("loss: what is not said, and what is not there, is an error that names the row and its parts") {
  const std::vector<std::int32_t> ids{1, 2, 3};
  Parts spans, number, weights;
  spans.spans("assistant", {{0, 1}});
  number.integer("prompt_length", 1);
  const std::array<float, 3> floats{};
  weights.array("weights", ElementType::kFloat32, std::as_bytes(std::span(floats)));
  const std::vector<Tokens> rows{{ids}, {ids, {}, spans.list()}};
  Values labels(6);
  const auto problem = [&](std::span<const Tokens> given, std::optional<Names> names) {
    Padding padding;
    if (names) padding.loss = *names;
    return refusal([&] { pad_rows(given, padding, {.labels = std::span(labels).first(given.size() * 3)}); });
  };
  CHECK(problem(rows, {}) ==
        "row 1 has parts that may decide what is learned (\"assistant\"); name those that do as the loss, or "
        "choose all tokens");
  CHECK(problem(rows, Names{}).empty());
  CHECK(problem(rows, Names{"assistant"}) ==
        "row 0 has no part \"assistant\", by which the loss is to go; it has none");
  const std::vector<Tokens> numbers{{ids, {}, number.list()}};
  CHECK(problem(numbers, {}).empty());  // a number alone decides nothing
  CHECK(problem(numbers, Names{"completion"}).empty());
  CHECK(labels[0] == -100);
  CHECK(labels[1] == 2);
  const std::vector<Tokens> floating{{ids, {}, weights.list()}};
  CHECK(problem(floating, {}).empty());
  CHECK(problem(floating, Names{"weights"}) ==
        "\"weights\" of row 0 holds no integers, so it cannot be labels");
  Parts few;
  few.array("labels", ElementType::kInt8, std::as_bytes(std::span(floats)).first(2));
  const std::vector<Tokens> shorter{{ids, {}, few.list()}};
  CHECK(problem(shorter, Names{"labels"}) ==
        "\"labels\" of row 0 has 2 elements, but its input_ids has more");
  // Without labels nobody has to say anything.
  Values out(6);
  CHECK(refusal([&] { pad_rows(rows, {}, {.input_ids = out}); }).empty());
}

}  // namespace tokcask
