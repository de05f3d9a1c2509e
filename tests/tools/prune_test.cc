#include <doctest/doctest.h>

#include <chrono>
#include <thread>

#include "support.h"

using namespace tokcask;
using test::Outcome;

namespace {

void warm(const test::TempDir& dir) {
  REQUIRE(
      test::run({"warm", dir / "store", dir / "corpus", "--tokenizer", "bytes", "--seq-len", "10"}).code ==
      0);
}

}  // namespace

TEST_CASE("prune: removes what was not used for the time given, and no more") {
  const test::TempDir dir;
  dir.write("corpus/old", "alpha");
  warm(dir);
  std::filesystem::remove(dir / "corpus/old");
  std::this_thread::sleep_for(std::chrono::milliseconds(2200));
  dir.write("corpus/new", "beta");
  warm(dir);
  const auto none = test::run({"prune", dir / "store", "--older-than", "1h", "--json"}).json();
  CHECK(none["removed"] == 0);
  CHECK(none["entry_count"] == 2);
  const auto one = test::run({"prune", dir / "store", "--older-than", "2s", "--json"}).json();
  CHECK(one["removed"] == 1);
  CHECK(one["entry_count"] == 1);
  CHECK(one["older_than_seconds"] == 2);
  const Outcome rest = test::run({"prune", dir / "store", "--older-than", "0s"});
  CHECK(rest.code == cli::kExitOk);
  CHECK(rest.out == "removed  1\nleft     0\n");
  CHECK(test::run({"verify", dir / "store"}).code == cli::kExitOk);
}

TEST_CASE("prune: bad ages and absent stores") {
  const test::TempDir dir;
  dir.write("corpus/a", "alpha");
  warm(dir);
  for (const char* bad : {"", "30", "-1d", "1y", "soon"}) {
    CAPTURE(bad);
    const Outcome outcome = test::run({"prune", dir / "store", "--older-than", bad, "--json"});
    CHECK(outcome.code == cli::kExitUsage);
    CHECK(outcome.json()["error"]["exit_code"] == cli::kExitUsage);
  }
  CHECK(test::run({"prune", dir / "store"}).code == cli::kExitUsage);
  CHECK(test::run({"prune", dir / "absent", "--older-than", "1d"}).code == cli::kExitNoStore);
  CHECK_FALSE(std::filesystem::exists(dir / "absent"));
}
