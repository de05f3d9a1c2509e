#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <fstream>
#include <sstream>

#include "support.h"

using namespace tokcask;
using test::Outcome;

namespace {

// Recognizable in the file: as token ids they are 'Q', 0, 0, 0 again and again.
constexpr std::size_t kMarked = 2000;

void fill(const test::TempDir& dir) {
  dir.write("corpus/a", "alpha");
  dir.write("corpus/b", std::string(kMarked, 'Q'));
  REQUIRE(
      test::run({"warm", dir / "store", dir / "corpus", "--tokenizer", "bytes", "--seq-len", "4000"}).code ==
      0);
}

// Changes one token of the marked record.
void damage(const std::string& file) {
  std::ostringstream content;
  content << std::ifstream(file, std::ios::binary).rdbuf();
  std::string ids;
  for (std::size_t i = 0; i < kMarked; ++i) ids += std::string("Q\0\0\0", 4);
  const std::size_t at = content.str().find(ids);
  REQUIRE(at != std::string::npos);
  const int fd = ::open(file.c_str(), O_WRONLY | O_CLOEXEC);
  REQUIRE(::pwrite(fd, "R", 1, static_cast<off_t>(at + 400)) == 1);
  ::close(fd);
}

}  // namespace

TEST_CASE("verify: a sound store") {
  const test::TempDir dir;
  fill(dir);
  const Outcome text = test::run({"verify", dir / "store"});
  CHECK(text.code == cli::kExitOk);
  CHECK(text.out == "records    2\ndamaged    0\nstructure  ok\n");
  const auto document = test::run({"verify", dir / "store", "--json"}).json();
  CHECK(document["ok"] == true);
  CHECK(document["records"] == 2);
  CHECK(document["damaged"] == 0);
  CHECK(document["structure_ok"] == true);
  CHECK(document["findings"] == nlohmann::json::array());
}

TEST_CASE("verify: a changed token is a finding that names its key; get and warm take it as a miss") {
  const test::TempDir dir;
  fill(dir);
  damage(dir / "store/data.mdb");
  const Outcome outcome = test::run({"verify", dir / "store", "--json"});
  CHECK(outcome.code == cli::kExitFinding);
  const auto document = outcome.json();
  CHECK(document["ok"] == false);
  CHECK(document["damaged"] == 1);
  REQUIRE(document["findings"].size() == 1);
  const std::string key = document["findings"][0]["key"];
  CHECK(key.ends_with("|4000"));
  const Outcome text = test::run({"verify", dir / "store"});
  CHECK(text.code == cli::kExitFinding);
  CHECK(text.out.find(key) != std::string::npos);
  CHECK(test::run({"get", dir / "store", key}).code == cli::kExitFinding);
}

TEST_CASE("verify: a repair says what it did, and its exit code is that of the store as it is then") {
  const test::TempDir dir;
  fill(dir);
  SUBCASE("a damaged record") {
    damage(dir / "store/data.mdb");
    const auto document = test::run({"verify", dir / "store", "--repair", "--json"}).json();
    CHECK(document["ok"] == true);
    CHECK(document["damaged"] == 1);
    CHECK(document["repaired"] == true);
    CHECK(document["saved"] == 1);
    CHECK(document["lost"] == 1);
    CHECK(document["kept_as"].is_null());
  }
  SUBCASE("damaged pages") {
    const int fd = ::open((dir / "store/data.mdb").c_str(), O_WRONLY | O_CLOEXEC);
    REQUIRE(::pwrite(fd, "12345678", 8, 4096 + 16) == 8);
    ::close(fd);
    const Outcome found = test::run({"verify", dir / "store", "--json"});
    CHECK(found.code == cli::kExitFinding);
    CHECK(found.json()["structure_ok"] == false);
    CHECK(found.json()["findings"][0]["reason"].get<std::string>().find("Page 1") != std::string::npos);
    CHECK(found.json()["repaired"] == false);
    CHECK_FALSE(std::filesystem::exists(dir / "store/data.mdb.set-aside-1"));
    const Outcome repaired = test::run({"verify", dir / "store", "--repair"});
    CHECK(repaired.code == cli::kExitOk);
    CHECK(repaired.out.find("repaired: 2 entries saved, 0 lost; the old file is kept as "
                            "data.mdb.set-aside-1\n") != std::string::npos);
  }
  SUBCASE("nothing") {}
  const Outcome sound = test::run({"verify", dir / "store", "--repair", "--json"});
  CHECK(sound.code == cli::kExitOk);
  CHECK(sound.json()["repaired"] == false);
}

TEST_CASE("verify: absent stores") {
  const test::TempDir dir;
  CHECK(test::run({"verify", dir / "absent"}).code == cli::kExitNoStore);
  CHECK(test::run({"verify", dir / "absent", "--repair"}).code == cli::kExitNoStore);
  CHECK_FALSE(std::filesystem::exists(dir / "absent"));
}
