// Walking a store's entries, looking without a trace, and puts that keep their times.
#include <algorithm>
#include <map>

#include "support.h"

namespace tokcask {

using namespace test;

namespace {

constexpr std::uint64_t kMiB = 1 << 20;
constexpr std::uint64_t kSecond = 1'000'000'000;
// Some time in 2023.
constexpr std::uint64_t kThen = 1'700'000'000 * kSecond;

std::vector<Entry> all_entries(TokenizedCache& cache, const ChunkLimits& limits = {}) {
  std::vector<Entry> all;
  for (EntryPosition position;;) {
    EntryChunk chunk = cache.entries(position, limits);
    CHECK(chunk.entries.size() <= limits.entries);
    std::move(chunk.entries.begin(), chunk.entries.end(), std::back_inserter(all));
    if (chunk.end) return all;
  }
}

std::optional<Entry> peek(TokenizedCache& cache, const CacheKey& key) {
  return cache.peek_many({&key, 1})[0];
}

void put_dated(TokenizedCache& cache, std::uint64_t section, std::size_t length, std::uint64_t last_access) {
  cache.put(key(section), {.input_ids = ids(section, length)},
            {.created_ns = kThen - kSecond, .last_access_ns = last_access});
}

}  // namespace

TEST_CASE("a walk has every committed entry once, in key order, whatever the size of its chunks") {
  Fixture f;
  std::map<CacheKey, Ids> model;
  auto cache = f.open();
  for (std::uint64_t i = 0; i < 300; ++i) {
    const CacheKey k = i % 10 == 0 ? CacheKey("literal " + std::to_string(i), sha(1), 3000)
                                   : key(i, static_cast<int>(i % 3));
    model.emplace(k, ids(i, i * 37 % 3000));
    cache.put(k, {.input_ids = model.at(k)});
  }
  cache.flush();
  for (const ChunkLimits limits :
       {ChunkLimits{}, ChunkLimits{1, 1}, ChunkLimits{7, kMiB}, ChunkLimits{300, 9000}}) {
    const std::vector<Entry> all = all_entries(cache, limits);
    REQUIRE(all.size() == model.size());
    auto expected = model.begin();
    std::uint64_t bytes = 0;
    for (const Entry& entry : all) {
      REQUIRE(entry.info.key == expected->first);
      REQUIRE(copy_of(entry.view.input_ids()) == expected->second);
      REQUIRE(entry.info.tokens == expected->second.size());
      bytes += entry.info.bytes;
      ++expected;
    }
    CHECK(bytes == cache.stats().total_bytes);
  }
  CHECK(all_entries(cache, {300, 0}).size() == model.size());
}

TEST_CASE("an empty store, and one whose entries are pending, have nothing to walk") {
  Fixture f;
  auto cache = f.open({.batch_age = std::chrono::hours(1)});
  EntryPosition position;
  CHECK(cache.entries(position).end);
  cache.put(key(1), {.input_ids = ids(1, 3)});
  CHECK(all_entries(cache).empty());
  CHECK_FALSE(peek(cache, key(1)));
  cache.flush();
  CHECK(all_entries(cache).size() == 1);
  CHECK(peek(cache, key(1)));
}

TEST_CASE("the directories of which files are remembered are listed, those that are committed") {
  Fixture f;
  auto cache = f.open();
  CHECK(cache.source_directories().empty());
  for (const char* path : {"/b", "/a/c", "/a", "/a b"})
    cache.put_source_directory(path, {{.name = "x", .identity = {}}});
  CHECK(cache.source_directories().empty());
  cache.put(key(1), {.input_ids = ids(1, 5)});
  cache.flush();
  CHECK(cache.source_directories() == std::vector<std::string>{"/a", "/a b", "/a/c", "/b"});
  cache.put_source_directory("/a", {});
  cache.flush();
  CHECK(cache.source_directories().size() == 4);
  cache.clear();
  CHECK(cache.source_directories().empty());
}

TEST_CASE("a walk counts no hit, changes no access time, and works through a read-only handle") {
  Fixture f;
  {
    auto cache = f.open();
    for (std::uint64_t i = 0; i < 20; ++i) put_dated(cache, i, 100, kThen + i);
  }
  auto cache = f.open({.read_only = true});
  for (int round = 0; round < 2; ++round) {
    for (const Entry& entry : all_entries(cache)) {
      CHECK(entry.info.last_access_ns >= kThen);
      CHECK(entry.info.last_access_ns < kThen + 20);
      CHECK(entry.info.created_ns == kThen - kSecond);
      CHECK(peek(cache, entry.info.key)->info.last_access_ns == entry.info.last_access_ns);
    }
  }
  CHECK(cache.stats().run.hits == 0);
  CHECK(cache.stats().run.misses == 0);
  REQUIRE(cache.get(key(3)));
  CHECK(peek(cache, key(3))->info.last_access_ns > kThen + kSecond);
}

TEST_CASE("a walk goes on while entries before and behind it come and go, and pins no page between chunks") {
  Fixture f;
  auto cache = f.open();
  const auto refill = [&](std::uint64_t from) {
    for (std::uint64_t i = from; i < from + 50; ++i) cache.put(key(i), {.input_ids = ids(i, 3000)});
    cache.flush();
  };
  refill(0);
  for (int i = 0; i < 5; ++i) refill(0);
  const std::uint64_t settled = f.file_bytes();
  std::size_t seen = 0;
  CacheKey last = key(0);
  for (EntryPosition position;;) {
    const bool end = [&] {
      const EntryChunk chunk = cache.entries(position, {.entries = 1});
      for (const Entry& entry : chunk.entries) {
        if (seen > 0) CHECK(entry.info.key > last);
        last = entry.info.key;
        ++seen;
      }
      return chunk.end;
    }();
    if (end) break;
    refill(0);
  }
  CHECK(seen == 50);
  CHECK(f.file_bytes() <= settled + settled / 4);
}

TEST_CASE("times that are given are kept, through commits, reopenings and replacements") {
  Fixture f;
  {
    auto cache = f.open();
    put_dated(cache, 1, 600, kThen);
    cache.put(key(2), {.input_ids = ids(2, 10)});
    put_dated(cache, 2, 10, kThen + 5);
    put_dated(cache, 3, 10, 0);
    cache.put(key(4), {.input_ids = ids(4, 10)},
              {.created_ns = ~std::uint64_t{0}, .last_access_ns = ~std::uint64_t{0}});
    cache.flush();
    cache.put(key(5), {.input_ids = ids(5, 10)});
    cache.flush();
    put_dated(cache, 5, 20, kThen + 9);
  }
  auto cache = f.open();
  CHECK(peek(cache, key(1))->info.last_access_ns == kThen);
  CHECK(peek(cache, key(1))->info.created_ns == kThen - kSecond);
  CHECK(peek(cache, key(2))->info.last_access_ns == kThen + 5);
  CHECK(peek(cache, key(3))->info.last_access_ns == 1);
  CHECK(peek(cache, key(5))->info.last_access_ns == kThen + 9);
  CHECK(peek(cache, key(5))->info.tokens == 20);
  // What lies in the future counts as now.
  const EntryInfo future = peek(cache, key(4))->info;
  CHECK(future.last_access_ns > kThen);
  CHECK(future.last_access_ns < ~std::uint64_t{0} / 2);
  CHECK(future.created_ns <= future.last_access_ns);
  CHECK(cache.prune(std::chrono::hours(24)) == 4);
  CHECK(cache.stats().entry_count == 1);
}

TEST_CASE("a last access is raised, never lowered, and committed by a flush") {
  Fixture f;
  {
    auto cache = f.open();
    put_dated(cache, 1, 600, kThen);
    cache.flush();
    CHECK(cache.raise_last_access(key(1), kThen + 7));
    CHECK(cache.raise_last_access(key(1), kThen + 3));
    CHECK_FALSE(cache.raise_last_access(key(2), kThen));
    CHECK(cache.stats().run.hits == 0);
  }
  std::filesystem::remove(f.root() / "access.shm");
  auto cache = f.open({.read_only = true});
  CHECK(peek(cache, key(1))->info.last_access_ns == kThen + 7);
  error_of(Errc::kReadOnly, [&] { cache.raise_last_access(key(1), kThen); });
}

TEST_CASE("an entry with an old last access is not protected by the run that puts it") {
  Fixture f;
  auto cache = f.open({.max_bytes = 2 * kMiB});
  for (std::uint64_t i = 0; i < 150; ++i) put_dated(cache, i, 2000, kThen + i);
  cache.flush();
  REQUIRE(cache.stats().run.declined == 0);
  for (std::uint64_t i = 1000; i < 1100; ++i) cache.put(key(i), {.input_ids = ids(i, 2000)});
  cache.flush();
  const Stats stats = cache.stats();
  CHECK(stats.run.declined == 0);
  CHECK(stats.run.evicted > 0);
  CHECK(f.file_bytes() <= 2 * kMiB);
  // The oldest went.
  for (std::uint64_t i = 0; i < 150; ++i) CHECK(peek(cache, key(i)).has_value() == (i >= stats.run.evicted));
}

TEST_CASE("of dated entries the newest are kept, in whatever order they are put; the cap holds") {
  const std::uint64_t seed = test_seed();
  INFO("TOKCASK_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  constexpr std::uint64_t kEntries = 1200;
  std::vector<std::uint64_t> order(kEntries);
  for (std::uint64_t i = 0; i < kEntries; ++i) order[i] = i;
  std::shuffle(order.begin(), order.end(), random);
  Fixture f;
  auto cache = f.open({.max_bytes = 4 * kMiB});
  for (std::size_t n = 0; n < order.size(); ++n) {
    put_dated(cache, order[n], 2000, kThen + order[n]);
    if (n % 100 == 99) {
      cache.flush();
      REQUIRE(f.file_bytes() <= 4 * kMiB);
    }
  }
  const Stats stats = cache.stats();
  CHECK(stats.run.declined > 0);
  CHECK(stats.run.evicted > 0);
  CHECK(stats.run.puts == stats.entry_count + stats.run.evicted);
  CHECK(stats.run.puts + stats.run.declined == kEntries);
  CHECK(stats.entry_count > 300);
  // All but a few at the margin, where it depends on which pages were free when.
  const std::uint64_t newest = kEntries - stats.entry_count;
  std::uint64_t strangers = 0;
  for (std::uint64_t i = 0; i < newest; ++i) strangers += peek(cache, key(i)) ? 1 : 0;
  CHECK(strangers <= stats.entry_count / 8);
}

TEST_CASE("an old entry makes nothing go that was used later than itself") {
  Fixture f;
  {
    auto cache = f.open({.max_bytes = 2 * kMiB});
    for (std::uint64_t i = 0; cache.stats().run.declined == 0; ++i) {
      put_dated(cache, i, 2000, kThen + 1000);
      cache.flush();
    }
  }
  auto cache = f.open({.max_bytes = 2 * kMiB});
  const std::uint64_t before = cache.stats().entry_count;
  for (std::uint64_t i = 5000; i < 5050; ++i) put_dated(cache, i, 2000, kThen);
  cache.flush();
  // But for what finds pages that are free all the same.
  CHECK(cache.stats().run.declined >= 47);
  CHECK(cache.stats().run.evicted == 0);
  CHECK(cache.stats().entry_count == before + 50 - cache.stats().run.declined);
  CHECK(f.messages.count("budget") == 2);
  // A later one does.
  put_dated(cache, 6000, 2000, kThen + 2000);
  cache.flush();
  CHECK(cache.stats().run.evicted > 0);
  CHECK(peek(cache, key(6000)));
}

TEST_CASE("an old entry is evicted also where eviction was in vain before it was put") {
  Fixture f;
  auto cache = f.open({.max_bytes = 2 * kMiB});
  // All of this run, so the queue of victims is made in vain.
  for (std::uint64_t i = 0; i < 300; ++i) cache.put(key(i), {.input_ids = ids(i, 2000)});
  cache.flush();
  REQUIRE(cache.stats().run.declined > 0);
  CHECK(cache.stats().run.evicted == 0);
  CHECK(cache.prune(std::chrono::nanoseconds(0)) > 0);
  for (std::uint64_t i = 0; i < 100; ++i) put_dated(cache, 1000 + i, 2000, kThen + i);
  cache.flush();
  const std::uint64_t declined = cache.stats().run.declined;
  for (std::uint64_t i = 0; i < 150; ++i) cache.put(key(2000 + i), {.input_ids = ids(i, 2000)});
  cache.flush();
  CHECK(cache.stats().run.declined == declined);
  CHECK(cache.stats().run.evicted > 0);
}

}  // namespace tokcask
