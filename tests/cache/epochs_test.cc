// A corpus that is larger than the budget, read again and again: a stable part of it stays.
#include <algorithm>
#include <numeric>

#include "support.h"

namespace tokcask {

using namespace test;

namespace {

constexpr std::uint64_t kBudget = std::uint64_t{4} << 20;
constexpr std::size_t kCorpus = 1000;

struct Corpus {
  std::vector<std::size_t> order;
  Corpus() : order(kCorpus) { std::iota(order.begin(), order.end(), std::size_t{0}); }
};

// One run over the corpus, as a loop that gets and, at a miss, puts. Returns hits / look-ups.
double run(const Fixture& f, const std::vector<std::size_t>& order, std::size_t first_section = 0) {
  auto cache = f.open({.max_bytes = kBudget, .batch_bytes = std::uint64_t{256} << 10});
  for (const std::size_t i : order) {
    const CacheKey k = key(first_section + i);
    if (!cache.get(k)) cache.put(k, {.input_ids = ids(i, 1500 + i % 1000)});
  }
  const double rate = cache.stats().run.hit_rate();
  cache.close();
  CHECK(f.file_bytes() <= kBudget);
  return rate;
}

}  // namespace

TEST_CASE("a corpus of twice the budget, run after run") {
  const std::uint64_t seed = test_seed();
  INFO("TOKCASK_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  for (const bool shuffled : {false, true}) {
    CAPTURE(shuffled);
    Fixture f;
    Corpus corpus;
    CHECK(run(f, corpus.order) == 0);
    const double share = static_cast<double>(f.open().stats().entry_count) / kCorpus;
    CHECK(share > 0.25);
    CHECK(share < 0.55);
    for (int later = 0; later < 5; ++later) {
      if (shuffled) std::shuffle(corpus.order.begin(), corpus.order.end(), random);
      const double rate = run(f, corpus.order);
      CAPTURE(later);
      CAPTURE(share);
      CHECK(rate > share - 0.08);
    }
  }
}

TEST_CASE("edited files cost themselves, not what comes after them") {
  Fixture f;
  Corpus corpus;
  run(f, corpus.order);
  const double before = run(f, corpus.order);
  // Every hundredth is new; the others are as they were.
  auto cache = f.open({.max_bytes = kBudget, .batch_bytes = std::uint64_t{256} << 10});
  for (const std::size_t i : corpus.order) {
    const CacheKey k = key(i % 100 == 50 ? 5000 + i : i);
    if (cache.get(k)) continue;
    cache.put(k, {.input_ids = ids(i, 1500 + i % 1000)});
    cache.flush();  // so that what it makes go is gone when its turn comes
  }
  CHECK(cache.stats().run.hit_rate() > before - 0.05);
}

TEST_CASE("another corpus takes the place of one that is not used any more, and gives it back") {
  Fixture f;
  std::vector<std::size_t> order(350);
  std::iota(order.begin(), order.end(), std::size_t{0});
  run(f, order);
  // A put or two may be declined while a file that is full to the last page changes hands.
  constexpr double kNearlyAll = 0.98;
  CHECK(run(f, order) == 1);
  run(f, order, 10'000);
  CHECK(run(f, order, 10'000) > kNearlyAll);
  run(f, order);
  CHECK(run(f, order) > kNearlyAll);
}

TEST_CASE("what was declined is stored in a later run that does not use what was stored before") {
  Fixture f;
  const auto put_all = [&](std::size_t from, std::size_t to) {
    auto cache = f.open({.max_bytes = kBudget, .batch_bytes = std::uint64_t{256} << 10});
    for (std::size_t i = from; i < to; ++i) cache.put(key(i), {.input_ids = ids(i, 2000)});
    cache.close();
  };
  put_all(0, 1000);
  CHECK(f.messages.count("is full of entries that were used in this run") == 1);
  CHECK_FALSE(f.open().get(key(900)));
  put_all(800, 1000);
  auto cache = f.open();
  std::size_t found = 0;
  for (std::size_t i = 800; i < 1000; ++i) found += cache.get(key(i)).has_value() ? 1 : 0;
  CHECK(found >= 196);
}

}  // namespace tokcask
