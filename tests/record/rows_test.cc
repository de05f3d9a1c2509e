#include "record/rows.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>

namespace tokcask::rows {

TEST_CASE("rows of one tag are neighbours, in the order of their numbers") {
  const MetaKey low(Tag::kEntries, 255);
  const MetaKey high(Tag::kEntries, 256);
  CHECK(std::ranges::lexicographical_compare(low.bytes(), high.bytes()));
  CHECK(low.bytes().size() == 8);
  CHECK(MetaKey::of_path(Tag::kDirectory, "/a").bytes().size() == 16);
  CHECK_FALSE(std::ranges::equal(MetaKey::of_path(Tag::kDirectory, "/a").bytes(),
                                 MetaKey::of_path(Tag::kDirectory, "/b").bytes()));
}

TEST_CASE("section ids as numbers") {
  CHECK(pack_section("0123456789abcdef") == 0x0123456789abcdef);
  CHECK(unpack_section(0x00000000000000ff) == "00000000000000ff");
  for (const std::string_view other :
       {"", "0123456789abcde", "0123456789abcdef0", "0123456789ABCDEF", "0123456789abcdeg"}) {
    CHECK_FALSE(pack_section(other));
  }
}

TEST_CASE("a directory is read back, and not as another's or from fewer bytes") {
  SourceDirectory files(3);
  files[0] = {
      "name", {1, -2, 3, 4}, SourceKind::kSection, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}};
  files[1] = {std::string("\xff\xfe odd", 6), {5, 6, 7, 8}, SourceKind::kNotUtf8, {}};
  files[2] = {
      std::string(70'000, 'x'), {}, SourceKind::kBinary, {}};  // longer than any file system's, left out
  const auto row = encode_directory("/path", files);
  CHECK(row.size() % 8 == 0);
  const auto found = decode_directory("/path", row);
  REQUIRE(found);
  REQUIRE(found->size() == 2);
  CHECK((*found)[0].name == "name");
  CHECK((*found)[0].identity == files[0].identity);
  CHECK((*found)[0].section == files[0].section);
  CHECK((*found)[1].name == files[1].name);
  CHECK((*found)[1].kind == SourceKind::kNotUtf8);
  CHECK_FALSE(decode_directory("/other", row));
  CHECK(path_of_directory(row) == "/path");
  CHECK_FALSE(path_of_directory(std::span(row).first(16)));
  CHECK_FALSE(path_of_directory({}));
  for (std::size_t size = 0; size + 8 <= row.size(); ++size) {
    CHECK_FALSE(decode_directory("/path", std::span(row).first(size)));
  }
  auto huge = row;
  huge[4] = huge[5] = huge[6] = huge[7] = std::byte{0xff};
  CHECK_FALSE(decode_directory("/path", huge));
}

TEST_CASE("a tokenizer file is known by its identity") {
  const FileIdentity identity{1, 2, 3, 4};
  const auto row = encode_tokenizer_file("/t.json", identity, "abc");
  CHECK(decode_tokenizer_file("/t.json", identity, row) == "abc");
  CHECK_FALSE(decode_tokenizer_file("/u.json", identity, row));
  for (int field = 0; field < 4; ++field) {
    FileIdentity other = identity;
    if (field == 0) ++other.size;
    if (field == 1) ++other.mtime_ns;
    if (field == 2) ++other.ctime_ns;
    if (field == 3) ++other.inode;
    CHECK_FALSE(decode_tokenizer_file("/t.json", other, row));
  }
  CHECK_FALSE(decode_tokenizer_file("/t.json", identity, std::span(row).first(20)));
}

TEST_CASE("texts lose only their padding") {
  for (const std::string_view text : {"", "a", "12345678", "123456789"}) {
    CHECK(decode_text(encode_text(text)) == text);
    CHECK(encode_text(text).size() % 8 == 0);
  }
}

}  // namespace tokcask::rows
