#include <doctest/doctest.h>
#include <sys/stat.h>

#include <tokcask/cache.h>

#include <chrono>
#include <fstream>
#include <sstream>

#include "npz/manifest.h"
#include "support.h"
#include "terminal.h"
#include "zip_bytes.h"

using namespace tokcask;
using test::Outcome;

namespace {

constexpr double kThen = 1'700'000'000.25;
constexpr std::uint64_t kThenNs = 1'700'000'000'250'000'000;

std::string key(int section) { return "section-" + std::to_string(section) + "|sha|9999999"; }

// A cache as a run of the seed leaves it.
class Seed {
 public:
  void add(const std::string& key, const std::string& shard, const std::string& filename, double last_access,
           const std::string& content) {
    if (!content.empty()) dir_.write("cache/entries/" + shard + '/' + filename, content);
    manifest_["entries"][key] = {{"size", content.size()},
                                 {"last_access_ts", last_access},
                                 {"shard", shard},
                                 {"filename", filename},
                                 {"tokenizer_sha", "sha"}};
  }
  void add(int section, const std::string& content) {
    add(key(section), section % 2 == 0 ? "aa" : "bb", std::to_string(section) + ".npz", kThen + section,
        content);
  }
  void fill(int entries) {
    for (int i = 0; i < entries; ++i) {
      add(i, test::npz_of(std::vector<std::int64_t>(static_cast<std::size_t>(i), 7),
                          std::vector<std::int64_t>(static_cast<std::size_t>(i), i % 3 == 0 ? 0 : 1)));
    }
  }
  // Writes the manifest and returns the cache's directory.
  std::string path() const {
    dir_.write("cache/manifest.json", manifest_.dump(2) + '\n');
    return dir_ / "cache";
  }
  [[nodiscard]] const test::TempDir& dir() const { return dir_; }
  nlohmann::json& manifest() { return manifest_; }
  [[nodiscard]] std::string store() const { return dir_ / "store"; }

  Outcome import(const std::vector<std::string>& more = {}) const {
    std::vector<std::string> args{"import-npz", path(), store()};
    args.insert(args.end(), more.begin(), more.end());
    return test::run(args);
  }

 private:
  test::TempDir dir_;
  nlohmann::json manifest_{
      {"version", 1}, {"tokenizer_sha256", "sha"}, {"total_bytes", 0}, {"entries", nlohmann::json::object()}};
};

// All files below, with their content.
std::string everything_in(const std::string& directory) {
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) {
    if (!entry.is_regular_file()) continue;
    std::ostringstream content;
    content << entry.path().string() << '\n' << std::ifstream(entry.path(), std::ios::binary).rdbuf();
    files.push_back(content.str());
  }
  std::sort(files.begin(), files.end());
  std::string all;
  for (const std::string& file : files) all += file;
  return all;
}

std::optional<Entry> entry_of(const std::string& store, const std::string& key) {
  auto cache = TokenizedCache::open(store, {.read_only = true});
  const CacheKey wanted = CacheKey::parse(key);
  return cache.peek_many({&wanted, 1})[0];
}

}  // namespace

