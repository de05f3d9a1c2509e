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

int entries(const test::TempDir& dir) {
  return test::run({"show", dir / "store", "--json"}).json()["entry_count"].get<int>();
}

}  // namespace

TEST_CASE("clear: refuses without --force where there is nobody to ask") {
  const test::TempDir dir;
  fill(dir);
  const Outcome outcome = test::run({"clear", dir / "store", "--json"});
  CHECK(outcome.code == cli::kExitUsage);
  CHECK(outcome.err.find("--force") != std::string::npos);
  CHECK(entries(dir) == 2);
}

TEST_CASE("clear: removes everything with --force") {
  const test::TempDir dir;
  fill(dir);
  const auto document = test::run({"clear", dir / "store", "--force", "--json"}).json();
  CHECK(document["removed"] == 2);
  CHECK(document["cleared"] == true);
  CHECK(entries(dir) == 0);
  CHECK(test::run({"clear", dir / "store", "--force"}).out == "removed  0\n");
}

TEST_CASE("clear: asks on a terminal, and does as told") {
  const test::TempDir dir;
  fill(dir);
  for (const char* answer : {"n\n", "\n", "yes please\n"}) {
    test::Terminal terminal;
    terminal.type(answer);
    CHECK(terminal.run({"clear", dir / "store"}) == cli::kExitOk);
    CHECK(terminal.output().find("Remove all 2 entries") != std::string::npos);
    CHECK(terminal.output().find("nothing removed") != std::string::npos);
    CHECK(entries(dir) == 2);
  }
  test::Terminal terminal;
  terminal.type("y\n");
  CHECK(terminal.run({"clear", dir / "store"}) == cli::kExitOk);
  CHECK(entries(dir) == 0);
}

TEST_CASE("clear: absent stores") {
  const test::TempDir dir;
  CHECK(test::run({"clear", dir / "absent", "--force"}).code == cli::kExitNoStore);
  CHECK(test::run({"clear", dir / "absent"}).code == cli::kExitNoStore);
  test::Terminal terminal;
  CHECK(terminal.run({"clear", dir / "absent"}) == cli::kExitNoStore);
  CHECK_FALSE(std::filesystem::exists(dir / "absent"));
}
