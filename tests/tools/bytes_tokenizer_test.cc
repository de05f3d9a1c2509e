#include "tokenize/bytes_tokenizer.h"

#include <doctest/doctest.h>

using namespace tokcask::cli;

TEST_CASE("bytes tokenizer: the ids are the bytes, cut to the length") {
  const auto tokenizer = make_bytes_tokenizer();
  const std::string_view texts[] = {"", "abc", "\xC3\xA9!", "long text"};
  const auto ids = tokenizer->encode_batch(texts, 4);
  REQUIRE(ids.size() == 4);
  CHECK(ids[0].empty());
  CHECK(ids[1] == std::vector<std::int32_t>{97, 98, 99});
  CHECK(ids[2] == std::vector<std::int32_t>{0xC3, 0xA9, 33});
  CHECK(ids[3] == std::vector<std::int32_t>{108, 111, 110, 103});
}

TEST_CASE("bytes tokenizer: an identity that never changes") {
  // Stores in use are keyed by it.
  CHECK(make_bytes_tokenizer()->sha256() == bytes_tokenizer_sha256());
  CHECK(bytes_tokenizer_sha256() == "c257cb40dab36f01bde5f28eaef803e6e4f3d22fecff7e03747a8191b6ae7855");
}
