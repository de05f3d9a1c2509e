#include "warm/warm.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include <tokcask/cache.h>

#include "corpus/file.h"
#include "support.h"
#include "tokenize/bytes_tokenizer.h"

using namespace tokcask;
using test::CountingLoader;
using test::Outcome;
using test::TempDir;

namespace {

// A corpus, a store to be and a tokenizer file, beside each other.
struct Fixture {
  TempDir dir;
  CountingLoader loader;
  std::string tokenizer = dir.write("tokenizer.json", "version 1");

  std::string file(std::string_view name, std::string_view content) const {
    return dir.write("corpus/" + std::string(name), content);
  }
  [[nodiscard]] std::string store() const { return dir / "store"; }
  [[nodiscard]] std::string corpus() const { return dir / "corpus"; }

  // Fails the test unless the command does what it is asked.
  nlohmann::json warm(const std::vector<std::string>& more = {}, int code = cli::kExitOk) const {
    const Outcome outcome = try_warm(more);
    INFO(outcome.err);
    REQUIRE(outcome.code == code);
    nlohmann::json document = outcome.json();
    CHECK(document["hits"].get<int>() + document["misses"].get<int>() == document["sections"].get<int>());
    return document;
  }
  [[nodiscard]] Outcome try_warm(const std::vector<std::string>& more = {}) const {
    std::vector<std::string> args{"warm", store(), corpus(), "--json"};
    args.insert(args.end(), more.begin(), more.end());
    if (std::find(more.begin(), more.end(), "--tokenizer") == more.end()) {
      args.insert(args.end(), {"--tokenizer", tokenizer});
    }
    if (std::find(more.begin(), more.end(), "--seq-len") == more.end()) {
      args.insert(args.end(), {"--seq-len", "100"});
    }
    CountingLoader counting = loader;
    return test::run(args, counting.loader());
  }
};

void check_sound(const std::string& store) {
  const Outcome outcome = test::run({"verify", store, "--json"});
  INFO(outcome.out << outcome.err);
  CHECK(outcome.code == cli::kExitOk);
}

}  // namespace

TEST_CASE("warm: all new, then nothing to do, then exactly what changed") {
  const Fixture f;
  f.file("a.txt", "alpha");
  f.file("d/b.txt", "beta");
  f.file("d/c.txt", std::string(1000, 'c'));

  const auto cold = f.warm();
  CHECK(cold["files"] == 3);
  CHECK(cold["sections"] == 3);
  CHECK(cold["misses"] == 3);
  CHECK(cold["hits"] == 0);
  CHECK(cold["stored"] == 3);
  CHECK(cold["declined"] == 0);
  CHECK(cold["tokens"] == 5 + 4 + 100);
  CHECK(cold["files_read"] == 3);
  CHECK(cold["tokenizer_loaded"] == true);
  CHECK(cold["store"]["entry_count"] == 3);
  CHECK(cold["store"]["payload_bytes"] == 4 * (5 + 4 + 100));
  CHECK(cold["bytes_after"] == cold["store"]["total_bytes"]);
  for (const char* part : {"scan", "tokenize", "store", "total"})
    CHECK(cold["seconds"][part].get<double>() >= 0);

  const auto again = f.warm();
  CHECK(again["hits"] == 3);
  CHECK(again["misses"] == 0);
  CHECK(again["hit_rate"] == 1.0);
  CHECK(again["tokens"] == 0);
  CHECK(again["files_read"] == 0);
  CHECK(again["tokenizer_loaded"] == false);
  CHECK(again["tokenizer_sha"] == cold["tokenizer_sha"]);
  CHECK(f.loader.loads() == 1);
  CHECK(f.loader.texts() == 3);

  f.file("d/b.txt", "Beta");
  const auto edited = f.warm();
  CHECK(edited["hits"] == 2);
  CHECK(edited["misses"] == 1);
  CHECK(edited["files_read"] == 1);
  CHECK(f.loader.texts() == 4);
  CHECK(f.warm()["files_read"] == 0);
  check_sound(f.store());
}

