#include <doctest/doctest.h>

#include <tokcask/cache.h>

#include "support.h"

using namespace tokcask;
using test::Outcome;

namespace {

std::string key(std::string_view section, char tokenizer = 'a', int length = 8) {
  return std::string(section) + '|' + std::string(64, tokenizer) + '|' + std::to_string(length);
}

void fill(const std::string& store) {
  TokenizedCache cache = TokenizedCache::open(store);
  const std::int32_t ids[] = {7, -1, 2147483647};
  cache.put(CacheKey::parse(key("kept")), {.input_ids = ids});
  cache.put(CacheKey::parse(key("pruned")), {.input_ids = ids});
  cache.flush();
  static_cast<void>(cache.prune(std::chrono::nanoseconds(0)));
  cache.put(CacheKey::parse(key("kept")), {.input_ids = ids});
  cache.close();
}

}  // namespace

TEST_CASE("explain: a hit, and why there is none") {
  const test::TempDir dir;
  fill(dir / "store");
  const Outcome hit = test::run({"explain", dir / "store", key("kept")});
  CHECK(hit.code == cli::kExitOk);
  CHECK(hit.out.starts_with("hit  stored on 20"));
  CHECK(hit.err.empty());

  const Outcome other = test::run({"explain", dir / "store", key("kept", 'b')});
  CHECK(other.code == cli::kExitFinding);
  CHECK(other.out.find("not stored under tokenizer bbbbbbbbbbbb…; the section is stored under tokenizer "
                       "aaaaaaaaaaaa… (1 entry") != std::string::npos);
  CHECK(other.out.find("  beside  " + key("kept") + " (3 tokens, stored 20") != std::string::npos);
  CHECK(other.err.empty());

  CHECK(test::run({"explain", dir / "store", key("pruned")}).out.starts_with("miss  pruned on 20"));
  CHECK(test::run({"explain", dir / "store", key("new")}).out.starts_with("miss  never stored"));
}

TEST_CASE("explain: the object") {
  const test::TempDir dir;
  fill(dir / "store");
  const auto hit = test::run({"explain", dir / "store", key("kept"), "--json"}).json();
  CHECK(hit["schema_version"] == 1);
  CHECK(hit["command"] == "explain");
  CHECK(hit["key"] == key("kept"));
  CHECK(hit["found"] == true);
  CHECK(hit["reason"].is_null());
  CHECK(hit["when_ns"].is_number_integer());
  const auto miss = test::run({"explain", dir / "store", key("kept", 'a', 9), "--json"}).json();
  CHECK(miss["found"] == false);
  CHECK(miss["reason"] == "other length");
  CHECK(miss["related"][0]["key"] == key("kept"));
  CHECK(miss["related"][0]["tokens"] == 3);
  CHECK(test::run({"explain", dir / "store", key("pruned"), "--json"}).json()["reason"] == "pruned");
}

TEST_CASE("explain: bad keys and absent stores") {
  const test::TempDir dir;
  CHECK(test::run({"explain", dir / "absent", key("a")}).code == cli::kExitNoStore);
  fill(dir / "store");
  CHECK(test::run({"explain", dir / "store", "a"}).code == cli::kExitUsage);
}

TEST_CASE("get says why, too") {
  const test::TempDir dir;
  fill(dir / "store");
  const Outcome text = test::run({"get", dir / "store", key("kept", 'b')});
  CHECK(text.err.find("is stored under tokenizer aaaaaaaaaaaa…") != std::string::npos);
  CHECK(test::run({"get", dir / "store", key("pruned"), "--json"}).json()["reason"] == "pruned");
}
