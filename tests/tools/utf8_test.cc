#include "corpus/utf8.h"

#include <doctest/doctest.h>

#include <cstdint>
#include <string>

using tokcask::corpus::classify;
using tokcask::corpus::is_utf8;
using tokcask::corpus::TextKind;

namespace {

// UTF-8 by definition rather than by table: decode with the obvious arithmetic, then check the value.
bool is_utf8_by_decoding(const std::string& bytes) {
  for (std::size_t at = 0; at < bytes.size();) {
    const auto lead = static_cast<unsigned char>(bytes[at]);
    const std::size_t length = lead < 0x80             ? 1
                               : (lead & 0xE0) == 0xC0 ? 2
                               : (lead & 0xF0) == 0xE0 ? 3
                               : (lead & 0xF8) == 0xF0 ? 4
                                                       : 0;
    if (length == 0 || bytes.size() - at < length) return false;
    std::uint32_t value = length == 1 ? lead : lead & (0xFFU >> (length + 1));
    for (std::size_t i = 1; i < length; ++i) {
      const auto byte = static_cast<unsigned char>(bytes[at + i]);
      if ((byte & 0xC0) != 0x80) return false;
      value = value << 6 | (byte & 0x3FU);
    }
    constexpr std::uint32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
    if (value < kSmallest[length] || value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF)) return false;
    at += length;
  }
  return true;
}

}  // namespace

TEST_CASE("utf8: every sequence of one and two bytes, and every three- and four-byte edge") {
  std::uint64_t wrong = 0;
  const auto check = [&](const std::string& bytes) {
    if (is_utf8(bytes) != is_utf8_by_decoding(bytes)) ++wrong;
  };
  for (unsigned a = 0; a < 256; ++a) {
    check({static_cast<char>(a)});
    for (unsigned b = 0; b < 256; ++b) {
      check({static_cast<char>(a), static_cast<char>(b)});
      for (const unsigned c : {0x00U, 0x41U, 0x7FU, 0x80U, 0xBFU, 0xC0U, 0xFFU}) {
        const std::string three{static_cast<char>(a), static_cast<char>(b), static_cast<char>(c)};
        check(three);
        for (const unsigned d : {0x20U, 0x7FU, 0x80U, 0xBFU, 0xC0U, 0xFFU})
          check(three + static_cast<char>(d));
      }
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("utf8: a fault is found at every offset around the blocks of the fast path") {
  for (std::size_t size = 1; size < 130; ++size) {
    const std::string ascii(size, 'a');
    REQUIRE(is_utf8(ascii));
    for (std::size_t at = 0; at < size; ++at) {
      std::string damaged = ascii;
      damaged[at] = '\x80';
      REQUIRE_FALSE(is_utf8(damaged));
      std::string good = ascii;
      good.replace(at, 1, "\xE2\x82\xAC");
      REQUIRE(is_utf8(good));
      REQUIRE_FALSE(is_utf8(std::string_view(good).substr(0, at + 2)));
    }
  }
}

TEST_CASE("utf8: kinds of content") {
  CHECK(classify("") == TextKind::kText);
  CHECK(classify("plain\r\n\ttext\x7f") == TextKind::kText);
  CHECK(classify("\xEF\xBB\xBFwith a byte order mark") == TextKind::kText);
  CHECK(classify(std::string("a\0b", 3)) == TextKind::kBinary);
  CHECK(classify(std::string("\xFF\xFE"
                             "a\0b\0",
                             6)) == TextKind::kBinary);
  CHECK(classify("caf\xE9") == TextKind::kNotUtf8);
  CHECK(classify("\xED\xA0\x80") == TextKind::kNotUtf8);
  CHECK(classify("\xC0\xAF") == TextKind::kNotUtf8);
}
