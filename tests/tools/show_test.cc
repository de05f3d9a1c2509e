#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <set>
#include <string>

#include <doctest/doctest.h>

#include "support.h"
#include "terminal.h"

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

std::set<std::string> names_in(const test::TempDir& dir) {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(dir.path())) {
    names.insert(entry.path().filename().string());
  }
  return names;
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

TEST_CASE("show: the groups and histograms for programs") {
  const test::TempDir dir;
  fill(dir);
  const auto document = test::run({"show", dir / "store", "--json"}).json();
  REQUIRE(document["groups"].size() == 1);
  const auto& group = document["groups"][0];
  CHECK(group["tokenizer_sha"] == document["tokenizer_sha"]);
  CHECK(group["sequence_len"] == 10);
  CHECK(group["entries"] == 2);
  CHECK(group["tokens"] == 9);
  CHECK(group["bytes"] == document["total_bytes"]);
  CHECK(group["first_stored_ns"] > 0);
  CHECK(group["first_stored_ns"] <= group["last_stored_ns"]);
  REQUIRE(document["length_histogram"].size() == 4);
  CHECK(document["length_histogram"][2] ==
        nlohmann::json{{"up_to", 4}, {"entries", 1}, {"bytes", document["length_histogram"][2]["bytes"]}});
  CHECK(document["length_histogram"][3]["entries"] == 1);
  REQUIRE(document["last_access_histogram"].size() == 7);
  const auto& newest = document["last_access_histogram"][0];
  CHECK(newest["label"] == "< 1 minute");
  CHECK(newest["under_seconds"] == 60);
  CHECK(newest["entries"] == 2);
  CHECK(document["last_access_histogram"][5]["under_seconds"].is_null());
  CHECK(document["last_access_histogram"][6]["label"] == "unknown");
}

TEST_CASE("show: the budget is the one that the store was last written with") {
  const test::TempDir dir;
  dir.write("corpus/a", "alpha");
  REQUIRE(test::run({"warm", dir / "store", dir / "corpus", "--tokenizer", "bytes", "--seq-len", "10",
                     "--max-bytes", "64M"})
              .code == 0);
  CHECK(test::run({"show", dir / "store", "--json"}).json()["max_bytes"] == 64 << 20);
  CHECK(test::run({"show", dir / "store"}).out.find("of 64.0 MiB") != std::string::npos);
}

TEST_CASE("show: the page for people") {
  const test::TempDir dir;
  fill(dir);
  const Outcome outcome = test::run({"show", dir / "store"});
  CHECK(outcome.code == cli::kExitOk);
  CHECK(outcome.err.empty());
  CHECK(outcome.out.find('\x1b') == std::string::npos);
  for (const char* part : {"2 entries\n", "of 10.0 GiB", "token ids 36 B", "last run", "0 hits, 2 misses"}) {
    CAPTURE(part);
    CHECK(outcome.out.find(part) != std::string::npos);
  }
}

TEST_CASE("show: on a terminal there are colour and blocks, unless they are not wanted") {
  const test::TempDir dir;
  fill(dir);
  {
    test::Terminal terminal(90);
    CHECK(terminal.run({"show", dir / "store"}) == cli::kExitOk);
    CHECK(terminal.output().find("\x1b[36m") != std::string::npos);
  }
  ::setenv("NO_COLOR", "1", 1);
  ::setenv("LC_ALL", "C.UTF-8", 1);
  {
    test::Terminal terminal(90);
    CHECK(terminal.run({"show", dir / "store"}) == cli::kExitOk);
    CHECK(terminal.output().find("█") != std::string::npos);
    CHECK(terminal.output().find("\x1b[36m") == std::string::npos);
  }
  ::setenv("LC_ALL", "C", 1);
  {
    test::Terminal terminal(90);
    CHECK(terminal.run({"show", dir / "store"}) == cli::kExitOk);
    CHECK(terminal.output().find("█") == std::string::npos);
  }
  ::unsetenv("NO_COLOR");
  ::unsetenv("LC_ALL");
}

TEST_CASE("show: a report in HTML, whole or not at all") {
  const test::TempDir dir;
  fill(dir);
  const std::string file = dir / "report.html";
  const Outcome outcome = test::run({"show", dir / "store", "--html", file});
  CHECK(outcome.code == cli::kExitOk);
  CHECK(outcome.out.empty());
  CHECK(outcome.err.find(file) != std::string::npos);
  CHECK(std::filesystem::file_size(file) > 4000);
  CHECK(names_in(dir) == std::set<std::string>{"corpus", "report.html", "store"});
  CHECK(test::run({"show", dir / "store", "--json", "--html", file}).json()["entry_count"] == 2);
  const Outcome failed = test::run({"show", dir / "store", "--html", dir / "absent/report.html"});
  CHECK(failed.code == cli::kExitIo);
  CHECK(failed.err.find("absent/report.html") != std::string::npos);
  dir.make_directory("taken/below");
  CHECK(test::run({"show", dir / "store", "--html", dir / "taken"}).code == cli::kExitIo);
  CHECK(names_in(dir) == std::set<std::string>{"corpus", "report.html", "store", "taken"});
}

TEST_CASE("show: a report is not written through links") {
  const test::TempDir dir;
  fill(dir);
  const std::string mine = dir.write("mine", "mine");
  dir.link("report.html", mine);
  dir.link("report.html.unfinished-" + std::to_string(::getpid()), mine);
  CHECK(test::run({"show", dir / "store", "--html", dir / "report.html"}).code == cli::kExitOk);
  CHECK(std::filesystem::file_size(mine) == 4);
  CHECK_FALSE(std::filesystem::is_symlink(dir / "report.html"));
  CHECK(std::filesystem::file_size(dir / "report.html") > 4000);
  CHECK(names_in(dir) == std::set<std::string>{"corpus", "mine", "report.html", "store"});
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