TEST_CASE("warm: what it stores is what get prints") {
  const Fixture f;
  f.file("a", "hello");
  f.warm({"--tokenizer", "bytes", "--seq-len", "3"});
  const std::string key = section_id("hello", "file") + '|' + cli::bytes_tokenizer_sha256() + "|3";
  const Outcome outcome = test::run({"get", f.store(), key});
  CHECK(outcome.code == cli::kExitOk);
  CHECK(outcome.out == "104 101 108\n");
}

TEST_CASE("warm: files whose hashes have the same first 64 bits are two sections, each with its own tokens") {
  const Fixture f;
  const std::vector<std::string> texts{"1d857322d0f7f976", "1c2720a927f0cb3e"};
  for (const std::string& text : texts) f.file(text, text);
  CHECK(f.warm({"--tokenizer", "bytes"})["misses"] == 2);
  CHECK(f.warm({"--tokenizer", "bytes"})["files_read"] == 0);
  auto cache = TokenizedCache::open(f.store());
  for (const std::string& text : texts) {
    const auto hit = cache.get({section_id(text, "file"), cli::bytes_tokenizer_sha256(), 100});
    REQUIRE(hit);
    CHECK(std::ranges::equal(hit->input_ids(), text));
  }
}

TEST_CASE("warm: equal files are tokenized once, and the run's figures say the same") {
  const Fixture f;
  for (const char* name : {"a", "b", "d/c", "d/d"}) f.file(name, "same");
  f.file("e", "other");
  const auto cold = f.warm();
  CHECK(cold["misses"] == 2);
  CHECK(cold["hits"] == 3);
  CHECK(f.loader.texts() == 2);
  const auto run = test::run({"show", f.store(), "--json"}).json()["last_run"];
  CHECK(run["hits"] == 3);
  CHECK(run["misses"] == 2);
  CHECK(f.warm()["hits"] == 5);
  CHECK(test::run({"show", f.store(), "--json"}).json()["last_run"]["hits"] == 5);
}

TEST_CASE("warm: what cannot be a section is counted, named, remembered, and never fatal") {
  const Fixture f;
  f.file("text", "ok");
  f.file("empty", "");
  f.file("image", std::string("\x89PNG\0", 5));
  f.file("latin1", "caf\xE9");
  f.file("bad\xFFname", "text too");
  f.file(".hidden", "x");
  f.file(".gitignore", "skipped\n");
  f.file("skipped", "x");
  f.dir.link("corpus/loop", "..");
  f.dir.link("corpus/nowhere", "absent");
  f.dir.link("corpus/broken",
             "/proc/self/mem");  // a regular file whose first byte cannot be read, even by root
  REQUIRE(::mkfifo((f.dir / "corpus/fifo").c_str(), 0600) == 0);

  const std::vector<std::string> options{"--exclude", "store*", "--exclude", "tokenizer.json"};
  for (const int round : {1, 2}) {
    const Outcome outcome = f.try_warm(options);
    REQUIRE(outcome.code == cli::kExitOk);
    const auto document = outcome.json();
    CHECK(document["files"] == 6);
    CHECK(document["sections"] == 3);
    CHECK(document[round == 1 ? "misses" : "hits"] == 3);
    CHECK(document["files_read"] == (round == 1 ? 6 : 1));
    const auto& skipped = document["skipped"];
    CHECK(skipped["hidden"] == 2);
    CHECK(skipped["ignored"] == 1);
    CHECK(skipped["binary"] == 1);
    CHECK(skipped["not_utf8"] == 1);
    CHECK(skipped["unreadable"] == 2);
    CHECK(skipped["special"] == 1);
    CHECK(skipped["repeated_directories"] == 1);
    CHECK(outcome.err.find("latin1") != std::string::npos);
    CHECK(outcome.err.find("nowhere: No such file") != std::string::npos);
    CHECK(outcome.err.find("broken: Input/output error") != std::string::npos);
    CHECK(document["not_utf8_files"].size() == 1);
    CHECK(document["unreadable_files"].size() == 2);
  }
  CHECK(f.try_warm({"--exclude", "store*", "--quiet"}).err.empty());
}

