// A data file that is replaced under processes that read and write it, and by processes that are killed
// meanwhile.
#include <tokcask/dataset.h>

#include <csignal>
#include <fstream>
#include <memory>
#include <set>
#include <thread>

#include "cache/store_files.h"
#include "child.h"
#include "support.h"

namespace tokcask {

using namespace test;

namespace fs = std::filesystem;

namespace {

using std::chrono::milliseconds;

std::size_t length_of(std::uint64_t section) { return section * 131 % 2500; }

void put(TokenizedCache& cache, std::uint64_t section) {
  cache.put(key(section), {.input_ids = ids(section, length_of(section))});
}

void fill(TokenizedCache& cache, std::uint64_t from, std::uint64_t to) {
  for (std::uint64_t i = from; i < to; ++i) put(cache, i);
  cache.flush();
}

bool right(const TokenView& view, std::uint64_t section) {
  return copy_of(view.input_ids()) == ids(section, length_of(section));
}

bool has(TokenizedCache& cache, std::uint64_t section) {
  const auto view = cache.get(key(section));
  return view && right(*view, section);
}

bool has_all(TokenizedCache& cache, std::uint64_t from, std::uint64_t to) {
  for (std::uint64_t i = from; i < to; ++i) {
    if (!has(cache, i)) return false;
  }
  return true;
}

// Another process makes a new file of the store.
bool compact_elsewhere(const Fixture& f) {
  Child child([&](const Line&) {
    auto cache = f.open();
    cache.compact();
    cache.close();
    return true;
  });
  return child.succeeded();
}

bool has_elsewhere(const Fixture& f, std::uint64_t section) {
  Child child([&](const Line&) {
    auto cache = f.open({.read_only = true});
    return has(cache, section);
  });
  return child.succeeded();
}

// Puts without end, and tells how many of them are flushed.
bool put_for_ever(const Fixture& f, std::uint64_t from, const Line& line) {
  auto cache = f.open({.batch_bytes = 1 << 18, .batch_age = milliseconds(3)});
  for (std::uint64_t i = 0;; ++i) {
    put(cache, from + i);
    if (!has(cache, from + i)) return false;
    if (i % 7 != 0) continue;
    cache.flush();
    if (!has(cache, from + i)) return false;
    line.tell(i + 1);
  }
}

}  // namespace

TEST_CASE("two processes write while a third compacts again and again: nothing acknowledged is lost") {
  Fixture f;
  f.open().close();
  constexpr std::uint64_t kApart = 1'000'000;
  std::vector<std::uint64_t> acknowledged(2);
  {
    Child first([&](const Line& line) { return put_for_ever(f, 0, line); });
    Child second([&](const Line& line) { return put_for_ever(f, kApart, line); });
    Child compacting([&](const Line& line) -> bool {
      auto cache = f.open();
      for (std::uint64_t i = 0;; ++i) {
        cache.compact();
        line.tell(i);
      }
    });
    while (compacting.line().hear().value_or(25) < 25) {
    }
    // What they told meanwhile is in the pipes, which hold more than that.
    for (Child* child : {&first, &second, &compacting}) child->signal(SIGKILL);
    CHECK_FALSE(compacting.succeeded());
    CHECK_FALSE(first.succeeded());
    CHECK_FALSE(second.succeeded());
    while (const auto told = first.line().hear()) acknowledged[0] = *told;
    while (const auto told = second.line().hear()) acknowledged[1] = *told;
  }
  auto cache = f.open();
  CHECK(acknowledged[0] > 100);
  CHECK(acknowledged[1] > 100);
  CHECK(has_all(cache, 0, acknowledged[0]));
  CHECK(has_all(cache, kApart, kApart + acknowledged[1]));
  cache.compact();
  CHECK(is_clean(f));
}

TEST_CASE("views in this process and in another stay right while the store is written anew under them") {
  Fixture f;
  auto cache = f.open();
  fill(cache, 0, 300);
  std::vector<std::pair<std::uint64_t, TokenView>> held;
  Child reader([&](const Line& line) {
    auto own = f.open({.read_only = true});
    std::vector<std::pair<std::uint64_t, TokenView>> views;
    for (std::uint64_t round = 0; const auto heard = line.hear(); ++round) {
      if (!has(own, *heard)) return false;  // what was put a moment ago, into a file that was new then
      for (std::uint64_t i = round; i < 300; i += 29) {
        views.emplace_back(i, *own.get(key(i)));
      }
      for (const auto& [section, view] : views) {
        if (!right(view, section)) return false;
      }
      line.tell(round);
    }
    return true;
  });
  for (std::uint64_t round = 0; round < 15; ++round) {
    for (std::uint64_t i = round; i < 300; i += 31) held.emplace_back(i, *cache.get(key(i)));
    put(cache, 1000 + round);
    if (round % 2 == 0) {
      cache.compact();
    } else {
      CHECK(compact_elsewhere(f));
      cache.flush();
    }
    reader.line().tell(1000 + round);
    REQUIRE(reader.line().hear() == round);
    fill(cache, 0, 300);  // all of it again, into pages that the old files had
    for (const auto& [section, view] : held) REQUIRE(right(view, section));
  }
  CHECK(cache.verify().structure_ok);
}

TEST_CASE("an inherited handle and an inherited data set go on in the new file") {
  Fixture f;
  auto cache = f.open();
  fill(cache, 0, 200);
  std::vector<CacheKey> keys;
  for (std::uint64_t i = 0; i < 200; ++i) keys.push_back(key(i));
  auto dataset = TokenDataset::open(f.root(), keys);
  const auto packed = dataset.packed_keys();
  const auto all_right = [](TokenDataset& there) {
    for (std::uint64_t i = 0; i < there.size(); ++i) {
      const auto view = there.get(i);
      if (!view || !right(*view, i)) return false;
    }
    return true;
  };
  const auto view = *cache.get(key(150));
  const auto check = [&](const Line& line) {
    while (const auto section = line.hear()) {
      auto pickled = TokenDataset::open_packed(f.root(), packed);
      const bool good = has(cache, *section) && has_all(cache, 0, 50) && all_right(dataset) &&
                        all_right(pickled) && right(view, 150);
      line.tell(good ? 1 : 0);
    }
    return true;
  };
  Child used(check);
  used.line().tell(0);
  CHECK(used.line().hear() == 1);
  Child unused(check);  // does not touch what it inherited before the file is another one
  for (std::uint64_t round = 0; round < 5; ++round) {
    CHECK(compact_elsewhere(f));
    put(cache, 1000 + round);
    cache.flush();
    CHECK(all_right(dataset));
    for (Child* child : {&used, &unused}) {
      child->line().tell(1000 + round);
      CHECK(child->line().hear() == 1);
    }
  }
}

TEST_CASE("puts that are pending when another process replaces the file end up in the new one") {
  Fixture f;
  auto cache = f.open({.batch_age = std::chrono::hours(1)});
  fill(cache, 0, 20);
  put(cache, 100);
  const auto pending = *cache.get(key(100));
  REQUIRE(compact_elsewhere(f));
  CHECK(has(cache, 100));
  put(cache, 101);
  CHECK(cache.stats().pending == 2);
  SUBCASE("by flush") { cache.flush(); }
  SUBCASE("by close") { cache.close(); }
  SUBCASE("by a flush that finds the next one, too") {
    REQUIRE(compact_elsewhere(f));
    cache.flush();
  }
  SUBCASE("by a close that finds the next one, too") {
    REQUIRE(compact_elsewhere(f));
    cache.close();
  }
  CHECK(has_elsewhere(f, 100));
  CHECK(has_elsewhere(f, 101));
  CHECK(right(pending, 100));
}

TEST_CASE("a process that makes no call any more has its puts committed to the new file") {
  Fixture f;
  auto cache = f.open({.batch_age = milliseconds(300)});
  auto reader = f.open({.read_only = true});
  fill(cache, 0, 20);
  put(cache, 100);
  REQUIRE(compact_elsewhere(f));
  Child other([&](const Line&) {
    auto own = f.open({.read_only = true});
    for (int i = 0; i < 1000 && !own.get(key(100)); ++i) std::this_thread::sleep_for(milliseconds(10));
    return has(own, 100);
  });
  CHECK(other.succeeded());
  CHECK(has(cache, 100));
  CHECK(has(reader, 100));
  CHECK(cache.stats().entry_count == 21);
  CHECK(f.messages.all().empty());
}

TEST_CASE("a run protects what it used also in the new file") {
  constexpr std::uint64_t kMaxBytes = std::uint64_t{2} << 20;
  Fixture f;
  {
    auto cache = f.open({.max_bytes = kMaxBytes});
    for (std::uint64_t i = 0; i < 100; ++i) cache.put(key(i), {.input_ids = ids(i, 2000)});
  }
  auto reader = f.open({.read_only = true});
  for (std::uint64_t i = 0; i < 20; ++i) REQUIRE(reader.get(key(i)));
  for (int round = 0; round < 3; ++round) {
    REQUIRE(compact_elsewhere(f));
    REQUIRE(reader.get(key(1)));
  }
  auto cache = f.open();
  for (std::uint64_t i = 1000; i < 1300; ++i) cache.put(key(i), {.input_ids = ids(i, 2000)});
  cache.flush();
  CHECK(cache.stats().run.evicted == 80);
  for (std::uint64_t i = 0; i < 20; ++i) CHECK(reader.get(key(i)));
}

TEST_CASE("a new file is found when the shared memory that tells of it is gone") {
  Fixture f;
  auto cache = f.open();
  fill(cache, 0, 20);
  fs::remove(f.root() / "access.shm");
  Child other([&](const Line&) {
    auto own = f.open();
    own.compact();
    fill(own, 100, 110);
    own.close();
    return true;
  });
  CHECK(other.succeeded());
  fill(cache, 200, 210);  // writers look before they write
  CHECK(has_elsewhere(f, 205));
  auto reader = f.open({.read_only = true});
  CHECK(has_all(reader, 100, 110));
}

TEST_CASE("killed while it compacts: the old file or the new one, whole, and nothing is lost") {
  const std::uint64_t seed = test_seed();
  INFO("TOKCASK_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  Fixture f;
  std::uint64_t there = 200;
  {
    auto cache = f.open();
    fill(cache, 0, there);
  }
  std::set<FileId> files;
  for (int round = 0; round < 40; ++round) {
    Child child([&](const Line& line) -> bool {
      auto cache = f.open();
      line.tell(1);
      for (;;) cache.compact();
    });
    REQUIRE(child.line().hear() == 1);
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 12'000));
    child.signal(SIGKILL);
    CHECK_FALSE(child.succeeded());
    auto cache = f.open();
    files.insert(*files::id_of(f.data()));
    REQUIRE(cache.stats().entry_count == there);
    const VerifyReport report = cache.verify();
    REQUIRE(report.structure_ok);
    REQUIRE(report.damaged == 0);
    put(cache, there++);
    cache.flush();
  }
  auto cache = f.open();
  CHECK(has_all(cache, 0, there));
  CHECK(f.messages.all().empty());
  cache.compact();
  CHECK(is_clean(f));
}

TEST_CASE("killed while it clears or lowers the budget: all or nothing, and within the budget") {
  constexpr std::uint64_t kLow = std::uint64_t{1} << 20;
  const std::uint64_t seed = test_seed();
  INFO("TOKCASK_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  std::uint64_t done = 0;
  for (int round = 0; round < 30; ++round) {
    Fixture f;
    const bool clear = round % 2 == 0;
    {
      auto cache = f.open();
      fill(cache, 0, 300);
    }
    const std::uint64_t before = f.file_bytes();
    REQUIRE(before > kLow);
    Child child([&](const Line& line) {
      line.tell(1);
      auto cache = f.open(clear ? Options{} : Options{.max_bytes = kLow, .shrink = true});
      if (clear) cache.clear();
      line.hear();
      return true;
    });
    REQUIRE(child.line().hear() == 1);
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 25'000));
    child.signal(SIGKILL);
    CHECK_FALSE(child.succeeded());
    auto cache = f.open();
    const std::uint64_t entries = cache.stats().entry_count;
    if (entries != 300) {
      ++done;
      REQUIRE(f.file_bytes() <= kLow);
      REQUIRE((clear ? entries == 0 : entries > 50));
    } else {
      REQUIRE(f.file_bytes() == before);
    }
    REQUIRE(cache.verify().structure_ok);
    put(cache, 1000);
    cache.flush();
    REQUIRE(has(cache, 1000));
    cache.compact();
    REQUIRE(is_clean(f));
  }
  MESSAGE(done << " of 30 were done before the kill");
}

TEST_CASE("processes that open a store while its file is replaced get one file with its own lock file") {
  Fixture f;
  auto cache = f.open();
  fill(cache, 0, 50);
  std::vector<std::unique_ptr<Child>> openers;
  for (std::uint64_t number = 0; number < 3; ++number) {
    openers.push_back(std::make_unique<Child>([&, number](const Line&) {
      for (std::uint64_t i = 0; i < 150; ++i) {
        auto own = f.open({.read_only = i % 2 == 0});
        if (!has_all(own, 0, 10)) return false;
        if (i % 2 == 0) continue;
        put(own, 1000 * (number + 1) + i);
        own.close();
      }
      return f.messages.all().empty();
    }));
  }
  for (int i = 0; i < 40; ++i) cache.compact();
  for (const auto& child : openers) CHECK(child->succeeded());
  CHECK(cache.stats().entry_count == 50 + std::uint64_t{3} * 75);
  CHECK(f.messages.all().empty());
}

}  // namespace tokcask
