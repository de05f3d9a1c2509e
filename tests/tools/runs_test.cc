#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <sstream>

#include <tokcask/cache.h>

#include "support.h"
#include "terminal.h"

using namespace tokcask;
using test::Outcome;

namespace {

void warm(const test::TempDir& dir, const char* length) {
  dir.write("corpus/a", "alpha");
  dir.write("corpus/b", "beta");
  REQUIRE(
      test::run({"warm", dir / "store", dir / "corpus", "--tokenizer", "bytes", "--seq-len", length}).code ==
      0);
}

std::vector<std::string> lines_of(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

}  // namespace

TEST_CASE("runs: the object for programs") {
  const test::TempDir dir;
  warm(dir, "10");
  warm(dir, "10");
  warm(dir, "3");
  for (int look = 0; look < 2; ++look) {
    const auto document = test::run({"runs", dir / "store", "--json"}).json();
    CHECK(document["schema_version"] == 1);
    CHECK(document["command"] == "runs");
    const auto& runs = document["runs"];
    REQUIRE(runs.size() == 3);
    CHECK(runs[0]["run_id"] == 3);
    CHECK(runs[0]["sequence_len"] == 3);
    CHECK(runs[0]["hits"] == 2);
    CHECK(runs[0]["derived"] == 2);
    CHECK(runs[1]["hits"] == 2);
    CHECK(runs[1]["hit_rate"] == 1.0);
    const auto& first = runs[2];
    CHECK(first["run_id"] == 1);
    CHECK(first["state"] == "ended");
    CHECK(first["puts"] == 2);
    CHECK(first["derived"] == 0);
    CHECK(first["declined"] == 0);
    CHECK(first["evicted"] == 0);
    CHECK(first["several_tokenizers"] == false);
    CHECK(first["tokenizer_sha"].get<std::string>().size() == 64);
    CHECK(first["started_ns"] <= first["last_active_ns"]);
    CHECK(first["last_active_ns"] <= first["ended_ns"]);
    CHECK(first["bytes_after"].get<std::uint64_t>() > 0);
    CHECK(first["tokenize_seconds"] >= 0.0);
    // What show has is the same.
    CHECK(test::run({"show", dir / "store", "--json"}).json()["last_run"] == runs[0]);
  }
  const auto last = test::run({"runs", dir / "store", "--json", "-n", "2"}).json();
  REQUIRE(last["runs"].size() == 2);
  CHECK(last["runs"][1]["run_id"] == 2);
}

TEST_CASE("runs: the table for people") {
  const test::TempDir dir;
  warm(dir, "10");
  warm(dir, "10");
  auto cache = TokenizedCache::open(dir / "store", {.read_only = true});
  CHECK_FALSE(cache.get(CacheKey("s", "t", 1)));
  const Outcome outcome = test::run({"runs", dir / "store"});
  CHECK(outcome.code == cli::kExitOk);
  CHECK(outcome.err.empty());
  CHECK(outcome.out.find('\x1b') == std::string::npos);
  const std::vector<std::string> lines = lines_of(outcome.out);
  REQUIRE(lines.size() == 4);
  for (const char* title : {"run", "state", "started", "duration", "tokenizer", "length", "hits", "misses",
                            "hit rate", "stored", "declined", "evicted", "tokenizing"}) {
    CAPTURE(title);
    CHECK(lines[0].find(title) != std::string::npos);
  }
  CHECK(lines[1].find("  3  alive") == 0);
  CHECK(lines[2].find("  2  ended") == 0);
  CHECK(lines[2].find("100.0 %") != std::string::npos);
  // Figures end where their titles do.
  for (const char* title : {"hits", "misses", "hit rate", "stored", "declined", "tokenizing"}) {
    CAPTURE(title);
    const std::size_t end = lines[0].find(title) + std::string(title).size();
    for (const std::string& line : lines) {
      REQUIRE(line.size() >= end);
      CHECK(line[end - 1] != ' ');
      CHECK((line.size() == end || line[end] == ' '));
    }
  }
  CHECK(lines_of(test::run({"runs", dir / "store", "--last", "1"}).out).size() == 2);
}

TEST_CASE("runs: on a terminal, as wide as that is, and in color unless told otherwise") {
  const test::TempDir dir;
  warm(dir, "10");
  auto cache = TokenizedCache::open(dir / "store", {.read_only = true});
  CHECK_FALSE(cache.get(CacheKey("s", "t", 1)));
  const test::Environment term("TERM", "xterm");
  for (const int columns : {40, 80, 200}) {
    CAPTURE(columns);
    const test::Environment set("NO_COLOR", "1");
    test::Terminal plain(static_cast<unsigned short>(columns));
    CHECK(plain.run({"runs", dir / "store"}) == cli::kExitOk);
    CHECK(plain.output().find('\x1b') == std::string::npos);
    CHECK((plain.output().find("tokenizing") != std::string::npos) == (columns == 200));
    CHECK((plain.output().find("--json shows them") != std::string::npos) == (columns != 200));
    CHECK(plain.output().find("misses") != std::string::npos);
    for (const std::string& line : lines_of(plain.output())) {
      // Each ends with a carriage return.
      if (line.find("--json") == std::string::npos) CHECK(static_cast<int>(line.size()) <= columns + 1);
    }
  }
  const test::Environment unset("NO_COLOR", "");
  test::Terminal colored(200);
  CHECK(colored.run({"runs", dir / "store"}) == cli::kExitOk);
  CHECK(colored.output().find("\x1b[32malive") != std::string::npos);
}

TEST_CASE("runs: a store without any, no store, and a number that is none") {
  const test::TempDir dir;
  TokenizedCache::open(dir / "store").close();
  CHECK(test::run({"runs", dir / "store"}).out == "no runs yet\n");
  CHECK(test::run({"runs", dir / "store", "--json"}).json()["runs"].empty());
  CHECK(test::run({"runs", dir / "absent"}).code == cli::kExitNoStore);
  CHECK(test::run({"runs", dir / "store", "-n", "0"}).code == cli::kExitUsage);
  CHECK(test::run({"runs", dir / "store", "-n", "many"}).code == cli::kExitUsage);
}

TEST_CASE("runs: looking is no run, with any verb") {
  const test::TempDir dir;
  warm(dir, "10");
  const std::string key = TokenizedCache::open(dir / "store", {.observe = true}).keys().at(0).canonical();
  const auto before = test::run({"runs", dir / "store", "--json"}).out;
  CHECK(test::run({"get", dir / "store", key}).code == 0);
  CHECK(test::run({"show", dir / "store"}).code == 0);
  CHECK(test::run({"verify", dir / "store"}).code == 0);
  CHECK(test::run({"prune", dir / "store", "--older-than", "30d"}).code == 0);
  CHECK(test::run({"runs", dir / "store", "--json"}).out == before);
}
