#include <doctest/doctest.h>

#include <chrono>
#include <string>
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
  CHECK(rest.out == "removed  1\nbytes    0.0 MiB\nleft     0\n");
  CHECK(rest.err.find("tokcask compact") != std::string::npos);
  CHECK(test::run({"verify", dir / "store"}).code == cli::kExitOk);
}

TEST_CASE("prune: by tokenizer, length and runs, and only to see") {
  const test::TempDir dir;
  dir.write("corpus/a", "longer than either, so that what was cut to one does not serve the other");
  const std::string store = dir / "store";
  for (const char* length : {"10", "20"}) {
    REQUIRE(test::run({"warm", store, dir / "corpus", "--tokenizer", "bytes", "--seq-len", length}).code ==
            0);
  }
  const auto seen = test::run({"prune", store, "--seq-len", "10", "--dry-run", "--json"}).json();
  CHECK(seen["removed"] == 1);
  CHECK(seen["removed_bytes"] > 0);
  CHECK(seen["dry_run"] == true);
  CHECK(seen["entry_count"] == 2);
  CHECK(test::run({"prune", store, "--seq-len", "10", "--dry-run"}).out.starts_with("would remove  1\n"));
  CHECK(test::run({"prune", store, "--seq-len", "10", "--older-than", "1h", "--json"}).json()["removed"] ==
        0);

  // The first run's entry was not used in the second.
  CHECK(test::run({"prune", store, "--keep-last-runs", "3", "--dry-run", "--json"}).json()["removed"] == 0);
  CHECK(test::run({"prune", store, "--keep-last-runs", "2", "--dry-run", "--json"}).json()["removed"] == 0);
  CHECK(test::run({"prune", store, "--keep-last-runs", "1", "--dry-run", "--json"}).json()["removed"] == 1);

  const auto all = test::run({"prune", store, "--tokenizer", "", "--dry-run", "--json"}).json();
  CHECK(all["removed"] == 2);
  const std::string sha = all["tokenizer_sha"];
  CHECK(test::run({"prune", store, "--tokenizer", sha.substr(0, 6), "--seq-len", "20", "--json"})
            .json()["removed"] == 1);
  CHECK(test::run({"prune", store, "--tokenizer", sha, "--json"}).json()["removed"] == 1);
  const Outcome none = test::run({"prune", store, "--tokenizer", "zz"});
  CHECK(none.code == cli::kExitUsage);
  CHECK(none.err.find("begins with zz") != std::string::npos);
  for (const char* bad : {"0", "-1", "x"}) {
    CHECK(test::run({"prune", store, "--keep-last-runs", bad}).code == cli::kExitUsage);
    CHECK(test::run({"prune", store, "--seq-len", bad}).code == cli::kExitUsage);
  }
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
