#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include <tokcask/error.h>
#include <tokcask/parts.h>

namespace tokcask {

namespace {

// A block that can be changed, at a multiple of 8.
struct Block {
  std::vector<std::uint64_t> words;
  explicit Block(const PartList& parts) : words(parts.bytes().size() / 8) {
    std::memcpy(words.data(), parts.bytes().data(), parts.bytes().size());
  }
  std::span<std::byte> bytes() { return std::as_writable_bytes(std::span(words)); }
};

Parts all_kinds() {
  Parts parts;
  parts.spans("chosen", {{4, 6}}).spans("assistant", {{0, 2}, {2, 3}, {5, 9}});
  parts.integer("label", -5).real("margin", 1.5).spans("none", {});
  const std::array<float, 3> weights{0.5F, 1.0F, -2.0F};
  parts.array("weights", ElementType::kFloat32, std::as_bytes(std::span(weights)));
  parts.array("types", ElementType::kInt8, {});
  return parts;
}

std::string problem_of(const std::function<void(Parts&)>& act) {
  Parts parts;
  parts.integer("before", 1);
  std::string problem;
  try {
    act(parts);
  } catch (const Error& error) {
    CHECK(error.code() == Errc::kInvalidArgument);
    problem = error.what();
  }
  CHECK(parts.list().size() == 1);
  return problem;
}

}  // namespace

TEST_CASE("parts are read back, by kind and by name") {
  Parts parts = all_kinds();
  Block block(parts.list());
  const char* reason = nullptr;
  const auto list = PartList::read(block.bytes(), 9, &reason);
  REQUIRE(list);
  CHECK(list->size() == 7);
  CHECK(list->least_tokens() == 9);
  CHECK(list->spans("assistant")->size() == 3);
  CHECK((*list->spans("assistant"))[2] == Span{5, 9});
  CHECK(list->spans("none")->empty());
  CHECK_FALSE(list->spans("label"));
  CHECK(list->integer("label") == -5);
  CHECK(list->real("margin") == 1.5);
  CHECK_FALSE(list->integer("margin"));
  const auto weights = list->array("weights");
  REQUIRE(weights);
  CHECK(weights->type == ElementType::kFloat32);
  CHECK(weights->size() == 3);
  CHECK(reinterpret_cast<std::uintptr_t>(weights->bytes.data()) % 8 == 0);
  CHECK(list->array("types")->size() == 0);
  std::string last;
  for (std::size_t i = 0; i < list->size(); ++i) {
    const std::string name = std::to_string(static_cast<int>((*list)[i].kind)) + std::string((*list)[i].name);
    CHECK(name > last);
    last = name;
  }
}

TEST_CASE("the same parts are the same bytes, in whatever order they were given") {
  Parts one, other;
  one.integer("a", 1).integer("b", 2).spans("c", {{1, 2}});
  other.spans("c", {{5, 8}}).integer("b", 7).integer("a", 1).integer("b", 2).spans("c", {{1, 2}});
  const PartList first = one.list();
  CHECK(std::ranges::equal(first.bytes(), other.list().bytes()));
  CHECK(first.bytes().size() % 8 == 0);
  Parts none;
  CHECK(none.list().empty());
  CHECK(PartList().size() == 0);
}

TEST_CASE("what cannot be a part is refused, and nothing is changed") {
  CHECK(problem_of([](Parts& p) { p.integer("", 1); }) == "the name of a part is empty");
  CHECK(problem_of([](Parts& p) { p.integer(std::string(65, 'x'), 1); }).find("64 bytes") !=
        std::string::npos);
  for (const char* const name : {"\xff", "\xc0\x80", "a\xe2\x82", "\xed\xa0\x80", "\xf4\x90\x80\x80"}) {
    CHECK(problem_of([&](Parts& p) { p.integer(name, 1); }) == "the name of a part is not UTF-8");
  }
  CHECK(problem_of([](Parts& p) { p.spans("s", {{2, 2}}); }).find("ends where it begins") !=
        std::string::npos);
  CHECK(problem_of([](Parts& p) { p.spans("s", {{2, 4}, {3, 5}}); }).find("overlap") != std::string::npos);
  CHECK(problem_of([](Parts& p) { p.spans("s", {{4, 5}, {2, 3}}); }).find("order") != std::string::npos);
  const std::array<std::byte, 3> odd{};
  CHECK(problem_of([&](Parts& p) { p.array("a", ElementType::kInt16, odd); }).find("3 bytes") !=
        std::string::npos);
  CHECK(problem_of([&](Parts& p) { p.array("a", ElementType{9}, odd); }).find("type") != std::string::npos);
  Parts full;
  for (int i = 0; i < 64; ++i) full.integer("p" + std::to_string(i), i);
  CHECK_THROWS_WITH_AS(full.integer("one more", 1), "an entry has at most 64 parts; \"one more\" is one more",
                       Error);
  CHECK(full.list().size() == 64);
  full.integer("p7", 70);
  CHECK(full.list().integer("p7") == 70);
}

TEST_CASE("a block that was changed is a list that keeps its promises, or none") {
  Parts parts = all_kinds();
  const PartList good = parts.list();
  const char* reason = nullptr;
  CHECK_FALSE(PartList::read(good.bytes(), 8, &reason));
  CHECK(std::string(reason) == "a span ends beyond the ids");
  for (std::size_t size = 1; size < good.bytes().size(); ++size) {
    CHECK_FALSE(PartList::read(good.bytes().first(size), 9, &reason));
  }
  for (std::size_t bit = 0; bit < 8 * good.bytes().size(); ++bit) {
    CAPTURE(bit);
    Block block(good);
    const std::span<std::byte> bytes = block.bytes();
    bytes[bit / 8] ^= static_cast<std::byte>(1U << bit % 8);
    reason = nullptr;
    const auto list = PartList::read(bytes, 9, &reason);
    REQUIRE(list.has_value() == (reason == nullptr));
    if (!list) continue;
    CHECK(list->size() <= 7);  // that it is fewer, the checksum of the record tells
    for (std::size_t i = 0; i < list->size(); ++i) {
      const Part part = (*list)[i];
      CHECK(part.name.size() <= PartList::kMostNameBytes);
      std::uint32_t end = 0;
      for (const Span& span : part.spans) {
        REQUIRE(span.begin >= end);
        REQUIRE(span.end <= 9);
        end = span.end;
      }
    }
  }
}

}  // namespace tokcask
