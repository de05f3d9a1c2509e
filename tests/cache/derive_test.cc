// Entries of one sequence length that serve look-ups of another.
#include <algorithm>
#include <fstream>
#include <map>
#include <optional>

#include <tokcask/dataset.h>

#include "support.h"

namespace tokcask {

using namespace test;

namespace {

constexpr TokenizerTraits kBoth{.cuts_at_length = true, .cuts_to_prefix = true};

// What a tokenizer makes of a text of `whole` ids: a prefix, or one that ends in a token of its own.
Ids tokenize(std::uint64_t text, std::size_t whole, std::size_t sequence_len, bool end_token = false) {
  Ids all = ids(text, whole);
  if (end_token) all.push_back(-7);
  if (all.size() <= sequence_len) return all;
  all.resize(sequence_len);
  if (end_token) all.back() = -7;
  return all;
}

std::optional<Ids> read(TokenizedCache& cache, const CacheKey& k) {
  const auto view = cache.get(k);
  if (!view) return std::nullopt;
  CHECK(view->attention_mask().size() == view->input_ids().size());
  return copy_of(view->input_ids());
}

}  // namespace

TEST_CASE("what is served is what the tokenizer would have returned, for every pair of lengths") {
  for (const bool end_token : {false, true}) {
    Fixture f;
    auto cache = f.open();
    cache.declare_tokenizer(sha(), {.cuts_at_length = true, .cuts_to_prefix = !end_token});
    const std::vector<std::size_t> wholes{0, 1, 7, 8, 9, 20, 600, 3000};
    const std::vector<std::int32_t> lengths{1, 7, 8, 9, 16, 512, 1024, 4096};
    for (std::size_t text = 0; text < wholes.size(); ++text) {
      for (std::size_t stored = 0; stored < lengths.size(); ++stored) {
        cache.put(key(1000 * stored + text, 0, lengths[stored]),
                  {.input_ids =
                       tokenize(text, wholes[text], static_cast<std::size_t>(lengths[stored]), end_token)});
      }
    }
    cache.flush();
    std::uint64_t served = 0;
    for (std::size_t text = 0; text < wholes.size(); ++text) {
      for (std::size_t stored = 0; stored < lengths.size(); ++stored) {
        for (const std::int32_t wanted : lengths) {
          const auto found = read(cache, key(1000 * stored + text, 0, wanted));
          const Ids right = tokenize(text, wholes[text], static_cast<std::size_t>(wanted), end_token);
          const std::size_t all = wholes[text] + (end_token ? 1 : 0);
          const bool exact = wanted == lengths[stored];
          const bool whole = all < static_cast<std::size_t>(lengths[stored]);
          const bool must = exact || (whole && all <= static_cast<std::size_t>(wanted)) ||
                            (!end_token && wanted < lengths[stored]);
          CAPTURE(wholes[text]);
          CAPTURE(lengths[stored]);
          CAPTURE(wanted);
          CAPTURE(end_token);
          CHECK(found.has_value() == must);
          if (found) CHECK(*found == right);
          if (found && !exact) ++served;
        }
      }
    }
    const Stats stats = cache.stats();
    CHECK(stats.run.derived == served);
    CHECK(stats.run.hits == served + wholes.size() * lengths.size());
    CHECK(served > 50);
  }
}

TEST_CASE("nothing is served of a tokenizer of which nothing is declared, nor where it is switched off") {
  Fixture f;
  auto cache = f.open();
  cache.put(key(1, 0, 100), {.input_ids = ids(1, 50)});
  cache.flush();
  CHECK_FALSE(cache.get(key(1, 0, 80)));
  cache.declare_tokenizer(sha(), kBoth);
  CHECK(cache.get(key(1, 0, 80)).has_value());
  CHECK_FALSE(cache.get(key(1, 1, 80)));  // another tokenizer
  CHECK_FALSE(cache.get(key(2, 0, 80)));
  auto exact = f.open({.derive_lengths = false});
  CHECK_FALSE(exact.get(key(1, 0, 80)));
  CHECK(exact.get(key(1, 0, 100)).has_value());
}

TEST_CASE("a declaration is kept, and may be taken back") {
  Fixture f;
  auto cache = f.open();
  cache.put(key(1, 0, 100), {.input_ids = ids(1, 50)});
  cache.declare_tokenizer(sha(), kBoth);
  cache.close();
  cache = f.open();
  CHECK(cache.get(key(1, 0, 80)).has_value());
  cache.declare_tokenizer(sha(), {});
  CHECK_FALSE(cache.get(key(1, 0, 80)));
  cache.close();
  CHECK_FALSE(f.open().get(key(1, 0, 80)));
}

TEST_CASE("a section's name that another begins with is another section") {
  Fixture f;
  auto cache = f.open();
  cache.declare_tokenizer(sha(), kBoth);
  cache.put(CacheKey("ab", sha(), 100), {.input_ids = ids(1, 50)});
  cache.put(CacheKey("a", sha(), 90), {.input_ids = ids(2, 50)});
  cache.flush();
  CHECK(read(cache, CacheKey("ab", sha(), 80)) == ids(1, 50));
  CHECK(read(cache, CacheKey("a", sha(), 80)) == ids(2, 50));
  CHECK_FALSE(cache.get(CacheKey("abc", sha(), 80)));
}

TEST_CASE("an irregular mask is cut with the ids, and serving an entry keeps it from eviction") {
  Fixture f;
  auto cache = f.open({.max_bytes = std::uint64_t{1} << 20});
  cache.declare_tokenizer(sha(), kBoth);
  Ids mask(3000, 1);
  mask[5] = mask[2999] = 0;
  cache.put(key(1, 0, 4096), {.input_ids = ids(1, 3000), .attention_mask = mask});
  for (std::uint64_t i = 10; i < 40; ++i) cache.put(key(i), {.input_ids = ids(i, 2000)});
  cache.close();
  cache = f.open({.max_bytes = std::uint64_t{1} << 20});
  const auto view = cache.get(key(1, 0, 10));
  REQUIRE(view);
  CHECK(copy_of(view->input_ids()) == ids(1, 10));
  CHECK(copy_of(view->attention_mask()) == Ids{1, 1, 1, 1, 1, 0, 1, 1, 1, 1});
  for (std::uint64_t i = 100; i < 300; ++i) cache.put(key(i), {.input_ids = ids(i, 2000)});
  cache.flush();
  CHECK(cache.get(key(1, 0, 4096)).has_value());
  CHECK_FALSE(cache.get(key(10)));
}

TEST_CASE("an entry that is damaged serves nobody") {
  Fixture f;
  f.expect_damage();
  {
    auto cache = f.open();
    cache.declare_tokenizer(sha(), kBoth);
    cache.put(key(1, 0, 4096), {.input_ids = ids(1, 3000)});
    cache.close();
  }
  const Ids wanted = ids(1, 3000);
  std::fstream file(f.data(), std::ios::in | std::ios::out | std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(file)), {});
  const auto at = bytes.find(std::string(reinterpret_cast<const char*>(&wanted[2000]), 64));
  REQUIRE(at != std::string::npos);
  file.seekp(static_cast<std::streamoff>(at));
  file.put(static_cast<char>(bytes[at] + 1));
  file.close();
  auto cache = f.open();
  CHECK_FALSE(cache.get(key(1, 0, 100)));
  CHECK(f.messages.count(key(1, 0, 4096).canonical() + " is damaged") == 1);
  CHECK(cache.explain(key(1, 0, 100)).reason == MissReason::kDamaged);
}