TEST_CASE("warm: a file of rows is not one text") {
  Fixture f;
  std::string rows;
  for (int i = 0; i < 50; ++i) rows += "{\"text\": \"row\"}\n";
  const std::string jsonl = f.file("rows.jsonl", rows);
  f.file("text", "text");
  const auto document = f.warm();
  CHECK(document["files"] == 1);
  CHECK(document["sections"] == 1);
  CHECK(document["skipped"]["rows"] == 1);
  const Outcome refused =
      test::run({"warm", f.dir / "other", jsonl, "--tokenizer", "bytes", "--seq-len", "100", "--json"});
  CHECK(refused.code == cli::kExitUsage);
  CHECK(refused.err.find("pretokenize_rows") != std::string::npos);
  CHECK(f.warm({"--include", "*.jsonl"})["sections"] == 1);
  const Outcome shown = test::run(
      {"warm", f.store(), f.corpus(), "--tokenizer", f.tokenizer, "--seq-len", "100"}, f.loader.loader());
  CHECK(shown.out.find("1 of rows (JSONL, Parquet, Arrow)") != std::string::npos);
}

TEST_CASE("warm: a record that was found damaged is made again") {
  const Fixture f;
  for (int i = 0; i < 20; ++i) f.file(std::to_string(i), std::to_string(100 + i) + std::string(3000, 'x'));
  const std::vector<std::string> length{"--seq-len", "4000"};
  f.warm(length);
  const auto keys = TokenizedCache::open(f.store(), {.read_only = true}).keys();
  const auto damage = [&](const CacheKey& key) {
    // The bytes of the record that a view points to, found in the file.
    std::string id;
    {
      auto cache = TokenizedCache::open(f.store(), {.read_only = true});
      const auto view = cache.get(key);
      const auto ids = view->input_ids();
      id.assign(reinterpret_cast<const char*>(ids.data()), ids.size_bytes());
    }
    const std::string path = f.store() + "/data.mdb";
    std::ifstream in(path, std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(in)), {});
    std::fstream out(path, std::ios::binary | std::ios::in | std::ios::out);
    for (std::size_t at = bytes.find(id); at != std::string::npos; at = bytes.find(id, at + 1)) {
      out.seekp(static_cast<std::streamoff>(at + 40));
      out.put('!');
    }
  };
  damage(keys[3]);
  CHECK(f.warm(length)["hits"] == 20);  // nobody has found it
  SUBCASE("by verify") { CHECK(test::run({"verify", f.store()}).code == cli::kExitFinding); }
  SUBCASE("by a look-up") { CHECK_FALSE(TokenizedCache::open(f.store(), {.read_only = true}).get(keys[3])); }
  SUBCASE("by --rehash") {
    CHECK(f.warm({"--seq-len", "4000", "--rehash"})["stored"] == 1);
    CHECK(f.warm(length)["hits"] == 20);
    check_sound(f.store());
    return;
  }
  const auto again = f.warm(length);
  CHECK(again["misses"] == 1);
  CHECK(again["stored"] == 1);
  CHECK(again["files_read"] == 1);
  CHECK(f.warm(length)["hits"] == 20);
  CHECK(TokenizedCache::open(f.store(), {.read_only = true}).get(keys[3]));
  check_sound(f.store());
}

TEST_CASE("warm: --shrink is what lets a lower --max-bytes remove entries") {
  const Fixture f;
  for (int i = 0; i < 400; ++i) f.file(std::to_string(i), std::to_string(i) + std::string(4000, 'x'));
  f.warm({"--seq-len", "4000"});
  const Outcome refused = f.try_warm({"--seq-len", "4000", "--max-bytes", "1M"});
  CHECK(refused.code == cli::kExitUsage);
  CHECK(refused.err.find("--shrink") != std::string::npos);
  CHECK(f.warm({"--seq-len", "4000"})["hits"] == 400);
  CHECK(test::run({"merge", f.store(), f.store() + "2", "--max-bytes", "1M", "--shrink"}).code ==
        cli::kExitNoStore);
  const auto shrunk = f.warm({"--seq-len", "4000", "--max-bytes", "1M", "--shrink"});
  CHECK(shrunk["store"]["file_bytes"].get<int>() <= 1 << 20);
  CHECK(f.try_warm({"--seq-len", "4000", "--shrink"}).code == cli::kExitUsage);  // to what?
  check_sound(f.store());
}

