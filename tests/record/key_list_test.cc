#include "record/key_list.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include <tokcask/error.h>

namespace tokcask::record {

namespace {

// Sections of 32 hex digits, or of 16, as older programs made them.
std::vector<CacheKey> plain(std::size_t count, std::size_t digits = 32) {
  std::vector<CacheKey> keys;
  for (std::size_t i = 0; i < count; ++i)
    keys.emplace_back(section_id(std::to_string(i)).substr(0, digits), sha256_hex("tokenizer"), 2048);
  return keys;
}

void check_round_trip(const std::vector<CacheKey>& keys) {
  const std::vector<std::byte> packed = pack_keys(keys);
  CHECK(packed.size() % 8 == 0);
  const auto list = KeyList::of(packed);
  REQUIRE(list);
  REQUIRE(list->size() == keys.size());
  for (std::size_t i = 0; i < keys.size(); ++i) {
    CHECK(list->key(i) == keys[i]);
    CHECK(list->canonical(i) == keys[i].canonical());
  }
  std::vector<std::uint32_t> order = list->in_store_order();
  std::sort(order.begin(), order.end());
  for (std::size_t i = 0; i < keys.size(); ++i) CHECK(order[i] == i);
}

}  // namespace

TEST_CASE("a packed list gives back its keys in their order") {
  check_round_trip({});
  check_round_trip(plain(1));
  check_round_trip(plain(1000));
  check_round_trip(plain(1000, 16));
  // Several tokenizers and lengths, repeated keys, and section ids of every kind.
  for (const std::size_t digits : {16, 32}) {
    std::vector<CacheKey> keys = plain(20, digits);
    keys.emplace_back(section_id("3").substr(0, digits), sha256_hex("another"), 512);
    keys.emplace_back(section_id("3").substr(0, digits), sha256_hex("tokenizer"), 512);
    keys.push_back(keys.front());
    keys.emplace_back("a/path/of a file", "sha", 1);
    keys.emplace_back("0123456789abcdeF", "sha", 1);   // not lower case
    keys.emplace_back("0123456789abcde", "sha", 1);    // 15 digits
    keys.emplace_back("0123456789abcdef0", "sha", 1);  // 17
    keys.emplace_back("0123456789abcdef0123456789abcdeF", "sha", 1);
    keys.emplace_back("0123456789abcdeF0123456789abcdef", "sha", 1);
    keys.emplace_back("0123456789abcdef0123456789abcde", "sha", 1);    // 31 digits
    keys.emplace_back("0123456789abcdef0123456789abcdef0", "sha", 1);  // 33
    keys.emplace_back(std::string(400, 'x'), "sha", INT32_MAX);
    check_round_trip(keys);
    keys.emplace_back("0000000000000000", "sha", 1);
    keys.emplace_back("00000000000000000000000000000000", "sha", 1);
    check_round_trip(keys);
  }
}

TEST_CASE(
    "a key of 32 hex digits takes 16 bytes, one of 16 takes 8; 4 more beside keys of another tokenizer") {
  for (const std::size_t digits : {16, 32}) {
    std::vector<CacheKey> keys = plain(1000, digits);
    CHECK(pack_keys(keys).size() < digits / 2 * 1000 + 120);
    keys.emplace_back(keys[0].section_id(), sha256_hex("another"), 2048);
    CHECK(pack_keys(keys).size() < (digits / 2 + 4) * 1001 + 240);
  }
}

TEST_CASE("the order is that of the store") {
  std::vector<CacheKey> keys = plain(500, 16);
  for (const bool mixed : {false, true}) {
    if (mixed) {
      for (const CacheKey& key : plain(500)) keys.push_back(key);
      // Both begin with the same 16 digits.
      keys.emplace_back(section_id("0").substr(0, 16) + std::string(16, 'f'), sha256_hex("tokenizer"), 2048);
    }
    const std::vector<std::byte> packed = pack_keys(keys);
    const std::vector<std::uint32_t> order = KeyList::of(packed)->in_store_order();
    const auto section = [&](std::uint32_t i) { return keys[i].section_id(); };
    CHECK(
        std::is_sorted(order.begin(), order.end(), [&](auto a, auto b) { return section(a) < section(b); }));
  }
}

TEST_CASE("a list that an older program packed is read") {
  // One key of 16 digits and one of the text, by their layout.
  const std::string suffix = "|t|1";
  const std::uint64_t header[] = {1 | std::uint64_t{1} << 32, 1, 2, 4 + suffix.size() + 1};
  const std::uint64_t sections[] = {0x0123456789abcdef, (4 + suffix.size()) << 16 | 1};
  const std::uint32_t numbers[] = {0, 0x80000000};
  std::vector<std::byte> bytes(sizeof header + sizeof sections + sizeof numbers + 16);
  const std::uint32_t size = 4;
  std::byte* at = bytes.data();
  const auto write = [&](const void* data, std::size_t count) {
    std::memcpy(at, data, count);
    at += count;
  };
  write(header, sizeof header);
  write(sections, sizeof sections);
  write(numbers, sizeof numbers);
  write(&size, sizeof size);
  write((suffix + "s").data(), suffix.size() + 1);
  const auto list = KeyList::of(bytes);
  REQUIRE(list);
  CHECK(list->canonical(0) == "0123456789abcdef|t|1");
  CHECK(list->canonical(1) == "s|t|1");
  const std::vector<CacheKey> keys{list->key(0), list->key(1)};
  CHECK(pack_keys(keys) == bytes);
}

TEST_CASE("damaged bytes are refused or give keys, and nothing outside them is read") {
  std::vector<CacheKey> keys = plain(5);
  keys.emplace_back("a literal section", "sha", 7);
  keys.emplace_back("0123456789abcdef", "sha", 7);
  const std::vector<std::byte> good = pack_keys(keys);
  const auto use = [](const std::vector<std::byte>& bytes) {
    const auto list = KeyList::of(bytes);
    if (!list) return;
    for (std::size_t i = 0; i < list->size(); ++i) {
      CHECK(list->canonical(i).size() <= CacheKey::kMaxCanonicalBytes);
      try {
        static_cast<void>(list->key(i));
      } catch (const Error& error) {
        CHECK(error.code() == Errc::kInvalidArgument);
      }
    }
  };
  for (std::size_t size = 0; size < good.size(); ++size) {
    CHECK_FALSE(KeyList::of(std::vector(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(size))));
  }
  for (std::size_t bit = 0; bit < 8 * good.size(); ++bit) {
    std::vector<std::byte> bad = good;
    bad[bit / 8] ^= std::byte{1} << (bit % 8);
    use(bad);
  }
  std::mt19937_64 random(7);
  for (int i = 0; i < 2000; ++i) {
    std::vector<std::byte> bad = good;
    for (int k = 0; k < 4; ++k) bad[random() % bad.size()] = static_cast<std::byte>(random());
    use(bad);
  }
}

TEST_CASE(
    "bytes that change while they are read give other keys or empty ones, and nothing outside them is read") {
  std::vector<CacheKey> keys = plain(5);
  keys.emplace_back("a literal section", "sha", 7);
  keys.emplace_back("0123456789abcdef", "sha", 7);
  const std::vector<std::byte> good = pack_keys(keys);
  for (std::size_t byte = 0; byte < good.size(); ++byte) {
    std::vector<std::byte> bytes = good;
    const auto list = KeyList::of(bytes);
    REQUIRE(list);
    for (const int value : {0x00, 0x7f, 0x80, 0xff}) {
      bytes[byte] = static_cast<std::byte>(value);
      for (std::size_t i = 0; i < list->size(); ++i)
        CHECK(list->canonical(i).size() <= CacheKey::kMaxCanonicalBytes);
      CHECK(list->first_of_each_kind().size() <= 2);
    }
  }
}

TEST_CASE("the first key of each tokenizer and length") {
  const std::string sha(64, 'a');
  const std::vector<CacheKey> keys{{"0123456789abcdef", sha, 1},
                                   {"1123456789abcdef", sha, 1},
                                   {"x", sha, 2},
                                   {"2123456789abcdef", sha, 1},
                                   {"y", "other", 1},
                                   {"z", sha, 2}};
  const std::vector<std::byte> packed = pack_keys(keys);
  CHECK(KeyList::of(packed)->first_of_each_kind() == std::vector<std::size_t>{0, 2, 4});
  const std::vector<std::byte> one = pack_keys(std::span(keys).first(2));
  CHECK(KeyList::of(one)->first_of_each_kind() == std::vector<std::size_t>{0});
  CHECK(KeyList::of(pack_keys({}))->first_of_each_kind().empty());
}

TEST_CASE("a list with a key that is longer than any can be is refused") {
  std::vector<CacheKey> keys = plain(3);
  keys.emplace_back(std::string(496, 'x'), "sha", 100);  // 504 bytes
  std::vector<std::byte> packed = pack_keys(keys);
  REQUIRE(KeyList::of(packed));
  std::uint64_t section = 0;
  const std::size_t at = 32 + 3 * 2 * sizeof section;
  std::memcpy(&section, packed.data() + at, sizeof section);
  REQUIRE((section & 0xffff) == 496);
  section -= std::uint64_t{1} << 16;  // one byte before
  section += 1;                       // one byte longer
  std::memcpy(packed.data() + at, &section, sizeof section);
  CHECK_FALSE(KeyList::of(packed));
}

}  // namespace tokcask::record