TEST_CASE("a data set of keys at another length") {
  Fixture f;
  auto cache = f.open();
  cache.declare_tokenizer(sha(), kBoth);
  std::vector<CacheKey> keys;
  for (std::uint64_t i = 0; i < 300; ++i) {
    const bool masked = i % 50 == 3;
    Ids mask(100 + 10 * i, 1);
    if (masked) mask[2] = 0;
    // Some inside a leaf, some in pages of their own, some at the very length.
    cache.put(key(i, 0, i % 10 == 0 ? 1024 : 8192),
              {.input_ids = tokenize(i, 100 + 10 * i, i % 10 == 0 ? 1024 : 8192),
               .attention_mask = masked ? mask : Ids()});
    keys.push_back(key(i, 0, 1024));
  }
  cache.flush();
  auto dataset = TokenDataset::open(f.root(), keys);
  const auto check_all = [&](TokenDataset& data) {
    for (std::size_t i = 0; i < keys.size(); ++i) {
      const auto view = data.get(i);
      REQUIRE(view);
      CHECK(copy_of(view->input_ids()) == tokenize(i, 100 + 10 * i, 1024));
      CHECK(view->mask_is_all_ones() == (i % 50 != 3));
    }
  };
  check_all(dataset);
  check_all(dataset);  // by now checked
  for (std::size_t i = 0; i < keys.size(); ++i) {
    CHECK(dataset.lengths()[i] == std::min<std::size_t>(100 + 10 * i, 1024));
  }
  // Another takes the same table; the store moves on.
  auto second = TokenDataset::open_packed(f.root(), dataset.packed_keys());
  for (std::uint64_t i = 1000; i < 1300; ++i) cache.put(key(i), {.input_ids = ids(i, 500)});
  cache.flush();
  check_all(second);
  check_all(dataset);

  CHECK(error_of(Errc::kMissing, [&] {
          static_cast<void>(TokenDataset::open(f.root(), keys, {.derive_lengths = false}));
        }).find("270 of 300 keys have no entry") != std::string::npos);
  auto exact = TokenDataset::open(f.root(), keys, {.missing = MissingKeys::kKeep, .derive_lengths = false});
  CHECK(exact.get(10).has_value());
  CHECK_FALSE(exact.get(11));
  CHECK(exact.lengths()[11] == 0);

  // What serves is replaced by the text's new ids, then removed.
  cache.put(key(11, 0, 8192), {.input_ids = ids(5, 900)});
  cache.flush();
  CHECK(copy_of(dataset.get(11)) == ids(5, 900));
  static_cast<void>(cache.prune(std::chrono::nanoseconds(0)));
  CHECK_FALSE(dataset.get(11));
}

}  // namespace tokcask