TEST_CASE("warm: another tokenizer or length never gets what is there") {
  const Fixture f;
  f.file("a", "alpha");
  f.file("b", "beta");
  CHECK(f.warm()["misses"] == 2);
  CHECK(f.warm({"--seq-len", "101"})["misses"] == 2);
  CHECK(f.warm({"--tokenizer", "bytes"})["misses"] == 2);
  f.dir.write("tokenizer.json", "version 2");
  const auto changed = f.warm();
  CHECK(changed["misses"] == 2);
  CHECK(changed["tokenizer_loaded"] == true);
  f.dir.write("tokenizer.json", "version 1");
  const auto back = f.warm();
  CHECK(back["hits"] == 2);
  // The file had changed, so it had to be loaded to know that it is the first one again.
  CHECK(back["tokenizer_loaded"] == true);
  CHECK(f.warm()["tokenizer_loaded"] == false);
}

TEST_CASE(
    "warm: another length is served from what is there where the tokenizer is known to cut to a prefix") {
  const Fixture f;
  f.file("short", "0123456789");
  f.file("long", std::string(500, 'x'));
  const auto first = f.warm({"--tokenizer", "bytes", "--seq-len", "100"});
  CHECK(first["misses"] == 2);
  CHECK(first["miss_reasons"]["never stored"] == 2);
  // The short one is whole, the long one was cut.
  const auto shorter = f.warm({"--tokenizer", "bytes", "--seq-len", "20"});
  CHECK(shorter["hits"] == 2);
  CHECK(shorter["derived"] == 2);
  CHECK(shorter["stored"] == 0);
  const auto longer = f.warm({"--tokenizer", "bytes", "--seq-len", "200"});
  CHECK(longer["derived"] == 1);
  CHECK(longer["misses"] == 1);
  CHECK(longer["miss_reasons"]["other length"] == 1);
  const std::string shown =
      test::run({"get", f.store(),
                 section_id(std::string(500, 'x'), "file") + '|' + cli::bytes_tokenizer_sha256() + "|3"})
          .out;
  CHECK(shown == "120 120 120\n");
}

TEST_CASE("warm: a changed tokenizer is told of") {
  const Fixture f;
  f.file("a", "alpha");
  f.file("b", "beta");
  f.warm({"--tokenizer", "bytes"});
  const Outcome outcome = f.try_warm();
  CHECK(outcome.json()["miss_reasons"]["other tokenizer"] == 2);
  CHECK(outcome.err.find("of 2 misses, 2 are stored under tokenizer " +
                         cli::bytes_tokenizer_sha256().substr(0, 12) + "… (2 entries") != std::string::npos);
}

TEST_CASE("warm: a tokenizer's directory stands for the tokenizer.json in it") {
  const Fixture f;
  f.file("a", "alpha");
  CHECK(f.warm({"--tokenizer", f.dir.path()})["misses"] == 1);
  CHECK(f.warm()["tokenizer_loaded"] == false);
}

TEST_CASE("warm: a remembered tokenizer identity that proves wrong is corrected") {
  const Fixture f;
  f.file("a", "alpha");
  const std::string right = f.warm()["tokenizer_sha"];
  {
    TokenizedCache cache = TokenizedCache::open(f.store());
    struct stat status;
    REQUIRE(::stat(f.tokenizer.c_str(), &status) == 0);
    cache.remember_tokenizer_file(f.tokenizer, corpus::identity_of(status), std::string(64, '0'));
    cache.close();
  }
  const auto corrected = f.warm();
  CHECK(corrected["tokenizer_sha"] == right);
  CHECK(corrected["hits"] == 1);
  CHECK(corrected["misses"] == 0);
  CHECK(f.warm()["tokenizer_loaded"] == false);
}

TEST_CASE(
    "warm: the identity of a tokenizer is computed once per content, and again when memories of it differ") {
  const Fixture f;
  f.file("a", "alpha");
  const std::string right = f.warm()["tokenizer_sha"];
  CHECK(f.loader.identified() == 1);
  int texts = 0;
  const auto another_text = [&] {
    f.file("b", "beta " + std::to_string(++texts));
    return f.warm();
  };
  CHECK(another_text()["misses"] == 1);
  CHECK(f.loader.loads() == 2);
  CHECK(f.loader.identified() == 1);

  const auto origin_of = [&] {
    std::ostringstream content;
    content << std::ifstream(f.tokenizer, std::ios::binary).rdbuf();
    return "origin " + content.str();
  };
  {
    TokenizedCache cache = TokenizedCache::open(f.store());
    CHECK(cache.tokenizer_of_file(origin_of(), {}) == right);
    cache.remember_tokenizer_file(origin_of(), {}, std::string(64, '0'));
  }
  CHECK(another_text()["tokenizer_sha"] == right);
  CHECK(f.loader.identified() == 2);
  CHECK(another_text()["tokenizer_sha"] == right);
  CHECK(f.loader.identified() == 2);

  // Another file with the same content: nothing is remembered of its path.
  std::filesystem::copy_file(f.tokenizer, f.dir / "copy.json");
  f.file("b", "beta again");
  CHECK(f.warm({"--tokenizer", f.dir / "copy.json"})["tokenizer_sha"] == right);
  CHECK(f.loader.identified() == 3);
}

