#include "record/record.h"

#include <doctest/doctest.h>
#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

namespace tokcask::record {

namespace {

std::vector<std::int32_t> counting(std::size_t n) {
  std::vector<std::int32_t> ids(n);
  std::iota(ids.begin(), ids.end(), -5);
  return ids;
}

std::vector<std::byte> encoded(std::size_t n, bool mask, std::uint64_t key_hash = 7, PartList parts = {}) {
  const auto ids = counting(n);
  std::vector<std::int32_t> zeros(mask ? n : 0);
  const Tokens tokens{ids, zeros, parts};
  std::vector<std::byte> bytes(record_bytes(tokens), std::byte{0xee});
  Header header;
  header.slot = 3;
  header.generation = 9;
  header.key_hash = key_hash;
  header.created_ns = 11;
  encode(header, tokens, bytes);
  return bytes;
}

}  // namespace

TEST_CASE("a record is read back, for lengths around every boundary") {
  for (std::size_t n = 0; n < 70; ++n) {
    for (const bool mask : {false, true}) {
      CAPTURE(n);
      CAPTURE(mask);
      const auto bytes = encoded(n, mask);
      CHECK(bytes.size() % 8 == 0);
      const char* reason = nullptr;
      const auto record = decode(bytes, 7, &reason);
      REQUIRE(record);
      CHECK(record->header.slot == 3);
      CHECK(record->header.generation == 9);
      CHECK(record->header.created_ns == 11);
      CHECK(std::ranges::equal(record->ids, counting(n)));
      CHECK(record->mask.size() == (mask && n > 0 ? n : 0));
      CHECK(checksum_ok(*record));
      if (mask && n > 0) {
        // As far from the ids as keeps its alignment.
        const auto apart = reinterpret_cast<std::uintptr_t>(record->mask.data()) -
                           reinterpret_cast<std::uintptr_t>(record->ids.data());
        CHECK(apart % 64 == 0);
      }
    }
  }
}

TEST_CASE("a record has its parts, at each length and beside a mask") {
  Parts parts;
  parts.integer("label", -1).real("margin", 0.5);
  for (std::size_t n = 0; n < 70; ++n) {
    for (const bool mask : {false, true}) {
      CAPTURE(n);
      CAPTURE(mask);
      const auto bytes = encoded(n, mask, 7, parts.list());
      const char* reason = nullptr;
      const auto record = decode(bytes, 7, &reason);
      REQUIRE(record);
      CHECK(checksum_ok(*record));
      CHECK(std::ranges::equal(record->ids, counting(n)));
      CHECK(record->parts.integer("label") == -1);
      CHECK(record->parts.real("margin") == 0.5);
      CHECK(record->bytes() == bytes.size());
      // A record without parts has not a byte more.
      CHECK(encoded(n, mask).size() + parts.list().bytes().size() == bytes.size());
    }
  }
}

TEST_CASE("every flipped bit is noticed") {
  Parts parts;
  parts.spans("assistant", {{1, 2}, {5, 21}}).integer("label", 4);
  for (const PartList& list : {PartList(), parts.list()}) {
    for (const bool mask : {false, true}) {
      const auto good = encoded(21, mask, 7, list);
      const std::size_t end = kHeaderBytes + payload_bytes(21, mask, list.bytes().size());
      for (std::size_t bit = 0; bit < 8 * end; ++bit) {
        CAPTURE(bit);
        auto bytes = good;
        bytes[bit / 8] ^= static_cast<std::byte>(1U << bit % 8);
        const char* reason = nullptr;
        const auto record = decode(bytes, 7, &reason);
        const bool served = record.has_value() && checksum_ok(*record);
        CHECK_FALSE(served);
        if (!record) CHECK(std::string(reason).size() > 10);
      }
    }
  }
}

TEST_CASE("any bytes can be decoded without harm") {
  auto bytes = encoded(21, true);
  const char* reason = nullptr;
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    CHECK_FALSE(decode({bytes.data(), size}, 7, &reason));
  }
  CHECK_FALSE(decode(bytes, 8, &reason));
  CHECK(std::string(reason) == "it belongs to another key");
  const std::uint32_t huge = 0xffffffff;
  std::memcpy(bytes.data() + 8, &huge, sizeof huge);
  CHECK_FALSE(decode(bytes, 7, &reason));
}

TEST_CASE("the header lies as it is documented") {
  const auto bytes = encoded(21, true, 0x0102030405060708);
  CHECK(std::memcmp(bytes.data(), "TKR1", 4) == 0);
  const auto u32 = [&](std::size_t at) {
    std::uint32_t value = 0;
    std::memcpy(&value, bytes.data() + at, sizeof value);
    return value;
  };
  CHECK(u32(4) % 0x10000 == 1);
  CHECK(u32(4) / 0x10000 == 1);  // flags: a mask
  CHECK(u32(8) == 21);
  CHECK(u32(12) == 3);
  CHECK(u32(16) == 9);
  CHECK(u32(24) == 0x05060708);
  CHECK(u32(40) == 11);
  CHECK(static_cast<std::int32_t>(u32(48)) == -5);
  CHECK(u32(48 + 128) == 0);  // 21 ids take 84 bytes; the mask starts at 128
}

// A store may move to a machine with other instructions.
TEST_CASE("the checksum is XXH3 whatever the processor can do") {
  for (const bool mask : {false, true}) {
    for (std::size_t n = 0; n < 3000; n += 1 + n / 7) {
      CAPTURE(n);
      auto bytes = encoded(n, mask);
      Header header;
      std::memcpy(&header, bytes.data(), sizeof header);
      const std::uint64_t stored = std::exchange(header.checksum, 0);
      const std::size_t payload = payload_bytes(n, mask);
      CHECK(stored ==
            XXH3_64bits_withSeed(bytes.data() + sizeof header, payload, XXH3_64bits(&header, sizeof header)));
    }
  }
}

TEST_CASE("keys are padded to multiples of 8 and keep their order") {
  std::string previous;
  for (std::size_t n = 1; n <= CacheKey::kMaxCanonicalBytes; ++n) {
    const std::string text(n, 'k');
    const PaddedKey key(text);
    CHECK(key.bytes().size() % 8 == 0);
    CHECK(key.bytes().size() - n < 8);
    CHECK(unpadded(key.bytes()) == text);
  }
}

TEST_CASE("ones are ones, and those handed out before stay") {
  const auto few = all_ones(10);
  const auto many = all_ones(5'000'000);
  CHECK(std::ranges::all_of(few, [](std::int32_t one) { return one == 1; }));
  CHECK(std::ranges::all_of(many, [](std::int32_t one) { return one == 1; }));
  CHECK(all_ones(10).data() == many.data());
  CHECK(all_ones(0).empty());
}

}  // namespace tokcask::record
