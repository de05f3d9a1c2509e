#include <doctest/doctest.h>

#include <tokcask/cache.h>

#include "support.h"
#include "terminal.h"

using namespace tokcask;
using test::Outcome;

namespace {

constexpr std::uint64_t kThen = 1'700'000'000ULL * 1'000'000'000;

CacheKey key(int section) { return CacheKey("section " + std::to_string(section), "sha", 64); }

// A store with sections [from, to), whose tokens are `content` throughout.
std::string store(const test::TempDir& dir, const std::string& name, int from, int to, std::int32_t content) {
  auto cache = TokenizedCache::open(dir / name);
  for (int i = from; i < to; ++i) {
    const std::vector<std::int32_t> ids(static_cast<std::size_t>(i % 50), content);
    cache.put(key(i), {.input_ids = ids}, {.created_ns = kThen, .last_access_ns = kThen});
  }
  return dir / name;
}

}  // namespace

TEST_CASE("merge: two stores become one, and again there is nothing to do") {
  const test::TempDir dir;
  store(dir, "a", 0, 60, 7);
  store(dir, "b", 40, 100, 7);
  const Outcome outcome = test::run({"merge", dir / "out", dir / "a", dir / "b", "--json"});
  CHECK(outcome.code == cli::kExitOk);
  CHECK(outcome.err.empty());
  auto document = outcome.json();
  CHECK(document["command"] == "merge");
  CHECK(document["entries"] == 120);
  CHECK(document["merged"] == 100);
  CHECK(document["already_there"] == 20);
  CHECK(document["newer_access"] == 0);
  CHECK(document["conflicts"] == 0);
  CHECK(document["damaged"] == 0);
  CHECK(document["declined"] == 0);
  CHECK(document["bytes_after"] == document["store"]["total_bytes"]);
  CHECK(document["seconds"].is_number());
  CHECK(document["conflicting_keys"] == nlohmann::json::array());
  CHECK(test::run({"verify", dir / "out"}).code == cli::kExitOk);
  CHECK(test::run({"get", dir / "out", "section 99|sha|64"}).out.find("7 7") == 0);

  document = test::run({"merge", dir / "out", dir / "a", dir / "b", "--json"}).json();
  CHECK(document["merged"] == 0);
  CHECK(document["already_there"] == 120);
  const Outcome text = test::run({"merge", dir / "out", dir / "b"});
  CHECK(text.code == cli::kExitOk);
  CHECK(text.out.find("already there  60 (0 of them used later than known)\n") != std::string::npos);
  CHECK(text.out.find("damaged") == std::string::npos);
}

TEST_CASE("merge: conflicts are named on standard error and end with exit code 1") {
  const test::TempDir dir;
  store(dir, "a", 0, 50, 7);
  store(dir, "b", 0, 40, 8);
  const Outcome outcome = test::run({"merge", dir / "out", dir / "a", dir / "b", "--json"});
  CHECK(outcome.code == cli::kExitFinding);
  const auto document = outcome.json();
  CHECK(document["conflicts"] == 39);  // section 0 has no tokens in either
  CHECK(document["conflicting_keys"].size() == 20);
  CHECK(document["conflicting_keys"][0] == "section 10|sha|64");
  CHECK(outcome.err.find("warning: 39 entries have other tokens") != std::string::npos);
  CHECK(outcome.err.find("section 10|sha|64") != std::string::npos);
  CHECK(outcome.err.find("... and 19 more") != std::string::npos);
  CHECK(test::run({"get", dir / "out", "section 10|sha|64"}).out.find("7 7") == 0);
  const Outcome quiet = test::run({"merge", dir / "out", dir / "a", dir / "b", "--quiet"});
  CHECK(quiet.code == cli::kExitFinding);
  CHECK(quiet.err.empty());
}

TEST_CASE("merge: OUT among the inputs, no inputs, absent and damaged inputs") {
  const test::TempDir dir;
  store(dir, "a", 0, 5, 7);
  const std::string link = dir.link("link", dir / "a");
  CHECK(test::run({"merge", dir / "a", dir / "a"}).code == cli::kExitUsage);
  CHECK(test::run({"merge", dir / "a", link}).code == cli::kExitUsage);
  dir.make_directory("same");
  std::filesystem::create_hard_link(dir / "a/data.mdb", dir / "same/data.mdb");
  CHECK(test::run({"merge", dir / "same", dir / "a"}).code == cli::kExitUsage);
  CHECK(test::run({"merge", dir / "a"}).code == cli::kExitUsage);
  CHECK(test::run({"merge", dir / "out", dir / "a", "--max-bytes", "much"}).code == cli::kExitUsage);

  const Outcome absent = test::run({"merge", dir / "out", dir / "a", dir / "absent", "--json"});
  CHECK(absent.code == cli::kExitNoStore);
  CHECK(absent.json()["error"]["exit_code"] == cli::kExitNoStore);
  dir.write("broken/data.mdb", std::string(10000, 'x'));
  CHECK(test::run({"merge", dir / "out", dir / "broken"}).code == cli::kExitDamaged);
  CHECK_FALSE(std::filesystem::exists(dir / "out"));
  CHECK_FALSE(std::filesystem::exists(dir / "absent"));
}

TEST_CASE("merge: OUT keeps the budget that it was last written with") {
  const test::TempDir dir;
  store(dir, "a", 0, 5, 7);
  store(dir, "b", 5, 10, 7);
  CHECK(test::run({"merge", dir / "out", dir / "a", "--json"}).json()["store"]["max_bytes"] == 10ULL << 30);
  CHECK(test::run({"merge", dir / "out", dir / "b", "--max-bytes", "1M", "--json"})
            .json()["store"]["max_bytes"] == 1 << 20);
  store(dir, "c", 10, 15, 7);
  CHECK(test::run({"merge", dir / "out", dir / "c", "--json"}).json()["store"]["max_bytes"] == 1 << 20);
  CHECK(test::run({"prune", dir / "out", "--older-than", "1d"}).code == cli::kExitOk);
  store(dir, "d", 15, 20, 7);
  CHECK(test::run({"merge", dir / "out", dir / "d", "--json"}).json()["store"]["max_bytes"] == 1 << 20);
}

TEST_CASE("merge: into and from stores that are open") {
  const test::TempDir dir;
  store(dir, "a", 0, 50, 7);
  auto input = TokenizedCache::open(dir / "a");
  auto out = TokenizedCache::open(dir / "out");
  const auto view = input.get(key(10));
  CHECK(test::run({"merge", dir / "out", dir / "a"}).code == cli::kExitOk);
  CHECK(out.get(key(10)));
  CHECK(out.stats().entry_count == 50);
}

TEST_CASE("merge: a progress line on a terminal, erased at the end") {
  ::setenv("TERM", "xterm", 1);
  const test::TempDir dir;
  store(dir, "a", 0, 50, 7);
  test::Terminal terminal;
  CHECK(terminal.run({"merge", dir / "out", dir / "a"}) == cli::kExitOk);
  const std::string& output = terminal.output();
  const std::size_t line = output.find("\r\x1b[Kmerging [");
  CHECK(line != std::string::npos);
  CHECK(output.find("\r\x1b[Kentries", line) != std::string::npos);
  test::Terminal quiet;
  CHECK(quiet.run({"merge", dir / "other", dir / "a", "--quiet"}) == cli::kExitOk);
  CHECK(quiet.output().find('\x1b') == std::string::npos);
}