TEST_CASE("warm: --rehash reads everything and changes nothing") {
  const Fixture f;
  for (int i = 0; i < 10; ++i) f.file(std::to_string(i), "text " + std::to_string(i));
  f.warm();
  const auto rehashed = f.warm({"--rehash"});
  CHECK(rehashed["files_read"] == 10);
  CHECK(rehashed["hits"] == 10);
  CHECK(rehashed["tokenizer_loaded"] == false);
  CHECK(f.warm()["files_read"] == 0);
}

TEST_CASE("warm: entries that are gone are made again from files that did not change") {
  const Fixture f;
  f.file("a", "alpha");
  f.file("b", "beta");
  f.warm();
  REQUIRE(test::run({"clear", f.store(), "--force"}).code == cli::kExitOk);
  const auto refilled = f.warm();
  CHECK(refilled["misses"] == 2);
  CHECK(refilled["files_read"] == 2);
  CHECK(f.warm()["hits"] == 2);
}

TEST_CASE("warm: files that the options leave out stay remembered") {
  const Fixture f;
  f.file("a.py", "alpha");
  f.file("b.c", "beta");
  f.file("gone.c", "gamma");
  f.warm();
  std::filesystem::remove(f.dir / "corpus/gone.c");
  CHECK(f.warm({"--include", "*.py"})["sections"] == 1);
  CHECK(f.warm({"--exclude", "*.py"})["files_read"] == 0);
  CHECK(f.warm()["files_read"] == 0);
}

TEST_CASE("warm: removed, renamed and swapped files") {
  const Fixture f;
  f.file("a", "alpha");
  f.file("b", "beta");
  f.file("d/e/c", "gamma");
  f.warm();
  std::filesystem::rename(f.dir / "corpus/a", f.dir / "corpus/tmp");
  std::filesystem::rename(f.dir / "corpus/b", f.dir / "corpus/a");
  std::filesystem::rename(f.dir / "corpus/tmp", f.dir / "corpus/b");
  std::filesystem::remove_all(f.dir / "corpus/d/e");
  const auto moved = f.warm();
  CHECK(moved["sections"] == 2);
  CHECK(moved["hits"] == 2);
  CHECK(moved["tokenizer_loaded"] == false);
  std::filesystem::remove(f.dir / "corpus/a");
  f.dir.make_directory("corpus/a");
  f.file("a/b", "delta");
  CHECK(f.warm()["misses"] == 1);
}

TEST_CASE("warm: a same-size edit with the old mtime, right after a run, is never missed") {
  const Fixture f;
  const std::string path = f.file("racy", "text 000");
  f.warm();
  for (int round = 1; round <= 25; ++round) {
    struct stat status;
    REQUIRE(::stat(path.c_str(), &status) == 0);
    f.file("racy", "text " + std::to_string(100 + round));
    const struct timespec times[2] = {status.st_atim, status.st_mtim};
    REQUIRE(::utimensat(AT_FDCWD, path.c_str(), times, 0) == 0);
    const auto found = f.warm();
    CHECK(found["misses"] == 1);
    CHECK(found["files_read"] == 1);
  }
}

TEST_CASE("warm: the number of jobs makes no difference to what is stored") {
  std::set<std::string> payloads;
  for (const char* jobs : {"0", "1", "2", "7"}) {
    const Fixture f;
    for (int i = 0; i < 300; ++i)
      f.file(std::to_string(i % 7) + "/" + std::to_string(i), std::string(i, 'x'));
    const auto document = f.warm({"--jobs", jobs});
    CHECK(document["misses"] == 300);
    payloads.insert(document["store"].dump());
    CHECK(f.warm({"--jobs", jobs})["hits"] == 300);
  }
  CHECK(payloads.size() == 1);
}

