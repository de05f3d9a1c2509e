#include <doctest/doctest.h>

#include <limits>
#include <string>
#include <vector>

#include <tokcask/error.h>
#include <tokcask/key.h>

namespace tokcask {

namespace {

std::string refusal(std::string_view section, std::string_view sha, std::int64_t length) {
  try {
    const CacheKey key(section, sha, length);
  } catch (const Error& error) {
    CHECK(error.code() == Errc::kInvalidArgument);
    return error.what();
  }
  FAIL_CHECK("accepted");
  return {};
}

bool parses(std::string_view canonical) {
  try {
    return CacheKey::parse(canonical).canonical() == canonical;
  } catch (const Error& error) {
    CHECK(error.code() == Errc::kInvalidArgument);
    return false;
  }
}

}  // namespace

TEST_CASE("the canonical key and its parts") {
  const CacheKey key("0123456789abcdef", "sha", 2048);
  CHECK(key.canonical() == "0123456789abcdef|sha|2048");
  CHECK(key.section_id() == "0123456789abcdef");
  CHECK(key.tokenizer_sha() == "sha");
  CHECK(key.sequence_len() == 2048);
  CHECK(key == CacheKey::parse("0123456789abcdef|sha|2048"));
  CHECK(key < CacheKey("0123456789abcdef", "sha", 2049));
  const CacheKey copy = key;
  CHECK(copy.section_id() == key.section_id());
  CHECK(CacheKey("é ü", "with space", 1).canonical() == "é ü|with space|1");
}

TEST_CASE("what a key cannot be, and the part that is wrong is named") {
  for (const std::string& bad : {std::string(), std::string("a|b"), std::string("a\0b", 3),
                                 std::string("a\nb"), std::string("a\tb"), std::string("\x7f")}) {
    CAPTURE(bad);
    CHECK(refusal(bad, "sha", 1).find("section_id") != std::string::npos);
    CHECK(refusal("section", bad, 1).find("tokenizer_sha") != std::string::npos);
  }
  for (const std::int64_t bad : {std::int64_t{0}, std::int64_t{-1}, std::int64_t{INT32_MAX} + 1,
                                 std::numeric_limits<std::int64_t>::min()}) {
    CHECK(refusal("section", "sha", bad).find(std::to_string(bad)) != std::string::npos);
  }
  CHECK(CacheKey("section", "sha", INT32_MAX).sequence_len() == INT32_MAX);
  const std::string longest(CacheKey::kMaxCanonicalBytes - 4, 's');
  CHECK(CacheKey(longest, "t", 1).canonical().size() == CacheKey::kMaxCanonicalBytes);
  CHECK(refusal(longest + "s", "t", 1).find("504") != std::string::npos);
}

TEST_CASE("parse takes only what canonical() gives") {
  CHECK(parses("a|b|1"));
  for (const std::string_view bad :
       {"", "a", "a|b", "a|b|", "a|b|0", "a|b|01", "a|b|+1", "a|b|-1", "a|b|1 ", "a|b|c", "|b|1", "a||1",
        "a|b|c|1", "a|b|99999999999999999999", "a|b|2147483648"}) {
    CAPTURE(bad);
    CHECK_FALSE(parses(bad));
  }
}

TEST_CASE("section ids and hashes") {
  // SHA-256 of "text\0hello" and of "abc", by another program.
  CHECK(section_id("hello") == "306f89347195cc05509ddca47462e259");
  CHECK(section_id("hello", "file") != section_id("hello"));
  CHECK(section_id("").size() == 32);
  CHECK(section_id("b", "a") != section_id(std::string("\0b", 2), "a"));
  CHECK(sha256_hex("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST_CASE("texts whose hashes have the same first 64 bits are two sections") {
  const std::string one = section_id("1d857322d0f7f976", "file");
  const std::string other = section_id("1c2720a927f0cb3e", "file");
  CHECK(one.substr(0, 16) == other.substr(0, 16));
  CHECK(one != other);
}

}  // namespace tokcask
