#include "collate/widen.h"

#include <algorithm>
#include <numeric>

#include "support.h"

namespace tokcask::collate {
namespace {

using test::Array;

constexpr std::size_t kLongest = 200;

// Every kind of vectors that this CPU has.
std::vector<const Loops*> all_loops() {
  std::vector<const Loops*> all;
  for (const Vectors vectors : {Vectors::kPortable, Vectors::kAvx2, Vectors::kAvx512}) {
    if (const Loops* found = loops_for(vectors)) all.push_back(found);
  }
  return all;
}

std::vector<std::int32_t> random_ids(std::mt19937_64& random) {
  std::vector<std::int32_t> ids(kLongest + 16);
  for (std::int32_t& id : ids) {
    id = random() % 4 == 0 ? 7 : static_cast<std::int32_t>(static_cast<std::uint32_t>(random()));
  }
  return ids;
}

// What `write` makes of an array of `n` elements that begins `misplaced` elements late.
template <typename Write>
std::vector<std::int64_t> written(std::size_t n, std::size_t misplaced, const Write& write) {
  Array<std::int64_t> array(n, misplaced);
  write(array.span().data());
  CHECK(array.margins_untouched());
  return array.values();
}

}  // namespace

TEST_CASE("every loop is right at all lengths and from any start") {
  const std::uint64_t seed = test::test_seed();
  INFO("TOKCASK_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  const std::vector<std::int32_t> ids = random_ids(random);
  for (std::size_t n = 0; n <= kLongest; ++n) {
    for (std::size_t start = 0; start < 9; ++start) {
      CAPTURE(n);
      CAPTURE(start);
      const std::int32_t* const from = ids.data() + start;
      std::vector<std::int64_t> widened(from, from + n);
      std::vector<std::int64_t> replaced = widened;
      std::ranges::replace(replaced, 7, -100);
      std::vector<std::int64_t> counted(n);
      std::iota(counted.begin(), counted.end(), 0);
      const std::vector<std::int64_t> filled(n, -3);
      for (const Loops* loops : all_loops()) {
        for (const std::size_t to : {std::size_t{0}, 8 - start % 8, start}) {
          CHECK(written(n, to, [&](std::int64_t* out) { loops->widen(from, n, out); }) == widened);
          CHECK(written(n, to, [&](std::int64_t* out) { loops->widen_except(from, n, out, 7, -100); }) ==
                replaced);
          CHECK(written(n, to, [&](std::int64_t* out) { loops->count(out, n); }) == counted);
          CHECK(written(n, to, [&](std::int64_t* out) { loops->fill(out, n, -3); }) == filled);
        }
      }
    }
  }
}

TEST_CASE("a token outside int32 equals none") {
  const std::vector<std::int32_t> ids(70, 7);
  for (const Loops* loops : all_loops()) {
    const auto replaced = written(70, 0, [&](std::int64_t* out) {
      loops->widen_except(ids.data(), ids.size(), out, (std::int64_t{1} << 32) + 7, -100);
    });
    CHECK(replaced == std::vector<std::int64_t>(70, 7));
  }
}

TEST_CASE("nothing is read or written for no elements") {
  for (const Loops* loops : all_loops()) {
    loops->widen(nullptr, 0, nullptr);
    loops->widen_except(nullptr, 0, nullptr, 1, 2);
    loops->fill(nullptr, 0, 1);
    loops->count(nullptr, 0);
  }
}

TEST_CASE("the best loops are those of this CPU") {
  const auto all = all_loops();
  CHECK(&loops() == all.back());
}

}  // namespace tokcask::collate