TEST_CASE("warm: a large file, and a corpus of several batches") {
  const Fixture f;
  f.file("large", std::string(24 << 20, 'x'));
  for (int i = 0; i < 2500; ++i) {
    f.file(std::to_string(i % 50) + '/' + std::to_string(i), "file " + std::to_string(i));
  }
  const auto cold = f.warm({"--seq-len", "30000000"});
  CHECK(cold["misses"] == 2501);
  CHECK(cold["tokens"].get<std::int64_t>() > 24 << 20);
  const auto again = f.warm({"--seq-len", "30000000"});
  CHECK(again["hits"] == 2501);
  CHECK(again["files_read"] == 0);
  check_sound(f.store());
}

TEST_CASE("warm: a store inside its corpus is left alone") {
  const Fixture f;
  f.file("a", "alpha");
  const std::string store = f.dir / "corpus/store";
  for (const int round : {1, 2}) {
    const Outcome outcome = test::run(
        {"warm", store, f.corpus(), "--tokenizer", "bytes", "--seq-len", "10", "--hidden", "--json"});
    REQUIRE(outcome.code == cli::kExitOk);
    const auto document = outcome.json();
    CHECK(document["files"] == 1);
    CHECK(document["skipped"]["store"] == 1);
    CHECK(document["hits"] == round - 1);
  }
  check_sound(store);
}

TEST_CASE("warm: one file is a corpus too") {
  const Fixture f;
  f.file("a", "alpha");
  f.file("b", "beta");
  f.warm();
  const Outcome outcome = test::run(
      {"warm", f.store(), f.dir / "corpus/a", "--tokenizer", f.tokenizer, "--seq-len", "100", "--json"});
  CHECK(outcome.json()["hits"] == 1);
  CHECK(outcome.json()["files_read"] == 0);
  CHECK(f.warm()["files_read"] == 0);
}

TEST_CASE("warm: an empty corpus") {
  const Fixture f;
  f.dir.make_directory("corpus");
  const auto document = f.warm();
  CHECK(document["files"] == 0);
  CHECK(document["hit_rate"] == 0.0);
  CHECK(document["interrupted"] == false);
}

TEST_CASE("warm: a corpus larger than the cap keeps a subset that stays useful") {
  const Fixture f;
  for (int i = 0; i < 400; ++i) f.file(std::to_string(i), std::to_string(i) + std::string(4000, 'x'));
  const std::vector<std::string> options{"--max-bytes", "1M", "--seq-len", "4000"};
  const auto cold = f.warm(options);
  CHECK(cold["declined"].get<int>() > 0);
  CHECK(cold["declined"].get<int>() < 400);
  CHECK(cold["store"]["file_bytes"].get<int>() <= 1 << 20);
  const auto again = f.warm(options);
  CHECK(again["hits"].get<int>() == 400 - cold["declined"].get<int>());
  CHECK(again["store"]["file_bytes"].get<int>() <= 1 << 20);
  check_sound(f.store());
}

TEST_CASE("warm: a tokenizer that fails half-way leaves what was done before") {
  Fixture f;
  for (int i = 0; i < 1500; ++i) f.file(std::to_string(i), "file " + std::to_string(i));
  std::atomic<int> batches = 0;
  f.loader.on_batch([&] {
    if (++batches == 2) throw std::runtime_error("out of luck");
  });
  const Outcome failed = f.try_warm();
  CHECK(failed.code == cli::kExitIo);
  CHECK(failed.json()["error"]["exit_code"] == cli::kExitIo);
  CHECK(failed.err.find("out of luck") != std::string::npos);
  f.loader.on_batch({});
  // Either of two that are tokenized at once may be the second.
  const auto document = f.warm();
  CHECK((document["hits"] == 1024 || document["hits"] == 1500 - 1024));
  CHECK(document["misses"].get<int>() == 1500 - document["hits"].get<int>());
}

