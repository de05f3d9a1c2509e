// The budget: a hard cap on the file, oldest last access first, protection of the current run, declining.
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <random>
#include <set>
#include <thread>

#include "files/write_lock.h"
#include "support.h"

namespace tokcask {

using namespace test;

namespace {

constexpr std::uint64_t kMiB = 1 << 20;
constexpr std::size_t kLength = 2000;  // two pages
constexpr std::uint64_t kEntryBytes = 2 * 4096;

void put(TokenizedCache& cache, std::uint64_t section, std::size_t length = kLength) {
  cache.put(key(section), {.input_ids = ids(section, length)});
}

// Removing needs pages too. In a full file whose free pages are held by views there may be none.
void unless_held(const std::function<void()>& act) {
  try {
    act();
  } catch (const Error& error) {
    CHECK(std::string_view(error.what()).find("readers hold") != std::string_view::npos);
  }
}

bool holds(TokenizedCache& cache, std::uint64_t section) {
  const CacheKey wanted = key(section);
  return cache.contains_many({&wanted, 1})[0];
}

}  // namespace

TEST_CASE("a corpus larger than the cap: the file never passes it, and a stable part stays") {
  Fixture f;
  std::uint64_t kept = 0;
  {
    auto cache = f.open({.max_bytes = 4 * kMiB});
    for (std::uint64_t i = 0; i < 1500; ++i) {
      put(cache, i);
      if (i % 50 == 0) {
        cache.flush();
        REQUIRE(f.file_bytes() <= 4 * kMiB);
      }
    }
    cache.flush();
    const Stats stats = cache.stats();
    kept = stats.entry_count;
    CHECK(stats.run.evicted == 0);  // all are of this run
    CHECK(stats.run.puts == kept);
    CHECK(stats.run.declined == 1500 - kept);
    // Most of the file is entries: what is not is the reserve and the tables.
    CHECK(kept * kEntryBytes > 3 * kMiB);
    CHECK(f.file_bytes() <= 4 * kMiB);
    CHECK(f.messages.count("budget") == 1);
    CHECK(f.messages.count("max_bytes") == 1);
  }
  // The next run over the same corpus finds what is there before it puts, as warm does: all of that is
  // protected.
  auto cache = f.open({.max_bytes = 4 * kMiB});
  std::vector<CacheKey> keys;
  for (std::uint64_t i = 0; i < 1500; ++i) keys.push_back(key(i));
  const auto there = cache.contains_many(keys);
  CHECK(static_cast<std::uint64_t>(std::count(there.begin(), there.end(), true)) == kept);
  for (std::uint64_t i = 0; i < 1500; ++i) {
    if (!there[i]) put(cache, i);
  }
  cache.flush();
  CHECK(cache.contains_many(keys) == there);
  CHECK(cache.stats().run.evicted == 0);
  CHECK(f.file_bytes() <= 4 * kMiB);
}

TEST_CASE("oldest last access first, and no more than needed") {
  Fixture f;
  std::uint64_t full = 0;
  {
    auto cache = f.open({.max_bytes = 4 * kMiB});
    for (std::uint64_t i = 0; i < 2000 && cache.stats().run.declined == 0; ++i) {
      put(cache, i);
      cache.flush();
      full = i;  // the last one was declined
    }
  }
  REQUIRE(full > 300);
  {
    // Used again: 0-49. So the oldest are 50, 51, ...
    auto cache = f.open({.max_bytes = 4 * kMiB});
    for (std::uint64_t i = 0; i < 50; ++i) REQUIRE(holds(cache, i));
  }
  auto cache = f.open({.max_bytes = 4 * kMiB});
  for (std::uint64_t i = 5000; i < 5040; ++i) {
    put(cache, i);
    if (i % 8 == 0) cache.flush();
    REQUIRE(f.file_bytes() <= 4 * kMiB);
  }
  cache.flush();
  const Stats stats = cache.stats();
  CHECK(stats.run.declined == 0);
  CHECK(stats.run.puts == 40);
  CHECK(stats.run.evicted >= 30);
  CHECK(stats.run.evicted <= 60);  // of the same size, so about one for one
  for (std::uint64_t i = 0; i < 50; ++i) CHECK(holds(cache, i));
  for (std::uint64_t i = 50; i < full; ++i) CHECK(holds(cache, i) == (i >= 50 + stats.run.evicted));
  for (std::uint64_t i = 5000; i < 5040; ++i) CHECK(holds(cache, i));
}

TEST_CASE("what another handle's run uses is protected, also through a read-only handle") {
  Fixture f;
  std::uint64_t full = 0;
  {
    auto cache = f.open({.max_bytes = 2 * kMiB});
    for (std::uint64_t i = 0; i < 1000 && cache.stats().run.declined == 0; ++i) {
      put(cache, i);
      cache.flush();
      full = i;
    }
  }
  auto reader = f.open({.read_only = true});
  for (std::uint64_t i = 0; i < 20; ++i) REQUIRE(reader.get(key(i)));
  auto cache = f.open({.max_bytes = 2 * kMiB});
  for (std::uint64_t i = 0; i < 1000; ++i) put(cache, 5000 + i);
  cache.flush();
  CHECK(cache.stats().run.declined > 0);
  for (std::uint64_t i = 0; i < 20; ++i) CHECK(holds(cache, i));
  for (std::uint64_t i = 20; i < full; ++i) CHECK_FALSE(holds(cache, i));
  CHECK(f.file_bytes() <= 2 * kMiB);
}

TEST_CASE("a server that protects nothing: its load drifts, and the cache follows") {
  Fixture f;
  // Batches that a commit can take at once, and batches that are larger than the store.
  for (const std::size_t batch : {std::size_t{1} << 19, std::size_t{64} << 20}) {
    CAPTURE(batch);
    auto cache = f.open({.max_bytes = 4 * kMiB, .protect_run = false, .batch_bytes = batch});
    constexpr std::uint64_t kWindow = 100;
    std::uint64_t misses = 0;
    std::uint64_t recent = 0;
    std::mt19937_64 random(test_seed());
    constexpr std::uint64_t kSteps = 6000;
    for (std::uint64_t i = 0; i < kSteps; ++i) {
      const std::uint64_t section = i / 4 + random() % kWindow;
      if (const auto view = cache.get(key(section))) {
        REQUIRE(copy_of(view->input_ids()) == ids(section, kLength));
        ++recent;
      } else {
        ++misses;
        put(cache, section);
      }
      if (i % 500 == 499) {
        cache.flush();
        REQUIRE(f.file_bytes() <= 4 * kMiB);
      }
    }
    cache.flush();
    const RunFigures run = cache.stats().run;
    CHECK(run.declined == 0);
    CHECK(run.evicted > 500);
    CHECK(run.puts == misses);
    // Each section is missed once, when it comes first; the window is much smaller than the store.
    CHECK(misses <= kSteps / 4 + kWindow);
    CHECK(recent > kSteps / 2);
    cache.clear();
  }
}

TEST_CASE("more than the whole store at once, where nothing is protected") {
  Fixture f;
  auto cache = f.open({.max_bytes = 2 * kMiB, .protect_run = false, .batch_age = std::chrono::hours(1)});
  for (std::uint64_t round = 0; round < 3; ++round) {
    for (std::uint64_t i = 0; i < 1000; ++i) put(cache, 1000 * round + i);
    for (std::uint64_t i = 0; i < 1000; ++i) REQUIRE(cache.get(key(1000 * round + i)));  // pending
    cache.flush();
    CHECK(f.file_bytes() <= 2 * kMiB);
  }
  CHECK(cache.stats().run.declined == 0);
  CHECK(cache.stats().entry_count > 100);
  CHECK(f.messages.all().empty());
}

TEST_CASE("what one run does not protect, another may evict, and what that protects stays") {
  Fixture f;
  auto server = f.open({.max_bytes = 2 * kMiB, .protect_run = false});
  for (std::uint64_t i = 0; i < 500; ++i) put(server, i);
  server.flush();
  CHECK(server.stats().run.declined == 0);
  const std::uint64_t full = server.stats().entry_count;
  {
    auto trainer = f.open({.max_bytes = 2 * kMiB});
    for (std::uint64_t i = 0; i < 50; ++i) put(trainer, 5000 + i);
    trainer.flush();
    CHECK(trainer.stats().run.declined == 0);
    CHECK(trainer.stats().run.evicted >= 40);
    // Nobody knows of an entry who used it: what was used since the trainer began stays.
    for (std::uint64_t i = 0; i < 500; ++i) put(server, 8000 + i);
    server.flush();
    CHECK(server.stats().run.declined > 0);
    for (std::uint64_t i = 0; i < 50; ++i) CHECK(holds(trainer, 5000 + i));
  }
  CHECK(server.stats().entry_count + 20 > full);
  const std::uint64_t declined = server.stats().run.declined;
  for (std::uint64_t i = 0; i < 500; ++i) put(server, 9000 + i);
  server.flush();
  CHECK(server.stats().run.declined == declined);
  CHECK_FALSE(holds(server, 5000));  // the trainer has ended
  // A view stays what it is, and keeps its pages.
  const auto held = server.get(key(9499));
  REQUIRE(held);
  for (std::uint64_t i = 0; i < 500; ++i) put(server, 10'000 + i);
  server.flush();
  CHECK(copy_of(held->input_ids()) == ids(9499, kLength));
}

TEST_CASE("a run protects while one of its handles wants it to") {
  Fixture f;
  auto server = f.open({.max_bytes = 2 * kMiB, .protect_run = false});
  auto guard = f.open({.read_only = true, .run_id = server.run_id()});
  for (std::uint64_t i = 0; i < 500; ++i) put(server, i);
  server.flush();
  CHECK(server.stats().run.declined > 0);
  const std::uint64_t declined = server.stats().run.declined;
  guard.close();
  for (std::uint64_t i = 0; i < 500; ++i) put(server, 1000 + i);
  server.flush();
  CHECK(server.stats().run.declined == declined);
}

TEST_CASE("try_put takes what there is room for, and does not wait") {
  Fixture f;
  auto cache = f.open({.batch_bytes = 10 * (kLength * 4 + 48), .batch_age = std::chrono::hours(1)});
  cache.flush();
  std::uint64_t taken = 0;
  {
    // Nobody commits meanwhile.
    WriteLock lock(f.root() / "write.lock");
    const WriteLock::Hold hold = lock.acquire(std::chrono::seconds(5));
    for (std::uint64_t i = 0; i < 200; ++i) {
      const auto began = std::chrono::steady_clock::now();
      if (cache.try_put(key(i), {.input_ids = ids(i, kLength)})) ++taken;
      CHECK(std::chrono::steady_clock::now() - began < std::chrono::milliseconds(500));
    }
  }
  CHECK(taken >= 9);
  CHECK(taken <= 10);
  CHECK(cache.stats().not_taken == 200 - taken);
  CHECK(cache.stats().run.declined == 0);
  cache.flush();
  CHECK(cache.stats().run.puts == taken);
  for (std::uint64_t i = 0; i < taken; ++i) CHECK(cache.get(key(i)));
  CHECK(cache.try_put(key(500), {.input_ids = ids(500, kLength)}));
  const Ids two{1, 2};
  error_of(Errc::kInvalidArgument,
           [&] { cache.try_put(key(1), {.input_ids = ids(1, 3), .attention_mask = two}); });
  auto reader = f.open({.read_only = true});
  error_of(Errc::kReadOnly, [&] { reader.try_put(key(1), {.input_ids = ids(1, 3)}); });
  // A file that was replaced is no reason either.
  cache.clear();
  CHECK(cache.try_put(key(501), {.input_ids = ids(501, kLength)}));
  cache.flush();
  CHECK(cache.stats().entry_count == 1);
}

TEST_CASE("prune and clear ignore the protection, and make room") {
  Fixture f;
  auto cache = f.open({.max_bytes = 2 * kMiB});
  for (std::uint64_t i = 0; i < 400; ++i) put(cache, i);
  cache.flush();
  const std::uint64_t declined = cache.stats().run.declined;
  CHECK(declined > 0);
  CHECK(cache.clear() > 100);
  for (std::uint64_t i = 0; i < 100; ++i) put(cache, i);
  cache.flush();
  CHECK(cache.stats().run.declined == declined);
  CHECK(cache.prune(std::chrono::nanoseconds(0)) == 100);
  for (std::uint64_t i = 0; i < 100; ++i) put(cache, i);
  cache.flush();
  CHECK(cache.stats().run.declined == declined);
  CHECK(f.file_bytes() <= 2 * kMiB);
}

TEST_CASE("an entry that could never fit is declined, and evicts nothing") {
  Fixture f;
  {
    auto cache = f.open({.max_bytes = kMiB});
    for (std::uint64_t i = 0; i < 50; ++i) put(cache, i);
  }
  auto cache = f.open({.max_bytes = kMiB});
  put(cache, 99, 300'000);
  cache.flush();
  CHECK(cache.stats().run.declined == 1);
  CHECK(f.messages.count("is too large for the budget") == 1);
  CHECK(cache.stats().entry_count == 50);
  CHECK_FALSE(cache.get(key(99)));
}

TEST_CASE("a decline names the run that protects what fills the budget") {
  Fixture f;
  f.open().close();
  auto reader = f.open({.read_only = true});
  static_cast<void>(reader.get(key(0)));
  auto cache = f.open({.max_bytes = kMiB});
  for (std::uint64_t i = 0; i < 400; ++i) put(cache, i);
  cache.flush();
  CHECK(cache.stats().run.declined > 0);
  CHECK(f.messages.count("that were used since run 1 began, which is alive") > 0);
}

TEST_CASE("an entry whose replacement is declined is not served any more") {
  Fixture f;
  auto cache = f.open({.max_bytes = kMiB});
  put(cache, 1);
  cache.flush();
  put(cache, 1, 300'000);
  cache.flush();
  CHECK(cache.stats().run.declined == 1);
  CHECK_FALSE(cache.get(key(1)));
  CHECK(cache.stats().entry_count == 0);
}

TEST_CASE("a put of what is stored already keeps the entry, whatever the room") {
  Fixture f;
  std::uint64_t stored = 0;
  {
    auto cache = f.open({.max_bytes = 4 * kMiB});
    while (cache.stats().run.declined == 0) {
      put(cache, stored++);
      cache.flush();
    }
    --stored;  // the last was declined
  }
  auto cache = f.open({.max_bytes = 4 * kMiB});
  const std::uint64_t before = f.file_bytes();
  REQUIRE(cache.stats().entry_count == stored);
  SUBCASE("all of them") {
    for (std::uint64_t i = 0; i < stored; ++i) put(cache, i);
    cache.flush();
    const RunFigures run = cache.stats().run;
    CHECK(run.puts == stored);
    CHECK(run.declined == 0);
    CHECK(run.evicted == 0);
    CHECK(cache.stats().entry_count == stored);
    for (std::uint64_t i = 0; i < stored; ++i) REQUIRE(cache.get(key(i)));
    CHECK(f.file_bytes() == before);
  }
  SUBCASE("those of this run are protected then, and the others make room") {
    for (std::uint64_t i = 0; i < 20; ++i) put(cache, i);
    cache.flush();
    for (std::uint64_t i = 0; i < stored; ++i) put(cache, 5000 + i);
    cache.flush();
    for (std::uint64_t i = 0; i < 20; ++i) CHECK(holds(cache, i));
    CHECK(cache.stats().run.evicted == stored - 20);
  }
  SUBCASE("with other tokens, or another mask, it is replaced or gone") {
    const CacheKey one = key(1);
    Ids other = ids(1, kLength);
    other.back() = 7;
    cache.put(one, {.input_ids = other});
    Ids mask(kLength, 1);
    mask[0] = 0;
    cache.put(key(2), {.input_ids = ids(2, kLength), .attention_mask = mask});
    cache.flush();
    if (const auto view = cache.get(one)) CHECK(copy_of(view->input_ids()) == other);
    if (const auto view = cache.get(key(2))) CHECK(copy_of(view->attention_mask()) == mask);
  }
  SUBCASE("not one that is damaged") {
    cache.close();
    change_record(f, key(1), [](std::vector<std::byte>& bytes) { bytes[16] ^= std::byte{1}; });
    change_record(f, key(2), [](std::vector<std::byte>& bytes) { bytes[32] ^= std::byte{1}; });
    auto again = f.open({.max_bytes = 6 * kMiB});
    put(again, 1);
    put(again, 2);
    again.flush();
    CHECK(again.get(key(1)));
    CHECK(again.get(key(2)));
  }
}

TEST_CASE("large entries after small ones: the free pages are not side by side") {
  Fixture f;
  {
    auto cache = f.open({.max_bytes = 4 * kMiB});
    for (std::uint64_t i = 0; i < 1200; ++i) put(cache, i, 900);  // one page
    cache.flush();
    CHECK(cache.stats().entry_count > 700);
  }
  auto cache = f.open({.max_bytes = 4 * kMiB});
  for (std::uint64_t i = 0; i < 10; ++i) {
    put(cache, 5000 + i, 33'000);  // 33 pages
    cache.flush();
    REQUIRE(f.file_bytes() <= 4 * kMiB);
  }
  CHECK(cache.stats().run.puts == 10);
  for (std::uint64_t i = 0; i < 10; ++i) CHECK(holds(cache, 5000 + i));
}

TEST_CASE("while readers hold the freed pages, puts are declined and not much is evicted in vain") {
  Fixture f;
  std::vector<std::uint64_t> kept;
  {
    auto cache = f.open({.max_bytes = 2 * kMiB});
    for (std::uint64_t i = 0; i < 400; ++i) put(cache, i);
    cache.flush();
    for (std::uint64_t i = 0; i < 400; ++i) {
      if (holds(cache, i)) kept.push_back(i);
    }
  }
  auto cache = f.open({.max_bytes = 2 * kMiB});
  std::optional<TokenView> view;
  {
    auto reader = f.open({.read_only = true});
    view = reader.get(key(kept[0]));
  }
  REQUIRE(view);
  for (std::uint64_t i = 0; i < 60; ++i) {
    put(cache, 5000 + i);
    cache.flush();
    REQUIRE(f.file_bytes() <= 2 * kMiB);
  }
  const Stats held = cache.stats();
  CHECK(held.run.declined > 0);
  CHECK(f.messages.count("hold views for a shorter time") > 0);
  CHECK(held.run.evicted < kept.size() / 2);
  CHECK(copy_of(view->input_ids()) == ids(kept[0], kLength));
  view.reset();
  for (std::uint64_t i = 0; i < 20; ++i) put(cache, 6000 + i);
  cache.flush();
  CHECK(cache.stats().run.declined == held.run.declined);
  for (std::uint64_t i = 0; i < 20; ++i) CHECK(holds(cache, 6000 + i));
}

TEST_CASE("a stream of large batches at the cap, with and without readers") {
  constexpr std::uint64_t kBudget = 64 * kMiB;
  constexpr std::uint64_t kPerBatch = 1000;  // 3,000 pages
  constexpr std::size_t kIds = 2100;
  bool with_readers = false;
  SUBCASE("without readers") {}
  SUBCASE("with readers") { with_readers = true; }
  Fixture f;
  std::uint64_t next = 0;
  for (int run = 0; run < 4; ++run) {
    auto cache = f.open({.max_bytes = kBudget});
    auto reader = f.open({.read_only = true});
    std::vector<std::pair<std::uint64_t, TokenView>> held;
    for (int batch = 0; batch < 4; ++batch) {
      const std::uint64_t first = next;
      for (; next < first + kPerBatch; ++next) put(cache, next, kIds);
      cache.flush();
      REQUIRE(f.file_bytes() <= kBudget);
      for (const auto& [section, view] : held) REQUIRE(copy_of(view.input_ids()) == ids(section, kIds));
      held.clear();
      for (std::uint64_t i = first; with_readers && i < next; i += 7) {
        if (auto view = reader.get(key(i))) held.emplace_back(i, *std::move(view));
      }
    }
    const Stats stats = cache.stats();
    CHECK(stats.run.puts + stats.run.declined == 4 * kPerBatch);
    if (!with_readers) CHECK(stats.run.declined == 0);
    // What is there is what was put last, without gaps.
    if (!with_readers) {
      const std::vector<CacheKey> keys = cache.keys();  // which uses none of them
      const std::set<CacheKey> stored(keys.begin(), keys.end());
      CHECK(stored.size() == stats.entry_count);
      for (std::uint64_t i = next - stored.size(); i < next; ++i) CHECK(stored.contains(key(i)));
      // A file of these takes 4 pages for each, trees and all; an eighth may be free in a stream.
      if (run > 1) CHECK(stats.entry_count > kBudget / (4 * 4096) * 3 / 4);
    }
  }
  CHECK(f.open().verify().damaged == 0);
}

// What the last commit freed is held by whoever reads the newest snapshot, for as long as there is no newer
// one.
TEST_CASE("a reader that reads all the time, and holds nothing for long, does not keep puts out") {
  constexpr std::uint64_t kPerRun = 1600;  // 12 MiB
  const Fixture f;
  std::uint64_t next = 0;
  std::uint64_t declined = 0;
  for (int run = 0; run < 12; ++run) {
    auto cache = f.open({.max_bytes = 48 * kMiB});
    std::atomic<bool> stop{false};
    std::thread reading([&, seed = static_cast<unsigned>(run), keys = cache.keys()] {
      std::mt19937_64 random(seed);
      auto reader = f.open({.read_only = true, .observe = true});
      std::deque<TokenView> views;
      while (!stop && !keys.empty()) {
        if (auto view = reader.get(keys[random() % keys.size()])) views.push_back(*std::move(view));
        if (views.size() > 16) views.pop_front();
        std::this_thread::sleep_for(std::chrono::microseconds(500));
      }
    });
    for (int slice = 0; slice < 4; ++slice) {
      for (const std::uint64_t end = next + kPerRun / 4; next < end; ++next) put(cache, next);
      cache.flush();
    }
    declined += cache.stats().run.declined;
    stop = true;
    reading.join();
  }
  CHECK(declined == 0);
}

TEST_CASE("the smallest budget works, and a smaller one is refused") {
  Fixture f;
  auto cache = f.open({.max_bytes = Options::kMinMaxBytes});
  for (std::uint64_t i = 0; i < 300; ++i) {
    put(cache, i, i % 1500);
    if (i % 3 == 0) cache.flush();
    REQUIRE(f.file_bytes() <= Options::kMinMaxBytes);
  }
  cache.flush();
  CHECK(cache.stats().entry_count > 0);
  CHECK(cache.clear() > 0);
  put(cache, 1);
  cache.flush();
  CHECK(holds(cache, 1));
  error_of(Errc::kInvalidArgument, [&] { auto smaller = f.open({.max_bytes = Options::kMinMaxBytes - 1}); });
}

TEST_CASE("a store larger than the budget it is opened with does not grow") {
  Fixture f;
  {
    auto cache = f.open({.max_bytes = 8 * kMiB});
    for (std::uint64_t i = 0; i < 500; ++i) put(cache, i);
  }
  const std::uint64_t before = f.file_bytes();
  REQUIRE(before > 4 * kMiB);
  auto cache = f.open({.max_bytes = 2 * kMiB, .shrink = true});
  for (std::uint64_t i = 0; i < 100; ++i) put(cache, 5000 + i);
  cache.flush();
  CHECK(f.file_bytes() <= before);
}

TEST_CASE("whatever is put, replaced, read, pruned and held, the file stays within the cap") {
  const std::uint64_t seed = test_seed();
  INFO("TOKCASK_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  for (const std::uint64_t max_bytes : {Options::kMinMaxBytes, kMiB, 3 * kMiB, 8 * kMiB}) {
    CAPTURE(max_bytes);
    Fixture f;
    std::vector<std::optional<TokenView>> held(4);
    for (int run = 0; run < 6; ++run) {
      auto cache = f.open({.max_bytes = max_bytes, .batch_bytes = std::uint64_t{1} << (14 + random() % 8)});
      for (int step = 0; step < 150; ++step) {
        const std::uint64_t section = random() % 600;
        switch (random() % 16) {
          case 0:
            cache.flush();
            break;
          case 1:
            held[random() % held.size()] = cache.get(key(section));
            break;
          case 2:
            held[random() % held.size()].reset();
            break;
          case 3:
            if (random() % 20 == 0) unless_held([&] { cache.clear(); });
            break;
          case 4:
            if (random() % 8 == 0)
              unless_held([&] { cache.prune(std::chrono::milliseconds(random() % 200)); });
            break;
          default: {
            const std::size_t length = random() % 12 == 0 ? random() % 40'000 : random() % 2500;
            cache.put(key(section), {.input_ids = ids(section + length, length)});
            if (const auto view = cache.get(key(section))) {
              REQUIRE(copy_of(view->input_ids()) == ids(section + length, length));
            }
          }
        }
        REQUIRE(f.file_bytes() <= max_bytes);
      }
      cache.close();
      REQUIRE(f.file_bytes() <= max_bytes);
    }
  }
}

}  // namespace tokcask