TEST_CASE("import-npz: all entries with their times, the cache unchanged; again there is nothing to do") {
  Seed seed;
  seed.fill(100);
  const std::string before = everything_in(seed.path());
  const Outcome outcome = seed.import({"--json"});
  CHECK(outcome.code == cli::kExitOk);
  CHECK(outcome.err.empty());
  auto document = outcome.json();
  CHECK(document["command"] == "import-npz");
  CHECK(document["entries"] == 100);
  CHECK(document["imported"] == 100);
  for (const char* none : {"already_there", "newer_access", "replaced", "conflicts", "missing", "damaged",
                           "malformed", "orphans", "declined"}) {
    CAPTURE(none);
    CHECK(document[none] == 0);
  }
  CHECK(document["bytes_after"] == document["store"]["total_bytes"]);
  CHECK(everything_in(seed.path()) == before);
  CHECK(test::run({"verify", seed.store()}).code == cli::kExitOk);
  CHECK(test::run({"show", seed.store(), "--json"}).json()["tokenizer_sha"] == "sha");
  for (int i = 0; i < 100; ++i) {
    const auto entry = entry_of(seed.store(), key(i));
    REQUIRE(entry);
    CHECK(entry->info.tokens == static_cast<std::uint32_t>(i));
    CHECK(entry->info.last_access_ns == kThenNs + static_cast<std::uint64_t>(i) * 1'000'000'000);
    CHECK(entry->view.mask_is_all_ones() == (i % 3 != 0 || i == 0));
    for (const std::int32_t id : entry->view.input_ids()) CHECK(id == 7);
  }

  document = seed.import({"--json"}).json();
  CHECK(document["imported"] == 0);
  CHECK(document["already_there"] == 100);
  CHECK(document["newer_access"] == 0);
  const Outcome text = seed.import();
  CHECK(text.code == cli::kExitOk);
  CHECK(text.out.find("already there  100 (0 of them used later than known)\n") != std::string::npos);
  CHECK(text.out.find("orphans") == std::string::npos);
}

TEST_CASE("import-npz: the later access wins; other tokens are a conflict unless they shall replace") {
  Seed seed;
  seed.fill(10);
  REQUIRE(seed.import().code == cli::kExitOk);
  seed.add(key(3), "bb", "3.npz", kThen + 1000, test::npz_of({7, 7, 7}, {0, 0, 0}));
  seed.add(key(4), "aa", "4.npz", kThen + 2000, test::npz_of({9, 9}, {1, 1}));
  seed.add(key(5), "bb", "5.npz", 5, test::npz_of({7, 7, 7, 7, 7}, {1, 1, 1, 1, 1}));
  const Outcome outcome = seed.import({"--json"});
  CHECK(outcome.code == cli::kExitFinding);
  const auto document = outcome.json();
  CHECK(document["already_there"] == 9);
  CHECK(document["newer_access"] == 1);
  CHECK(document["conflicts"] == 1);
  CHECK(document["conflicting_keys"] == nlohmann::json::array({key(4)}));
  CHECK(outcome.err.find(key(4)) != std::string::npos);
  CHECK(entry_of(seed.store(), key(3))->info.last_access_ns / 1'000'000'000 == 1'700'001'000);
  CHECK(entry_of(seed.store(), key(4))->info.tokens == 4);
  CHECK(entry_of(seed.store(), key(5))->info.last_access_ns / 1'000'000'000 == 1'700'000'005);

  const Outcome replaced = seed.import({"--replace", "--json"});
  CHECK(replaced.code == cli::kExitOk);
  CHECK(replaced.json()["replaced"] == 1);
  CHECK(replaced.json()["conflicts"] == 0);
  CHECK(entry_of(seed.store(), key(4))->info.tokens == 2);
  CHECK(entry_of(seed.store(), key(4))->info.last_access_ns / 1'000'000'000 == 1'700'002'000);
}

TEST_CASE("import-npz: missing, damaged, malformed and unknown files are counted and named") {
  Seed seed;
  seed.fill(5);
  seed.add(10, "");
  seed.add(key(11), "cc", "nowhere.npz", kThen, "");
  seed.add(12, "this is no zip archive");
  seed.add(13, test::npz_of({1, 2}, {1}));
  seed.add(14, test::npz_of({1LL << 40}, {1}));
  seed.add("long|sha|64", "aa", "18.npz", kThen,
           test::npz_of(std::vector<std::int64_t>(65, 1), std::vector<std::int64_t>(65, 1)));
  seed.manifest()["entries"][key(15)] = {{"size", 1}};
  seed.manifest()["entries"][key(16)] = "no row";
  seed.manifest()["entries"]["no key"] = seed.manifest()["entries"][key(1)];
  seed.manifest()["entries"][key(17)] = seed.manifest()["entries"][key(1)];
  seed.manifest()["entries"][key(17)]["last_access_ts"] = "yesterday";
  seed.dir().write("cache/entries/aa/orphan.npz", test::npz_of({1}, {1}));
  seed.dir().write("cache/entries/aa/0.npz.tmp", "half");
  seed.dir().write("cache/entries/stray", "x");
  const Outcome outcome = seed.import({"--json"});
  CHECK(outcome.code == cli::kExitOk);
  const auto document = outcome.json();
  CHECK(document["entries"] == 15);
  CHECK(document["imported"] == 5);
  CHECK(document["missing"] == 2);
  CHECK(document["damaged"] == 1);
  CHECK(document["malformed"] == 7);
  CHECK(document["orphans"] == 3);
  CHECK(document["missing_files"] == nlohmann::json::array({"aa/10.npz", "cc/nowhere.npz"}));
  CHECK(document["orphaned_files"] == nlohmann::json::array({"aa/0.npz.tmp", "aa/orphan.npz", "stray"}));
  CHECK(outcome.err.find("2 entries have no file") != std::string::npos);
  CHECK(outcome.err.find("1 entries are damaged") != std::string::npos);
  CHECK(outcome.err.find("7 entries are malformed") != std::string::npos);
  CHECK(outcome.err.find("aa/12.npz: it is no intact zip archive") != std::string::npos);
  CHECK(outcome.err.find("bb/13.npz: it has 2 ids") != std::string::npos);
  CHECK(outcome.err.find("aa/18.npz: it has 65 tokens, more than its sequence length 64") !=
        std::string::npos);
  const Outcome quiet = seed.import({"--quiet"});
  CHECK(quiet.code == cli::kExitOk);
  CHECK(quiet.err.empty());
  CHECK(quiet.out.find("malformed      7\n") != std::string::npos);
}

TEST_CASE("import-npz: entries that are large together are put a few at a time") {
  Seed seed;
  const std::string array = test::npy_bytes("{'descr': '|u1', 'fortran_order': False, 'shape': (1500000,), }",
                                            std::string(1'500'000, 1));
  const std::string archive = test::zip_bytes(
      {{.name = "input_ids.npy", .content = array}, {.name = "attention_mask.npy", .content = array}});
  for (int i = 0; i < 7; ++i) seed.add(i, archive);
  const auto document = seed.import({"--json"}).json();
  CHECK(document["imported"] == 7);
  CHECK(document["store"]["entry_count"] == 7);
  CHECK(seed.import({"--json"}).json()["already_there"] == 7);
}

TEST_CASE("import-npz: nothing outside of entries is read, whatever the manifest and the links say") {
  Seed seed;
  const std::string archive = test::npz_of({4, 2}, {1, 1});
  seed.fill(1);
  const std::string secret = seed.dir().write("secret/secret.npz", archive);
  seed.add(key(1), "..", "secret.npz", kThen, "");
  seed.add(key(2), "../../secret", "secret.npz", kThen, "");
  seed.add(key(3), "aa", "../../../secret/secret.npz", kThen, "");
  seed.add(key(4), "aa", secret, kThen, "");
  seed.add(key(5), secret.substr(0, secret.rfind('/')), "secret.npz", kThen, "");
  seed.add(key(6), ".", "secret.npz", kThen, "");
  seed.add(key(7), "", "secret.npz", kThen, "");
  seed.add(key(8), "aa", "..", kThen, "");
  seed.add(key(9), "aa", std::string("0.npz\0.npz", 10), kThen, "");
  seed.dir().link("cache/entries/aa/link.npz", secret);
  seed.add(key(10), "aa", "link.npz", kThen, "");
  seed.dir().link("cache/entries/linked", seed.dir() / "secret");
  seed.add(key(11), "linked", "secret.npz", kThen, "");
  seed.dir().make_directory("cache/entries/aa/directory.npz");
  seed.add(key(12), "aa", "directory.npz", kThen, "");
  REQUIRE(::mkfifo((seed.dir() / "cache/entries/aa/fifo.npz").c_str(), 0600) == 0);
  seed.add(key(13), "aa", "fifo.npz", kThen, "");
  const auto document = seed.import({"--json"}).json();
  CHECK(document["imported"] == 1);
  CHECK(document["malformed"] == 13);
  CHECK(document["missing"] == 0);
  CHECK(document["damaged"] == 0);

  std::filesystem::rename(seed.dir() / "cache/entries", seed.dir() / "moved");
  seed.dir().link("cache/entries", seed.dir() / "moved");
  CHECK(seed.import().code == cli::kExitDamaged);
}

TEST_CASE("import-npz: manifests that are missing, of another version, or none") {
  const test::TempDir dir;
  const auto import = [&] { return test::run({"import-npz", dir / "cache", dir / "store", "--json"}); };
  CHECK(import().code == cli::kExitNoStore);
  dir.make_directory("cache/entries");
  const Outcome missing = import();
  CHECK(missing.code == cli::kExitNoStore);
  CHECK(missing.json()["error"]["message"].get<std::string>().find("manifest.json") != std::string::npos);
  for (const char* text :
       {"", "{", "[]", "3", "null", "{}", R"({"entries": {}})", R"({"version": 2, "entries": {}})",
        R"({"version": "1", "entries": {}})", R"({"version": 1, "entries": []})",
        R"({"version": 1, "entries": {}} x)", "{\"version\": 1, \"x\": \"\xff\"}", R"({"version": NaN})",
        R"({"version": 1, "entries": {"s|t|1": {"last_access_ts": 1e400}}})"}) {
    CAPTURE(text);
    dir.write("cache/manifest.json", text);
    CHECK(import().code == cli::kExitDamaged);
  }
  // Deep, but not deeply recursed into.
  const std::string open(1 << 20, '[');
  const std::string nested = open + std::string(open.size(), ']');
  for (const std::string& text : {open, nested, "{\"version\": " + nested + '}'}) {
    dir.write("cache/manifest.json", text);
    CHECK(import().code == cli::kExitDamaged);
  }
  CHECK_FALSE(std::filesystem::exists(dir / "store"));
  dir.write("cache/manifest.json", R"({"version": 1})");
  CHECK(import().code == cli::kExitOk);
  std::filesystem::remove(dir / "cache/entries");
  CHECK(import().code == cli::kExitOk);
}

TEST_CASE("import-npz: what no manifest has is passed over, wherever it stands") {
  const std::string row =
      R"({"more": [{"entries": 1}], "shard": "aa", "last_access_ts": 1, "filename": "b"})";
  const npz::Manifest manifest = npz::parse_manifest(
      R"({"x": [{"entries": {"y": 1}}], "version": 1, "entries": {"s|t|1": )" + row +
          R"(, "s|t|2": [1], "s|t|3": 3, "s|t|4": {"shard": {"a": "aa"}, "filename": "b", "last_access_ts": 1}}})",
      "manifest.json");
  REQUIRE(manifest.rows.size() == 1);
  CHECK(manifest.rows[0].key == CacheKey("s", "t", 1));
  CHECK(manifest.knows("aa", "b"));
  CHECK(manifest.malformed.total == 3);
}

TEST_CASE("import-npz: of a key that the manifest has twice the last row counts, as in Python") {
  const npz::Manifest manifest = npz::parse_manifest(
      R"({"version": 1, "other": {"entries": {"x": 1}}, "entries": {
          "a|b|1": {"shard": "s", "filename": "first", "last_access_ts": 1, "size": 1},
          "c|b|1": {"shard": "s", "filename": "e", "last_access_ts": -5, "size": 1, "more": [{"deep": {}}]},
          "a|b|1": {"shard": "s", "filename": "last", "last_access_ts": 1e300, "size": 1}}})",
      "manifest.json");
  REQUIRE(manifest.rows.size() == 2);
  CHECK(manifest.malformed.total == 0);
  CHECK(manifest.rows[0].filename == "e");
  CHECK(manifest.rows[0].last_access_ns == 0);
  CHECK(manifest.rows[1].filename == "last");
  CHECK(manifest.knows("s", "last"));
  CHECK_FALSE(manifest.knows("s", "first"));
  CHECK_FALSE(manifest.knows("", ""));
}

