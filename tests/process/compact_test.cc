// A data file that is replaced: alone, or not at all, and by processes that are killed meanwhile.
#include <tokcask/dataset.h>

#include <csignal>
#include <memory>
#include <set>
#include <thread>

#include "child.h"
#include "files/store_files.h"
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

}  // namespace

TEST_CASE("compact is refused while another process has the store open, which is named") {
  Fixture f;
  auto cache = f.open();
  fill(cache, 0, 50);
  const auto id = files::id_of(f.data());
  Child reader([&](const Line& line) {
    auto own = f.open({.read_only = true});
    line.tell(1);
    line.hear();
    return has_all(own, 0, 50);
  });
  REQUIRE(reader.line().hear() == 1);
  const std::string message = error_of(Errc::kBusy, [&] { cache.compact(); });
  CHECK(message.find(std::to_string(reader.pid())) != std::string::npos);
  CHECK(files::id_of(f.data()) == id);
  fill(cache, 50, 60);
  reader.line().tell(1);
  CHECK(reader.succeeded());
  cache.compact();
  CHECK(files::id_of(f.data()) != id);
  CHECK(has_all(cache, 0, 60));
}

TEST_CASE("a child that inherits a handle and a data set and has used neither goes on in the new file") {
  Fixture f;
  auto cache = f.open();
  fill(cache, 0, 200);
  std::vector<CacheKey> keys;
  for (std::uint64_t i = 0; i < 200; ++i) keys.push_back(key(i));
  auto dataset = std::make_unique<TokenDataset>(TokenDataset::open(f.root(), keys));
  Child child([&](const Line& line) {
    line.hear();
    for (std::uint64_t i = 0; i < keys.size(); ++i) {
      const auto view = dataset->get(i);
      if (!view || !right(*view, i)) return false;
    }
    return has_all(cache, 0, 200) && has(cache, 1000);
  });
  dataset->close();
  cache.compact();
  put(cache, 1000);
  cache.flush();
  child.line().tell(1);
  CHECK(child.succeeded());
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

TEST_CASE("killed while it clears or lowers the budget: a whole store, and within the budget") {
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
      if (!clear) {
        REQUIRE(f.file_bytes() <= kLow);
        REQUIRE(entries > 50);
      }
    }
    // Removing in commits takes some pages before it gives them back.
    REQUIRE(f.file_bytes() <= before + (clear ? 64 * 4096 : 0));
    REQUIRE(cache.verify().structure_ok);
    put(cache, 1000);
    cache.flush();
    REQUIRE(has(cache, 1000));
    cache.compact();
    REQUIRE(is_clean(f));
  }
  MESSAGE(done << " of 30 were done before the kill");
}

TEST_CASE("processes open a store while it is compacted again and again: each has a whole one, or is told") {
  Fixture f;
  {
    auto cache = f.open();
    fill(cache, 0, 50);
  }
  std::vector<std::unique_ptr<Child>> openers;
  for (std::uint64_t number = 0; number < 3; ++number) {
    openers.push_back(std::make_unique<Child>([&, number](const Line&) {
      for (std::uint64_t i = 0; i < 100; ++i) {
        auto own = f.open({.read_only = i % 2 == 0});
        if (!has_all(own, 0, 10)) return false;
        if (i % 2 == 0) continue;
        put(own, 1000 * (number + 1) + i);
        own.close();
      }
      return f.messages.all().empty();
    }));
  }
  std::uint64_t compactions = 0;
  for (int i = 0; i < 200; ++i) {
    auto cache = f.open();
    try {
      cache.compact();
      ++compactions;
    } catch (const Error& error) {
      REQUIRE(error.code() == Errc::kBusy);
    }
    cache.close();
    std::this_thread::sleep_for(milliseconds(1));
  }
  for (const auto& child : openers) CHECK(child->succeeded());
  MESSAGE(compactions << " compactions");
  auto cache = f.open();
  CHECK(cache.stats().entry_count == 50 + std::uint64_t{3} * 50);
  cache.compact();
  CHECK(is_clean(f));
}

}  // namespace tokcask
