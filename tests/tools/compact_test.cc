#include <doctest/doctest.h>

#include <filesystem>
#include <string>

#include "support.h"

using namespace tokcask;
using test::Outcome;

namespace {

void fill(const test::TempDir& dir, int files) {
  for (int i = 0; i < files; ++i)
    dir.write("corpus/" + std::to_string(i), std::string(3000, 'a') + std::to_string(i));
  REQUIRE(
      test::run({"warm", dir / "store", dir / "corpus", "--tokenizer", "bytes", "--seq-len", "2048"}).code ==
      0);
}

}  // namespace

TEST_CASE("compact: gives back what a prune has freed, and says how much") {
  const test::TempDir dir;
  fill(dir, 60);
  REQUIRE(test::run({"prune", dir / "store", "--older-than", "0s"}).code == 0);
  const auto before = std::filesystem::file_size(dir / "store/data.mdb");
  const auto document = test::run({"compact", dir / "store", "--json"}).json();
  CHECK(document["command"] == "compact");
  CHECK(document["bytes_before"] >= before);
  CHECK(document["bytes_after"] == std::filesystem::file_size(dir / "store/data.mdb"));
  CHECK(document["bytes_after"] < document["bytes_before"]);
  CHECK(document["entry_count"] == 0);
  CHECK(document["damaged"] == 0);
  fill(dir, 60);
  const Outcome outcome = test::run({"compact", dir / "store"});
  CHECK(outcome.code == cli::kExitOk);
  CHECK(outcome.out.find("entries  60\n") != std::string::npos);
  CHECK(test::run({"verify", dir / "store"}).code == cli::kExitOk);
}

TEST_CASE("compact: absent stores") {
  const test::TempDir dir;
  CHECK(test::run({"compact", dir / "absent"}).code == cli::kExitNoStore);
  CHECK_FALSE(std::filesystem::exists(dir / "absent"));
}

TEST_CASE("copy: a store of its own, of what was committed, and not over another one") {
  const test::TempDir dir;
  fill(dir, 30);
  const auto document = test::run({"copy", dir / "store", dir / "backup", "--json"}).json();
  CHECK(document["command"] == "copy");
  CHECK(document["entry_count"] == 30);
  CHECK(document["damaged"] == 0);
  CHECK(document["file_bytes"] == std::filesystem::file_size(dir / "backup/data.mdb"));
  CHECK(test::run({"verify", dir / "backup"}).code == 0);
  const auto shown = test::run({"show", dir / "backup", "--json"}).json();
  CHECK(shown["entry_count"] == 30);
  const Outcome again = test::run({"copy", dir / "store", dir / "backup"});
  CHECK(again.code == cli::kExitUsage);
  CHECK(again.err.find("holds a store") != std::string::npos);
  CHECK(test::run({"copy", dir / "absent", dir / "other"}).code == cli::kExitNoStore);
  CHECK(test::run({"copy", dir / "store", dir / "third"}).out.find("entries  30") != std::string::npos);
}