TEST_CASE("warm: bad input ends with a message, the right code, and no store harmed") {
  const Fixture f;
  f.file("a", "alpha");
  f.warm();
  const auto check = [&](const std::vector<std::string>& more, int code, std::string_view message) {
    const Outcome outcome = f.try_warm(more);
    CAPTURE(message);
    CHECK(outcome.code == code);
    CHECK(outcome.json()["error"]["exit_code"] == code);
    CHECK(outcome.err.find(message) != std::string::npos);
  };
  check({"--seq-len", "0"}, cli::kExitUsage, "--seq-len 0");
  check({"--seq-len", "-5"}, cli::kExitUsage, "--seq-len -5");
  check({"--seq-len", "2147483648"}, cli::kExitUsage, "--seq-len 2147483648");
  check({"--seq-len", "many"}, cli::kExitUsage, "many");
  check({"--tokenizer", f.dir / "absent.json"}, cli::kExitNoStore, "absent.json");
  check({"--tokenizer", f.dir.write("junk", "not a tokenizer")}, cli::kExitUsage, "junk is not a tokenizer");
  check({"--tokenizer", "/dev/null"}, cli::kExitUsage, "not a regular file");
  check({"--include", ""}, cli::kExitUsage, "glob");
  check({"--jobs", "-1"}, cli::kExitUsage, "--jobs");
  check({"--max-bytes", "lots"}, cli::kExitUsage, "lots");
  check({"--max-bytes", "1K"}, cli::kExitUsage, "");
  check({"--frobnicate"}, cli::kExitUsage, "--frobnicate");
  check_sound(f.store());
  CHECK(f.warm()["hits"] == 1);
}

TEST_CASE("warm: a corpus that is not there") {
  const Fixture f;
  const Outcome outcome = f.try_warm();
  CHECK(outcome.code == cli::kExitNoStore);
  CHECK(outcome.err.find(f.corpus()) != std::string::npos);
}

TEST_CASE("warm: a store path that cannot be one") {
  const Fixture f;
  f.file("a", "alpha");
  const auto warm_to = [&](const std::string& store) {
    return test::run({"warm", store, f.corpus(), "--tokenizer", "bytes", "--seq-len", "9"});
  };
  for (const std::string& path :
       {f.dir.write("plain", "a file"), f.dir / "plain/below", std::string("/proc/store")}) {
    CAPTURE(path);
    const Outcome outcome = warm_to(path);
    CHECK(outcome.code != cli::kExitOk);
    CHECK(outcome.code <= cli::kExitBusy);
    CHECK(outcome.err.find("error: ") != std::string::npos);
  }
  std::ifstream plain(f.dir / "plain");
  std::string content;
  std::getline(plain, content);
  CHECK(content == "a file");
}

TEST_CASE("warm: a damaged store is set aside and filled afresh") {
  for (const int kind : {0, 1, 2}) {
    CAPTURE(kind);
    const Fixture f;
    for (int i = 0; i < 50; ++i) f.file(std::to_string(i), "file " + std::to_string(i));
    f.warm();
    const std::string data = f.store() + "/data.mdb";
    REQUIRE(std::filesystem::exists(data));
    if (kind == 0) std::filesystem::resize_file(data, 0);
    if (kind == 1) std::filesystem::resize_file(data, 8192);
    if (kind == 2) f.dir.write("store/data.mdb", std::string(65536, 'g'));
    const Outcome outcome = f.try_warm();
    CHECK(outcome.code == cli::kExitOk);
    CHECK(outcome.json()["misses"] == 50);
    CHECK(outcome.err.find("warning: ") != std::string::npos);
    CHECK(f.warm()["hits"] == 50);
    std::size_t set_aside = 0;
    for (const auto& entry : std::filesystem::directory_iterator(f.store())) {
      if (entry.path().string().find("set-aside") != std::string::npos) ++set_aside;
    }
    CHECK(set_aside == 1);
  }
}

TEST_CASE("warm: the table for people") {
  const Fixture f;
  f.file("a", "alpha");
  f.file("b", std::string("\0", 1));
  const Outcome outcome =
      test::run({"warm", f.store(), f.corpus(), "--tokenizer", "bytes", "--seq-len", "9"});
  CHECK(outcome.code == cli::kExitOk);
  CHECK(outcome.out.starts_with("files     2 (2 read)\nskipped   1 binary\nsections  1\n"));
  CHECK(outcome.err.empty());
}
