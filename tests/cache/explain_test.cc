// Why a look-up found nothing.
#include <algorithm>

#include "support.h"

namespace tokcask {

using namespace test;

namespace {

bool says(const Explanation& explanation, std::string_view text) {
  return explanation.text.find(text) != std::string::npos;
}

}  // namespace

TEST_CASE("each reason is told") {
  Fixture f;
  auto cache = f.open();
  CHECK(cache.explain(key(1)).reason == MissReason::kNeverStored);
  for (std::uint64_t i = 0; i < 50; ++i) cache.put(key(i), {.input_ids = ids(i, 100)});
  cache.flush();

  const Explanation stored = cache.explain(key(1));
  CHECK(stored.found);
  CHECK_FALSE(stored.derived);
  CHECK(says(stored, "100 tokens"));
  CHECK(stored.when_ns > 0);

  const Explanation tokenizer = cache.explain(key(1, 7));
  CHECK_FALSE(tokenizer.found);
  CHECK(tokenizer.reason == MissReason::kOtherTokenizer);
  CHECK(says(tokenizer, "50 entries"));
  CHECK(says(tokenizer, sha(0).substr(0, 12)));
  CHECK(says(tokenizer, sha(7).substr(0, 12)));
  REQUIRE(tokenizer.related.size() == 1);
  CHECK(tokenizer.related[0].key == key(1));

  const Explanation length = cache.explain(key(1, 0, 64));
  CHECK(length.reason == MissReason::kOtherLength);
  CHECK(says(length, "it is at 999999 (100 tokens)"));
  CHECK(says(length, "not known how this tokenizer cuts"));
  cache.declare_tokenizer(sha(), {.cuts_at_length = true});
  CHECK(cache.explain(key(1, 0, 64)).reason == MissReason::kOtherLength);
  CHECK(cache.explain(key(1, 0, 512)).derived);

  CHECK(cache.prune(std::chrono::nanoseconds(0)) == 50);
  const Explanation pruned = cache.explain(key(1));
  CHECK(pruned.reason == MissReason::kPruned);
  CHECK(pruned.when_ns > stored.when_ns);

  cache.put(key(1), {.input_ids = ids(1, 100)});
  cache.flush();
  CHECK(cache.explain(key(1)).found);
  CHECK(cache.clear() == 1);
  CHECK(cache.explain(key(1)).reason == MissReason::kCleared);
  CHECK(cache.explain(key(77)).reason == MissReason::kCleared);
  const Stats stats = cache.stats();
  CHECK(stats.run.hits + stats.run.misses == 0);
}

TEST_CASE("evicted and declined, by which run") {
  Fixture f;
  constexpr std::uint64_t kBudget = std::uint64_t{2} << 20;
  const auto fill = [&](std::uint64_t from, std::uint64_t to) {
    auto cache = f.open({.max_bytes = kBudget});
    for (std::uint64_t i = from; i < to; ++i) cache.put(key(i), {.input_ids = ids(i, 2000)});
    cache.flush();
    const auto run = cache.stats().run;
    cache.close();
    return run;
  };
  fill(0, 100);
  fill(1000, 1050);
  const auto run = fill(2000, 2500);
  auto cache = f.open({.max_bytes = kBudget});
  const Explanation evicted = cache.explain(key(0));
  CHECK(evicted.reason == MissReason::kEvicted);
  CHECK(says(evicted, "evicted on "));
  CHECK(run.declined > 0);
  std::uint64_t found = 0;
  for (std::uint64_t i = 2000; i < 2500; ++i) {
    const Explanation e = cache.explain(key(i));
    if (e.found) continue;
    ++found;
    CHECK(e.reason == MissReason::kDeclined);
    CHECK(says(e, "raise max_bytes"));
  }
  CHECK(found == run.declined);
}

TEST_CASE("what a lower budget removed is told as evicted, and most of the history survives it") {
  Fixture f;
  {
    auto cache = f.open({.max_bytes = std::uint64_t{4} << 20});
    for (std::uint64_t i = 0; i < 300; ++i) cache.put(key(i), {.input_ids = ids(i, 2000)});
    cache.put(key(1000), {.input_ids = ids(1, 10)});
    cache.flush();
    static_cast<void>(cache.prune(std::chrono::nanoseconds(0)));
    for (std::uint64_t i = 0; i < 300; ++i) cache.put(key(i), {.input_ids = ids(i, 2000)});
    cache.close();
  }
  auto cache = f.open({.max_bytes = std::uint64_t{1} << 20, .shrink = true});
  CHECK(f.file_bytes() <= std::uint64_t{1} << 20);
  std::uint64_t evicted = 0;
  for (std::uint64_t i = 0; i < 300; ++i) {
    const Explanation e = cache.explain(key(i));
    if (e.found) continue;
    CHECK(e.reason == MissReason::kEvicted);
    CHECK(e.when_ns > 0);
    ++evicted;
  }
  CHECK(evicted > 150);
  CHECK(cache.explain(key(1000)).reason == MissReason::kPruned);
}

TEST_CASE("a run's misses in one line, when it ends") {
  Fixture f;
  auto cache = f.open();
  for (std::uint64_t i = 0; i < 50; ++i) cache.put(key(i), {.input_ids = ids(i, 100)});
  for (std::uint64_t i = 0; i < 60; ++i) static_cast<void>(cache.get(key(i)));
  CHECK(cache.miss_summary().empty());  // ten that were never stored
  CHECK(cache.miss_reasons()[static_cast<std::size_t>(MissReason::kNeverStored)] == 10);
  cache.close();
  CHECK(f.messages.all().empty());

  cache = f.open();
  for (std::uint64_t i = 0; i < 60; ++i) static_cast<void>(cache.get(key(i, 3)));
  CHECK(cache.miss_reasons()[static_cast<std::size_t>(MissReason::kOtherTokenizer)] == 50);
  const std::string summary = cache.miss_summary();
  CAPTURE(summary);
  CHECK(summary.find("of 60 misses, 50 are stored under tokenizer " + sha(0).substr(0, 12)) !=
        std::string::npos);
  CHECK(summary.find("50 entries, the first of 20") != std::string::npos);
  CHECK(summary.find("not under " + sha(3).substr(0, 12)) != std::string::npos);
  cache.close();
  REQUIRE(f.messages.all().size() == 1);
  CHECK(f.messages.all()[0] == summary);
}

TEST_CASE("the history is a ring: old rows make place for new ones") {
  Fixture f;
  auto cache = f.open({.max_bytes = std::uint64_t{1} << 20});
  for (std::uint64_t round = 0; round < 8; ++round) {
    for (std::uint64_t i = 0; i < 100; ++i) cache.put(key(1000 * round + i), {.input_ids = ids(i, 10)});
    cache.flush();
    CHECK(cache.prune(std::chrono::nanoseconds(0)) == 100);
  }
  std::uint64_t pruned = 0;
  for (std::uint64_t round = 0; round < 8; ++round) {
    for (std::uint64_t i = 0; i < 100; ++i) {
      if (cache.explain(key(1000 * round + i)).reason == MissReason::kPruned) ++pruned;
    }
  }
  CHECK(pruned == 512);
  CHECK(cache.explain(key(7050)).reason == MissReason::kPruned);
  CHECK(cache.explain(key(50)).reason == MissReason::kNeverStored);
  // The same in a process that has not seen the rows come.
  cache.close();
  cache = f.open();
  CHECK(cache.explain(key(7050)).reason == MissReason::kPruned);
  CHECK(cache.explain(key(50)).reason == MissReason::kNeverStored);
}

}  // namespace tokcask