TEST_CASE("import-npz: the cap holds, and the entries that were used last are kept") {
  Seed seed;
  const std::vector<std::int64_t> ones(2000, 1);
  for (int i = 0; i < 200; ++i) seed.add(i, test::npz_of(std::vector<std::int64_t>(2000, i), ones));
  const auto document = seed.import({"--max-bytes", "1M", "--json"}).json();
  CHECK(document["imported"].get<int>() + document["declined"].get<int>() == 200);
  CHECK(document["declined"] > 0);
  CHECK(document["store"]["file_bytes"] <= 1 << 20);
  const int kept = document["store"]["entry_count"];
  CHECK(kept > 50);
  int newest = 0;
  for (int i = 200 - kept; i < 200; ++i) newest += entry_of(seed.store(), key(i)) ? 1 : 0;
  CHECK(newest >= kept - kept / 10);
}

TEST_CASE("import-npz: into the directory of the cache itself, and into a store that is open") {
  Seed seed;
  seed.fill(20);
  CHECK(test::run({"import-npz", seed.path(), seed.path()}).code == cli::kExitOk);
  CHECK(test::run({"verify", seed.path()}).code == cli::kExitOk);
  auto cache = TokenizedCache::open(seed.store());
  cache.put(CacheKey::parse(key(5)), {});
  const Outcome outcome = seed.import({"--json"});
  CHECK(outcome.code == cli::kExitFinding);
  CHECK(outcome.json()["imported"] == 19);
  CHECK(cache.stats().entry_count == 20);
}

TEST_CASE("import-npz: a progress line on a terminal, erased at the end") {
  ::setenv("TERM", "xterm", 1);
  Seed seed;
  seed.fill(20);
  test::Terminal terminal;
  CHECK(terminal.run({"import-npz", seed.path(), seed.store()}) == cli::kExitOk);
  const std::string& output = terminal.output();
  const std::size_t line = output.find("\r\x1b[Kimporting [");
  CHECK(line != std::string::npos);
  CHECK(output.find("\r\x1b[Kentries", line) != std::string::npos);
}
