#include <doctest/doctest.h>

#include "support.h"

using namespace tokcask;
using test::Outcome;

namespace {

void fill(const test::TempDir& dir) {
  dir.write("corpus/a", "alpha");
  dir.write("corpus/b", "beta");
  REQUIRE(
      test::run({"warm", dir / "store", dir / "corpus", "--tokenizer", "bytes", "--seq-len", "10"}).code ==
      0);
}

}  // namespace

TEST_CASE("show: the object for programs") {
  const test::TempDir dir;
  fill(dir);
  fill(dir);
  for (int round = 0; round < 2; ++round) {
    // Looking changes nothing: the last run stays the last warm.
    const auto document = test::run({"show", dir / "store", "--json"}).json();
    CHECK(document["path"] == dir / "store");
    CHECK(document["entry_count"] == 2);
    CHECK(document["payload_bytes"] == 4 * 9);
    CHECK(document["total_bytes"].get<int>() > 0);
    CHECK(document["file_bytes"].get<int>() > 0);
    CHECK(document["max_bytes"].get<std::uint64_t>() == std::uint64_t{10} << 30);
    CHECK(document["tokenizer_sha"].get<std::string>().size() == 64);
    const auto& run = document["last_run"];
    CHECK(run["run_id"] == 2);
    CHECK(run["hits"] == 2);
    CHECK(run["misses"] == 0);
    CHECK(run["hit_rate"] == 1.0);
    CHECK(run["tokenize_seconds"] >= 0.0);
  }
}

TEST_CASE("show: the page for people") {
  const test::TempDir dir;
  fill(dir);
  const Outcome outcome = test::run({"show", dir / "store"});
  CHECK(outcome.code == cli::kExitOk);
  CHECK(outcome.err.empty());
  for (const char* part : {"entries     2\n", "MiB", "[---", "last run", "hits", "misses      2\n"}) {
    CAPTURE(part);
    CHECK(outcome.out.find(part) != std::string::npos);
  }
}

TEST_CASE("show: paths without a store") {
  const test::TempDir dir;
  dir.make_directory("empty");
  for (const std::string& path : {dir / "absent", dir / "empty", dir / "absent/below"}) {
    CAPTURE(path);
    const Outcome outcome = test::run({"show", path, "--json"});
    CHECK(outcome.code == cli::kExitNoStore);
    CHECK(outcome.json()["error"]["exit_code"] == cli::kExitNoStore);
    CHECK(outcome.err.find(path) != std::string::npos);
  }
  CHECK_FALSE(std::filesystem::exists(dir / "absent"));
  CHECK(std::filesystem::is_empty(dir / "empty"));
}

TEST_CASE("show: a damaged store is said to be damaged, and stays where it is") {
  const test::TempDir dir;
  fill(dir);
  dir.write("store/data.mdb", std::string(32768, 'g'));
  const Outcome outcome = test::run({"show", dir / "store", "--json"});
  CHECK(outcome.code == cli::kExitDamaged);
  CHECK(outcome.json()["error"]["exit_code"] == cli::kExitDamaged);
  CHECK(std::filesystem::file_size(dir / "store/data.mdb") == 32768);
}
