// Parts of entries: through every way in and out of a store.
#include <algorithm>
#include <cstring>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>

#include <tokcask/cache.h>
#include <tokcask/dataset.h>
#include <tokcask/entries.h>
#include <tokcask/merge.h>

#include "record/rows.h"
#include "support.h"
#include "tables/read.h"

namespace tokcask::test {

namespace {

// Parts that tell from which `seed` they are, of every kind; about `bytes` of them.
Parts parts_of(std::uint64_t seed, std::size_t tokens, std::size_t bytes = 100) {
  Parts parts;
  parts.integer("label", static_cast<std::int64_t>(seed)).real("margin", static_cast<double>(seed) / 3);
  const auto n = static_cast<std::uint32_t>(tokens);
  if (n >= 8) parts.spans("assistant", {{0, 1}, {static_cast<std::uint32_t>(seed % 5) + 1, n}});
  const std::vector<std::byte> weights(bytes / 2 * 2, static_cast<std::byte>(seed));
  parts.array("weights", ElementType::kFloat16, weights);
  return parts;
}

void put(TokenizedCache& cache, const CacheKey& key, std::uint64_t seed, std::size_t tokens,
         std::size_t bytes = 100) {
  Parts parts = parts_of(seed, tokens, bytes);
  cache.put(key, {.input_ids = ids(seed, tokens), .parts = parts.list()});
}

bool is_of(const FoundTokens& found, std::uint64_t seed, std::size_t tokens, std::size_t bytes = 100) {
  Parts parts = parts_of(seed, tokens, bytes);
  return found && std::ranges::equal(found->input_ids(), ids(seed, tokens)) &&
         std::ranges::equal(found->parts().bytes(), parts.list().bytes());
}

std::size_t parts_in(const FoundTokens& found) {
  REQUIRE(found);
  return found->parts().size();
}
std::optional<std::int64_t> label_of(const FoundTokens& found) {
  REQUIRE(found);
  return found->parts().integer("label");
}

std::string read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::uint32_t format_of(const Fixture& f) {
  std::uint32_t version = 0;
  // The store row's magic, and the version after it.
  const std::string file = read_file(f.data());
  for (std::size_t at = file.find("tokcask"); at != std::string::npos; at = file.find("tokcask", at + 1)) {
    std::uint32_t there = 0;
    std::memcpy(&there, file.data() + at + 8, sizeof there);
    if (there < 100) version = std::max(version, there);
  }
  return version;
}

}  // namespace

TEST_CASE("parts: come back as they were put, pending, committed and opened again") {
  Fixture f;
  {
    auto cache = f.open();
    for (std::uint64_t i = 0; i < 200; ++i) put(cache, key(i), i, i * 7, i * 40);
    for (std::uint64_t i = 0; i < 200; ++i) CHECK(is_of(cache.get(key(i)), i, i * 7, i * 40));
    cache.flush();
    for (std::uint64_t i = 0; i < 200; ++i) CHECK(is_of(cache.get(key(i)), i, i * 7, i * 40));
  }
  auto cache = f.open();
  for (std::uint64_t i = 0; i < 200; ++i) CHECK(is_of(cache.get(key(i)), i, i * 7, i * 40));
  const auto hit = cache.get(key(100));
  CHECK(hit->parts().integer("label") == 100);
  const auto spans = hit->parts().spans("assistant");
  REQUIRE(spans);
  CHECK(hit->ids_of((*spans)[1]).size() == 699);
  CHECK(hit->ids_of((*spans)[1]).data() == hit->input_ids().data() + 1);
}

TEST_CASE("parts: beside a mask, without ids, and alone in a large record") {
  Fixture f;
  auto cache = f.open();
  Ids mask(100, 1);
  mask[3] = 0;
  Parts parts = parts_of(1, 100);
  cache.put(key(1), {.input_ids = ids(1, 100), .attention_mask = mask, .parts = parts.list()});
  put(cache, key(2), 2, 0, 1'000'000);
  for (int pass = 0; pass < 2; ++pass) {
    CHECK(is_of(cache.get(key(1)), 1, 100));
    const auto both = cache.get(key(1));
    CHECK(copy_of(both->attention_mask()) == mask);
    CHECK(is_of(cache.get(key(2)), 2, 0, 1'000'000));
    cache.flush();
  }
}

TEST_CASE("parts: an entry without them has none, and takes no byte more") {
  Fixture f;
  auto cache = f.open();
  cache.put(key(1), {.input_ids = ids(1, 1000)});
  cache.flush();
  CHECK(parts_in(cache.get(key(1))) == 0);
  CHECK(cache.stats().payload_bytes == 4000);
  Parts none;
  cache.put(key(2), {.input_ids = ids(2, 1000), .parts = none.list()});
  cache.flush();
  CHECK(cache.stats().payload_bytes == 8000);
}

TEST_CASE("parts: one part of an entry is another entry") {
  Fixture f;
  auto cache = f.open();
  put(cache, key(1), 1, 10);
  cache.flush();
  // The ids are equal, so only the parts tell that this is another one.
  Parts other = parts_of(1, 10);
  other.integer("label", 7);
  cache.put(key(1), {.input_ids = ids(1, 10), .parts = other.list()});
  cache.flush();
  CHECK(label_of(cache.get(key(1))) == 7);
  cache.put(key(1), {.input_ids = ids(1, 10)});
  cache.flush();
  CHECK(parts_in(cache.get(key(1))) == 0);
}

TEST_CASE("parts: a span beyond the ids, and too much of all, store nothing") {
  Fixture f;
  auto cache = f.open();
  Parts parts;
  parts.spans("assistant", {{2, 6}});
  const std::string message = error_of(
      Errc::kInvalidArgument, [&] { cache.put(key(1), {.input_ids = ids(1, 5), .parts = parts.list()}); });
  CHECK(message.find("ends at 6, beyond its 5 ids") != std::string::npos);
  CHECK(cache.stats().entry_count == 0);
}

TEST_CASE("parts: an item of a data set has them, while its store changes") {
  Fixture f;
  auto cache = f.open();
  std::vector<CacheKey> keys;
  // Inside leaves, and in pages of their own.
  for (std::uint64_t i = 0; i < 100; ++i) {
    keys.push_back(key(i));
    if (i % 3 == 0) {
      cache.put(keys.back(), {.input_ids = ids(i, i * 20)});
    } else {
      put(cache, keys.back(), i, i * 20);
    }
  }
  cache.flush();
  auto dataset = TokenDataset::open(f.root(), keys);
  const auto check = [&] {
    for (std::uint64_t i = 0; i < 100; ++i) {
      CAPTURE(i);
      if (i % 3 == 0) {
        CHECK(parts_in(dataset.get(i)) == 0);
        CHECK(copy_of(dataset.get(i)) == ids(i, i * 20));
      } else {
        CHECK(is_of(dataset.get(i), i, i * 20));
      }
    }
  };
  check();
  check();
  for (std::uint64_t i = 1000; i < 1100; ++i) put(cache, key(i), i, 700);
  cache.flush();
  check();
  put(cache, key(1), 1, 20);
  cache.put(key(2), {.input_ids = ids(2, 40)});
  cache.flush();
  CHECK(parts_in(dataset.get(2)) == 0);
}

TEST_CASE("parts: merge, copy and compact keep them") {
  Fixture f;
  auto cache = f.open();
  for (std::uint64_t i = 0; i < 50; ++i) put(cache, key(i), i, i * 30);
  cache.flush();
  cache.copy(f.directory() / "copy");
  {
    auto copy = TokenizedCache::open(f.directory() / "copy");
    for (std::uint64_t i = 0; i < 50; ++i) CHECK(is_of(copy.get(key(i)), i, i * 30));
    CHECK(copy.verify().damaged == 0);
    auto out = TokenizedCache::open(f.directory() / "merged");
    CHECK(merge(out, std::span(&copy, 1)).merged == 50);
    for (std::uint64_t i = 0; i < 50; ++i) CHECK(is_of(out.get(key(i)), i, i * 30));
  }
  cache.compact();
  for (std::uint64_t i = 0; i < 50; ++i) CHECK(is_of(cache.get(key(i)), i, i * 30));
}

TEST_CASE("parts: a damaged store's entries come back with them") {
  Fixture f;
  {
    auto cache = f.open();
    for (std::uint64_t i = 0; i < 50; ++i) put(cache, key(i), i, 600);
  }
  {
    std::fstream file(f.data(), std::ios::binary | std::ios::in | std::ios::out);
    file << std::string(8192, '\xff');  // both meta pages
  }
  auto cache = f.open();
  for (std::uint64_t i = 0; i < 50; ++i) CHECK(is_of(cache.get(key(i)), i, 600));
}

TEST_CASE("parts: an entry that has them serves no other length") {
  Fixture f;
  auto cache = f.open();
  cache.declare_tokenizer(sha(), {.cuts_at_length = true, .cuts_to_prefix = true});
  cache.put(key(1, 0, 100), {.input_ids = ids(1, 50)});
  put(cache, key(2, 0, 100), 2, 50);
  cache.flush();
  CHECK(cache.get(key(1, 0, 20)));
  CHECK_FALSE(cache.get(key(2, 0, 20)));
  CHECK_FALSE(cache.get(key(2, 0, 200)));
}

TEST_CASE("parts: the format's number tells whether a store needs a reader of parts") {
  Fixture f;
  auto cache = f.open();
  cache.put(key(1), {.input_ids = ids(1, 10)});
  cache.flush();
  CHECK(format_of(f) == rows::kFormatWithoutParts);
  put(cache, key(2), 2, 10);
  cache.flush();
  CHECK(format_of(f) == rows::kFormatVersion);
}

}  // namespace tokcask::test
