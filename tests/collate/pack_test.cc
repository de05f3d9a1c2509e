#include <algorithm>
#include <limits>
#include <numeric>

#include "support.h"

namespace tokcask {
namespace {

using test::refusal;

using Bins = std::vector<std::vector<std::uint32_t>>;

Bins bins_of(const Packing& packing) {
  Bins bins;
  std::size_t begin = 0;
  for (const std::size_t end : packing.bin_ends) {
    bins.emplace_back(packing.rows.begin() + static_cast<std::ptrdiff_t>(begin),
                      packing.rows.begin() + static_cast<std::ptrdiff_t>(end));
    begin = end;
  }
  CHECK(begin == packing.rows.size());
  return bins;
}

// Best fit decreasing as it is told, looking at every bin for every row.
Bins naive(const std::vector<std::uint32_t>& lengths, std::size_t capacity) {
  struct Bin {
    std::size_t space;
    std::size_t since;  // when it came to this space
  };
  std::vector<std::uint32_t> order(lengths.size());
  std::iota(order.begin(), order.end(), 0U);
  std::ranges::stable_sort(order, [&](std::uint32_t a, std::uint32_t b) { return lengths[a] > lengths[b]; });
  Bins bins;
  std::vector<Bin> states;
  for (std::size_t now = 0; now < order.size(); ++now) {
    const std::size_t length = lengths[order[now]];
    if (length == 0) continue;
    std::size_t best = states.size();
    for (std::size_t i = 0; i < states.size(); ++i) {
      if (states[i].space < length) continue;
      if (best == states.size() ||
          std::pair(states[i].space, states[i].since) < std::pair(states[best].space, states[best].since)) {
        best = i;
      }
    }
    if (best == states.size()) {
      states.push_back({.space = capacity, .since = 0});
      bins.emplace_back();
    }
    states[best] = {.space = states[best].space - length, .since = now};
    bins[best].push_back(order[now]);
  }
  return bins;
}

}  // namespace

TEST_CASE("the bins are those of the naive algorithm, in its order") {
  const std::uint64_t seed = test::test_seed();
  INFO("TOKCASK_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  for (int round = 0; round < 500; ++round) {
    CAPTURE(round);
    // Few different lengths make many ties; many make few.
    const std::size_t capacity = 1 + random() % (round % 2 == 0 ? 12 : 5000);
    std::vector<std::uint32_t> lengths(random() % 300);
    for (std::uint32_t& length : lengths) length = static_cast<std::uint32_t>(random() % (capacity + 1));
    const Bins bins = bins_of(pack_best_fit_decreasing(lengths, capacity));
    CHECK(bins == naive(lengths, capacity));

    std::vector<int> seen(lengths.size());
    for (const auto& bin : bins) {
      std::size_t filled = 0;
      for (const std::uint32_t row : bin) {
        filled += lengths[row];
        ++seen[row];
      }
      CHECK(filled > 0);
      CHECK(filled <= capacity);
    }
    for (std::size_t row = 0; row < lengths.size(); ++row) CHECK(seen[row] == (lengths[row] > 0 ? 1 : 0));
  }
}

TEST_CASE("an example") {
  const std::vector<std::uint32_t> lengths{5, 2, 0, 3, 1, 5};
  const Packing packing = pack_best_fit_decreasing(lengths, 6);
  CHECK(bins_of(packing) == Bins{{0, 4}, {5}, {3, 1}});
}

TEST_CASE("a full bin takes no more, and space that is taken twice is first come, first served") {
  CHECK(bins_of(pack_best_fit_decreasing(std::vector<std::uint32_t>{4, 4, 4}, 4)) == Bins{{0}, {1}, {2}});
  CHECK(bins_of(pack_best_fit_decreasing(std::vector<std::uint32_t>{3, 3, 3, 1, 1, 1}, 4)) ==
        Bins{{0, 3}, {1, 4}, {2, 5}});
}

TEST_CASE("capacities and lengths at the ends of their types") {
  constexpr std::uint32_t kMost = std::numeric_limits<std::uint32_t>::max();
  const std::vector<std::uint32_t> lengths{kMost, 1, kMost};
  CHECK(bins_of(pack_best_fit_decreasing(lengths, kMost)) == Bins{{0}, {2}, {1}});
  CHECK(bins_of(pack_best_fit_decreasing(lengths, std::numeric_limits<std::size_t>::max())) ==
        Bins{{0, 2, 1}});
  CHECK(pack_best_fit_decreasing({}, 1).bin_ends.empty());
  CHECK(pack_best_fit_decreasing(std::vector<std::uint32_t>{0, 0}, 1).bin_ends.empty());
}

TEST_CASE("what does not fit is refused") {
  CHECK(refusal([] { (void)pack_best_fit_decreasing(std::vector<std::uint32_t>{3, 9, 8}, 8); }) ==
        "row 1 has 9 tokens, which do not fit into 8");
  CHECK(refusal([] { (void)pack_best_fit_decreasing({}, 0); }) == "packing into bins of 0 tokens");
}

TEST_CASE("a million rows do not take long") {
  const std::uint64_t seed = test::test_seed();
  INFO("TOKCASK_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  std::vector<std::uint32_t> lengths(1'000'000);
  for (std::uint32_t& length : lengths) length = static_cast<std::uint32_t>(1 + random() % 2048);
  const Packing packing = pack_best_fit_decreasing(lengths, 2048);
  const std::uint64_t total = std::accumulate(lengths.begin(), lengths.end(), std::uint64_t{0});
  CHECK(packing.rows.size() == lengths.size());
  // How many rows are longer than half a bin, each of which needs one of its own, varies with the seed: one
  // standard deviation of it is 0.1 % of all bins.
  CHECK(static_cast<double>(packing.bin_ends.size()) * 2048 < 1.01 * static_cast<double>(total));
}

}  // namespace tokcask
