// Views: aligned for every size, and unchanged for as long as they are held.
#include <algorithm>
#include <cstdint>
#include <thread>

#include "record/record.h"
#include "support.h"

namespace tokcask {

using namespace test;

namespace {

// The smallest payload that goes to overflow pages, with the keys used here: 88 bytes.
bool is_large(std::size_t length) { return 8 + 88 + record::record_bytes(length, false) > 2038; }

std::uintptr_t address(const TokenView& view) {
  return reinterpret_cast<std::uintptr_t>(view.input_ids().data());
}

}  // namespace

TEST_CASE("every length from 0 to 20,000 is aligned and intact, through random deletes and rewrites") {
  constexpr std::size_t kLongest = 20'000;
  constexpr int kRounds = 3;
  const std::uint64_t seed = test_seed();
  INFO("TOKCASK_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  Fixture f;
  auto cache = f.open({.batch_bytes = std::uint64_t{8} << 20});
  std::vector<std::size_t> length_of(kLongest + 1);
  for (std::size_t i = 0; i <= kLongest; ++i) length_of[i] = i;
  std::uint64_t checked = 0;
  for (int round = 0; round < kRounds; ++round) {
    // The first round writes all; later ones rewrite a third, each with the length of another.
    std::vector<std::size_t> rewritten;
    for (std::size_t i = 0; i <= kLongest; ++i) {
      if (round == 0 || random() % 3 == 0) rewritten.push_back(i);
    }
    if (round > 0) {
      std::vector<std::size_t> lengths;
      for (const std::size_t i : rewritten) lengths.push_back(length_of[i]);
      std::shuffle(lengths.begin(), lengths.end(), random);
      for (std::size_t i = 0; i < rewritten.size(); ++i) length_of[rewritten[i]] = lengths[i];
      // What is not touched from here on is pruned, if it is not put again: random deletes.
      std::vector<CacheKey> kept;
      for (std::size_t i = 0; i <= kLongest; ++i) {
        if (random() % 5 != 0) kept.push_back(key(i));
      }
      constexpr std::chrono::milliseconds kMargin{200};
      std::this_thread::sleep_for(2 * kMargin);
      const auto before = std::chrono::steady_clock::now();
      REQUIRE(cache.contains_many(kept).size() == kept.size());
      const auto age = std::chrono::steady_clock::now() - before + kMargin;
      CHECK(cache.prune(age) == kLongest + 1 - kept.size());
      rewritten.resize(kLongest + 1);
      for (std::size_t i = 0; i <= kLongest; ++i) rewritten[i] = i;
      const auto there = cache.contains_many(kept);
      CHECK(std::all_of(there.begin(), there.end(), [](bool found) { return found; }));
    }
    for (const std::size_t i : rewritten) {
      if (round == 0 || random() % 2 == 0 || !cache.get(key(i)) ||
          cache.get(key(i)).value().size() != length_of[i]) {
        cache.put(key(i), {.input_ids = ids(i, length_of[i])});
      }
    }
    cache.flush();
    for (std::size_t i = 0; i <= kLongest; ++i) {
      const auto view = cache.get(key(i));
      REQUIRE(view);
      REQUIRE(view->size() == length_of[i]);
      REQUIRE(address(*view) % 8 == 0);
      if (is_large(length_of[i])) REQUIRE(address(*view) % 64 == 0);
      REQUIRE(copy_of(view->input_ids()) == ids(i, length_of[i]));
      ++checked;
    }
  }
  CHECK(checked == kRounds * (kLongest + 1));
}

TEST_CASE("keys of every length leave inline records aligned") {
  const std::uint64_t seed = test_seed();
  INFO("TOKCASK_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  Fixture f;
  auto cache = f.open();
  std::vector<CacheKey> keys;
  for (std::size_t section = 1; section <= 400; ++section) {
    const auto name = std::string(section, static_cast<char>('a' + section % 26));
    keys.emplace_back(name, sha().substr(0, 1 + section % 64), static_cast<std::int64_t>(600 + section));
  }
  for (int round = 0; round < 5; ++round) {
    for (std::size_t i = 0; i < keys.size(); ++i) {
      if (random() % 2 == 0) cache.put(keys[i], {.input_ids = ids(i, random() % 600)});
    }
    cache.flush();
    for (const auto& view : cache.get_many(keys)) {
      if (view) CHECK(address(*view) % 8 == 0);
    }
  }
}

TEST_CASE("pending tokens are aligned too") {
  Fixture f;
  auto cache = f.open();
  for (std::size_t length = 0; length < 100; ++length) {
    cache.put(key(length), {.input_ids = ids(1, length)});
    CHECK(address(*cache.get(key(length))) % 64 == 0);
  }
}

TEST_CASE("views held across a full clear and refill still have their bytes") {
  constexpr std::size_t kEntries = 400;
  Fixture f;
  auto cache = f.open();
  const auto length = [](std::size_t i) { return i * 37 % 5000; };
  std::vector<CacheKey> keys;
  for (std::size_t i = 0; i < kEntries; ++i) {
    keys.push_back(key(i));
    cache.put(keys[i], {.input_ids = ids(i, length(i))});
  }
  cache.flush();
  const auto views = cache.get_many(keys);
  std::vector<Ids> copies;
  for (const auto& view : views) copies.push_back(copy_of(view->input_ids()));

  for (int refill = 1; refill <= 4; ++refill) {
    CHECK(cache.clear() == kEntries);
    for (std::size_t i = 0; i < kEntries; ++i) cache.put(keys[i], {.input_ids = ids(1000 + i, length(i))});
    cache.flush();
    for (std::size_t i = 0; i < kEntries; ++i) REQUIRE(copy_of(views[i]->input_ids()) == copies[i]);
  }
  for (std::size_t i = 0; i < kEntries; ++i) {
    CHECK(copy_of(cache.get(keys[i])) == ids(1000 + i, length(i)));
  }
  cache.close();
  for (std::size_t i = 0; i < kEntries; ++i) REQUIRE(copy_of(views[i]->input_ids()) == copies[i]);
}

TEST_CASE("an idle handle holds no pages: rewriting does not make the file grow") {
  Fixture f;
  auto cache = f.open();
  auto reader = f.open({.read_only = true});
  std::uint64_t settled = 0;
  for (int round = 0; round < 30; ++round) {
    for (std::uint64_t i = 0; i < 50; ++i) cache.put(key(i), {.input_ids = ids(i, 3000)});
    cache.flush();
    for (std::uint64_t i = 0; i < 50; ++i) CHECK(reader.get(key(i)));
    if (round == 5) settled = f.file_bytes();
  }
  CHECK(f.file_bytes() <= settled);
}

}  // namespace tokcask
