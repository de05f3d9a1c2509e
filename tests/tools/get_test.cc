#include <doctest/doctest.h>

#include <array>
#include <vector>

#include <tokcask/cache.h>

#include "support.h"

using namespace tokcask;
using test::Outcome;

namespace {

constexpr std::string_view kSha = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

std::string key(std::string_view section) { return std::string(section) + '|' + std::string(kSha) + "|8"; }

void fill(const std::string& store) {
  TokenizedCache cache = TokenizedCache::open(store);
  const std::int32_t ids[] = {7, -1, 2147483647};
  const std::int32_t mask[] = {1, 1, 0};
  cache.put(CacheKey::parse(key("plain")), {.input_ids = ids});
  cache.put(CacheKey::parse(key("masked")), {.input_ids = ids, .attention_mask = mask});
  cache.put(CacheKey::parse(key("empty")), {.input_ids = {}});
  cache.close();
}

}  // namespace

TEST_CASE("get: ids on one line") {
  const test::TempDir dir;
  fill(dir / "store");
  const Outcome outcome = test::run({"get", dir / "store", key("plain")});
  CHECK(outcome.code == cli::kExitOk);
  CHECK(outcome.out == "7 -1 2147483647\n");
  CHECK(outcome.err.empty());
  CHECK(test::run({"get", dir / "store", key("empty")}).out == "\n");
}

TEST_CASE("get: the object; a mask is in it only if it is not all ones") {
  const test::TempDir dir;
  fill(dir / "store");
  const auto plain = test::run({"get", dir / "store", key("plain"), "--json"}).json();
  CHECK(plain["key"] == key("plain"));
  CHECK(plain["found"] == true);
  CHECK(plain["length"] == 3);
  CHECK(plain["input_ids"] == nlohmann::json({7, -1, 2147483647}));
  CHECK(plain["mask_is_all_ones"] == true);
  CHECK_FALSE(plain.contains("attention_mask"));
  const auto masked = test::run({"get", dir / "store", key("masked"), "--json"}).json();
  CHECK(masked["attention_mask"] == nlohmann::json({1, 1, 0}));
  CHECK_FALSE(masked.contains("parts"));
  {
    auto cache = TokenizedCache::open(dir / "store");
    const std::vector<std::int32_t> ids{1, 2, 3};
    const std::array<std::byte, 4> weights{};
    Parts parts;
    parts.spans("assistant", {{0, 1}, {2, 3}}).integer("label", -4).real("margin", 0.5);
    parts.array("weights", ElementType::kFloat16, weights);
    cache.put(CacheKey::parse(key("parts")), {.input_ids = ids, .parts = parts.list()});
  }
  const auto parts = test::run({"get", dir / "store", key("parts"), "--json"}).json()["parts"];
  CHECK(parts["spans"] == nlohmann::json::parse(R"({"assistant": [[0, 1], [2, 3]]})"));
  CHECK(parts["scalars"] == nlohmann::json::parse(R"({"label": -4, "margin": 0.5})"));
  CHECK(parts["arrays"] == nlohmann::json::parse(R"({"weights": {"type": "float16", "length": 2}})"));
  const auto empty = test::run({"get", dir / "store", key("empty"), "--json"}).json();
  CHECK(empty["length"] == 0);
  CHECK(empty["input_ids"] == nlohmann::json::array());
}

TEST_CASE("get: a miss is a finding, not an error") {
  const test::TempDir dir;
  fill(dir / "store");
  const Outcome text = test::run({"get", dir / "store", key("other")});
  CHECK(text.code == cli::kExitFinding);
  CHECK(text.out.empty());
  CHECK(text.err.find(key("other")) != std::string::npos);
  const Outcome json = test::run({"get", dir / "store", key("other"), "--json"});
  CHECK(json.code == cli::kExitFinding);
  CHECK(json.json()["found"] == false);
}

TEST_CASE("get: bad keys and absent stores") {
  const test::TempDir dir;
  fill(dir / "store");
  const std::string sha(kSha);
  for (const std::string& bad :
       {std::string("x"), std::string("|") + sha + "|8", "a|" + sha + "|0", "a|" + sha + "|-1",
        "a|" + sha + "|08", "a|" + sha + "|", std::string("a||8"), std::string("a|b|c|8"),
        "a\n|" + sha + "|8", std::string(600, 'a') + '|' + sha + "|8", std::string("a\0b|", 4) + sha + "|8",
        std::string()}) {
    CAPTURE(bad);
    const Outcome outcome = test::run({"get", dir / "store", bad, "--json"});
    CHECK(outcome.code == cli::kExitUsage);
    CHECK(outcome.json()["error"]["exit_code"] == cli::kExitUsage);
  }
  CHECK(test::run({"get", dir / "absent", key("plain")}).code == cli::kExitNoStore);
  CHECK_FALSE(std::filesystem::exists(dir / "absent"));
}
