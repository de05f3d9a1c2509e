// Writers killed at any moment: what was acknowledged by flush() is there, and the store is whole.
#include <csignal>
#include <thread>

#include "child.h"
#include "support.h"

namespace tokcask {

using namespace test;

namespace {

std::size_t length_of(std::uint64_t i) { return i * 131 % 3000; }

// Puts without end, and tells how many of them are flushed.
bool put_for_ever(const Fixture& f, std::uint64_t from, std::uint64_t max_bytes, const Line& line) {
  auto cache =
      TokenizedCache::open(f.root(), {.max_bytes = max_bytes, .batch_age = std::chrono::milliseconds(3)});
  for (std::uint64_t i = from;; ++i) {
    cache.put(key(i), {.input_ids = ids(i, length_of(i))});
    if (i % 7 == 0) {
      cache.flush();
      line.tell(i + 1);
    }
    if (i % 400 == 399) cache.prune(std::chrono::hours(1));
  }
}

}  // namespace

TEST_CASE("a writer killed at any moment loses at most what was not flushed") {
  const std::uint64_t seed = test_seed();
  INFO("TOKCASK_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  Fixture f;
  std::uint64_t acknowledged = 0;
  for (int round = 0; round < 25; ++round) {
    {
      Child writer(
          [&](const Line& line) { return put_for_ever(f, acknowledged, std::uint64_t{1} << 30, line); });
      // The first rounds are killed during the creation of the store, later ones after some flushes.
      for (std::uint64_t flushes = round < 8 ? 0 : 1 + random() % 20; flushes > 0; --flushes) {
        acknowledged = writer.line().hear().value_or(acknowledged);
      }
      std::this_thread::sleep_for(std::chrono::microseconds(random() % 8000));
      writer.signal(SIGKILL);
      CHECK_FALSE(writer.succeeded());
      while (const auto told = writer.line().hear()) acknowledged = *told;
    }
    if (!std::filesystem::exists(f.data())) continue;
    auto cache = f.open();
    for (std::uint64_t i = 0; i < acknowledged; ++i) {
      const auto view = cache.get(key(i));
      REQUIRE(view);
      REQUIRE(copy_of(view->input_ids()) == ids(i, length_of(i)));
    }
    const VerifyReport report = cache.verify();
    REQUIRE(report.damaged == 0);
    REQUIRE(report.structure_ok);
    REQUIRE(report.records == cache.stats().entry_count);
  }
  CHECK(acknowledged > 0);
  CHECK(f.messages.all().empty());
}

TEST_CASE("a writer killed while it evicts leaves a whole store within its cap") {
  constexpr std::uint64_t kMaxBytes = std::uint64_t{2} << 20;
  const std::uint64_t seed = test_seed();
  INFO("TOKCASK_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  Fixture f;
  std::uint64_t next = 0;
  for (int round = 0; round < 15; ++round) {
    {
      Child writer([&](const Line& line) { return put_for_ever(f, next, kMaxBytes, line); });
      for (std::uint64_t flushes = 1 + random() % 30; flushes > 0; --flushes) {
        next = writer.line().hear().value_or(next);
      }
      std::this_thread::sleep_for(std::chrono::microseconds(random() % 3000));
      writer.signal(SIGKILL);
      CHECK_FALSE(writer.succeeded());
      while (const auto told = writer.line().hear()) next = *told;
    }
    auto cache = f.open({.max_bytes = kMaxBytes});
    const VerifyReport report = cache.verify();
    REQUIRE(report.damaged == 0);
    REQUIRE(report.structure_ok);
    REQUIRE(f.file_bytes() <= kMaxBytes);
  }
  CHECK(next > 0);
}

TEST_CASE("a killed reader's snapshot does not hold pages for ever") {
  Fixture f;
  auto cache = f.open();
  const auto refill = [&] {
    for (std::uint64_t i = 0; i < 50; ++i) cache.put(key(i), {.input_ids = ids(i, 3000)});
    cache.flush();
  };
  refill();
  Child reader([&](const Line& line) {
    auto own = TokenizedCache::open(f.root(), {.read_only = true});
    const auto view = own.get(key(1));
    line.tell(1);
    line.hear();
    return false;
  });
  REQUIRE(reader.line().hear() == 1);
  reader.signal(SIGKILL);
  CHECK_FALSE(reader.succeeded());
  for (int i = 0; i < 5; ++i) refill();
  const std::uint64_t settled = f.file_bytes();
  for (int i = 0; i < 20; ++i) refill();
  CHECK(f.file_bytes() <= settled);
}

TEST_CASE("a killed run's entries are protected no longer") {
  constexpr std::uint64_t kMaxBytes = std::uint64_t{2} << 20;
  Fixture f;
  Child writer([&](const Line& line) {
    auto cache =
        TokenizedCache::open(f.root(), {.max_bytes = kMaxBytes, .on_message = [](Severity, auto) {}});
    for (std::uint64_t i = 0; i < 400; ++i) cache.put(key(i), {.input_ids = ids(i, 2000)});
    cache.flush();
    line.tell(cache.stats().run.declined);
    line.hear();
    return false;
  });
  CHECK(writer.line().hear().value_or(0) > 0);
  {
    auto cache = f.open({.max_bytes = kMaxBytes});
    cache.put(key(1000), {.input_ids = ids(1000, 2000)});
    cache.flush();
    CHECK(cache.stats().run.declined == 1);
  }
  writer.signal(SIGKILL);
  CHECK_FALSE(writer.succeeded());
  auto cache = f.open({.max_bytes = kMaxBytes});
  for (std::uint64_t i = 0; i < 50; ++i) cache.put(key(1000 + i), {.input_ids = ids(1000 + i, 2000)});
  cache.flush();
  CHECK(cache.stats().run.declined == 0);
  CHECK(cache.stats().run.evicted > 0);
}

}  // namespace tokcask
