// Runs as the cache tells them: what belongs to one, what of it is saved when, and what becomes of it when
// the table is lost.
#include <algorithm>
#include <fstream>
#include <memory>
#include <vector>

#include <tokcask/dataset.h>

#include "support.h"

namespace tokcask {

using namespace test;

namespace {

std::filesystem::path table_of(const Fixture& f) { return f.root() / "access.shm"; }

// As a program finds it that only looks.
std::vector<RunFigures> runs_of(const Fixture& f) { return f.open({.observe = true}).runs(); }

void put(TokenizedCache& cache, std::uint64_t section, int tokenizer = 0, std::int64_t length = kAnyLength) {
  cache.put(key(section, tokenizer, length), {.input_ids = ids(section, 10)});
}

}  // namespace

TEST_CASE("a run is told whole: who, when, what, with which tokenizer") {
  Fixture f;
  {
    auto cache = f.open();
    CHECK(cache.runs().empty());
    CHECK(cache.run_id() == 1);
    put(cache, 1);
    CHECK(cache.get(key(1)));
    CHECK_FALSE(cache.get(key(2)));
    cache.add_tokenize_seconds(1.5);
    const RunFigures now = cache.stats().last_run;  // before anything is saved
    CHECK(now.run_id == 1);
    CHECK(now.state == RunState::kAlive);
    CHECK(now.hits == 1);
    CHECK(now.ended_ns == 0);
    CHECK(now.last_active_ns >= now.started_ns);
  }
  const std::vector<RunFigures> runs = runs_of(f);
  REQUIRE(runs.size() == 1);
  const RunFigures& run = runs[0];
  CHECK(run.run_id == 1);
  CHECK(run.state == RunState::kEnded);
  CHECK(run.ended_ns >= run.last_active_ns);
  CHECK(run.hits == 1);
  CHECK(run.misses == 1);
  CHECK(run.puts == 1);
  CHECK(run.derived == 0);
  CHECK(run.tokenize_seconds == doctest::Approx(1.5));
  CHECK(run.tokenizer_sha == sha());
  CHECK(run.sequence_len == kAnyLength);
  CHECK_FALSE(run.several_tokenizers);
  CHECK(run.bytes_after == f.open({.observe = true}).stats().total_bytes);
}

TEST_CASE("a run that only puts, and commits once, at its close, is recorded") {
  Fixture f;
  {
    auto cache = f.open({.batch_age = std::chrono::hours(1)});
    put(cache, 1);
    put(cache, 2);
  }
  for (const RunFigures& run : {runs_of(f).at(0), f.open({.observe = true}).stats().last_run}) {
    CHECK(run.run_id == 1);
    CHECK(run.puts == 2);
    CHECK(run.state == RunState::kEnded);
    CHECK(run.ended_ns > 0);
    CHECK(run.tokenizer_sha == sha());
  }
  // In the store, not in the table alone.
  std::filesystem::remove(table_of(f));
  CHECK(runs_of(f).at(0).puts == 2);
}

TEST_CASE("two runs at once are two, and newest first") {
  Fixture f;
  auto first = f.open();
  auto second = f.open();
  CHECK(first.run_id() == 1);
  CHECK(second.run_id() == 2);
  put(first, 1);
  put(second, 2);
  put(second, 3);
  first.flush();
  const std::vector<RunFigures> runs = runs_of(f);
  REQUIRE(runs.size() == 2);
  CHECK(runs[0].run_id == 2);
  CHECK(runs[0].puts == 2);
  CHECK(runs[1].puts == 1);
  second.close();
  CHECK(runs_of(f)[0].state == RunState::kEnded);
  CHECK(runs_of(f)[1].state == RunState::kAlive);
  CHECK(first.stats().last_run.run_id == 2);
  CHECK(first.stats().run.puts == 1);
}

TEST_CASE("a handle joins the run it is told, if that is alive") {
  Fixture f;
  auto founder = f.open();
  put(founder, 1);
  auto member = f.open({.run_id = founder.run_id()});
  CHECK(member.run_id() == 1);
  put(member, 2);
  CHECK(member.get(key(2)));
  founder.flush();
  member.flush();
  CHECK(founder.stats().run.puts == 1);
  CHECK(member.stats().run.puts == 1);
  CHECK(member.stats().run.hits == 1);
  CHECK(founder.stats().last_run.puts == 2);
  CHECK(founder.stats().last_run.hits == 1);
  founder.close();
  CHECK(runs_of(f).at(0).state == RunState::kAlive);
  member.close();
  REQUIRE(runs_of(f).size() == 1);
  CHECK(runs_of(f)[0].state == RunState::kEnded);
  CHECK(runs_of(f)[0].puts == 2);
  // It is over now, and 7 never was.
  CHECK(f.open({.run_id = 1}).run_id() == 2);
  CHECK(f.open({.run_id = 7}).run_id() == 2);
}

TEST_CASE("a data set belongs to the run of its process, and begins one where there is none") {
  Fixture f;
  std::vector<CacheKey> keys{key(1), key(2, 0, 512), key(3, 1)};
  {
    auto cache = f.open();
    for (const CacheKey& k : keys) cache.put(k, {.input_ids = ids(1, 10)});
    cache.flush();
    auto dataset = TokenDataset::open(f.root(), std::span(keys).first(1));
    CHECK(dataset.run_id() == cache.run_id());
    CHECK(dataset.get(0));
    CHECK(cache.stats().run.hits == 0);
    CHECK(cache.stats().last_run.hits == 1);
    dataset.close();
    CHECK(dataset.run_id() == 0);
  }
  {
    auto dataset = TokenDataset::open(f.root(), std::span(keys).subspan(1));
    CHECK(dataset.run_id() == 2);
    for (std::size_t i = 0; i < 6; ++i) CHECK(dataset.get(i % 2));
  }
  // It wrote nothing, but is told; and a writer saves it when it has nothing else to write.
  for (int round = 0; round < 2; ++round) {
    const std::vector<RunFigures> runs = runs_of(f);
    REQUIRE(runs.size() == 2);
    CHECK(runs[0].run_id == 2);
    CHECK(runs[0].hits == 6);
    CHECK(runs[0].state == RunState::kEnded);
    CHECK(runs[0].tokenizer_sha == sha());
    CHECK(runs[0].sequence_len == 512);
    CHECK(runs[0].several_tokenizers);
    CHECK(f.open({.observe = true}).stats().last_run.hits == 6);
    f.open().close();
    std::filesystem::remove(table_of(f));
  }
}

TEST_CASE("who observes leaves no trace") {
  constexpr std::uint64_t kMaxBytes = std::uint64_t{1} << 20;
  Fixture f;
  {
    auto cache = f.open({.max_bytes = kMaxBytes});
    for (std::uint64_t i = 0; i < 60; ++i) cache.put(key(i), {.input_ids = ids(i, 2000)});
  }
  const auto observer = std::make_unique<TokenizedCache>(f.open({.observe = true}));
  CHECK(observer->run_id() == 0);
  const RunFigures before = observer->stats().last_run;
  // The oldest last: if that were recorded, it would be the newest.
  for (std::uint64_t i = 60; i-- > 0;) CHECK(observer->get(key(i)));
  CHECK(observer->stats().run.hits == 60);
  CHECK(observer->stats().last_run.hits == before.hits);
  CHECK(observer->runs().size() == 1);
  error_of(Errc::kReadOnly, [&] { put(*observer, 1); });
  // It protects nothing, and the first is still the least recently used.
  auto cache = f.open({.max_bytes = kMaxBytes});
  CHECK(cache.run_id() == 2);
  CHECK(cache.get(key(59)));
  for (std::uint64_t i = 100; i < 140; ++i) cache.put(key(i), {.input_ids = ids(i, 2000)});
  cache.flush();
  CHECK(cache.stats().run.evicted > 0);
  CHECK(cache.stats().run.declined == 0);
  CHECK_FALSE(cache.get(key(0)));
  CHECK(cache.get(key(59)));
}

TEST_CASE("the table lost: saved runs are there, ids go on, and a living run saves itself") {
  Fixture f;
  {
    put(*std::make_unique<TokenizedCache>(f.open()), 1);
  }
  auto living = f.open();
  put(living, 2);
  std::filesystem::remove(table_of(f));
  living.close();
  CHECK(f.open().run_id() == 3);
  const std::vector<RunFigures> runs = runs_of(f);
  REQUIRE(runs.size() == 2);
  CHECK(runs[0].run_id == 2);
  CHECK(runs[0].puts == 1);
  CHECK(runs[0].state == RunState::kEnded);
}

TEST_CASE("the newest 256 runs are kept") {
  Fixture f;
  constexpr std::uint64_t kRuns = 260;
  for (std::uint64_t i = 1; i <= kRuns; ++i) {
    auto cache = f.open({.read_only = i > 1});
    if (i == 1) {
      put(cache, 1);
    } else {
      CHECK(cache.get(key(1)));
    }
    if (i % 50 == 0) f.open().close();  // a writer
  }
  f.open().close();
  const std::vector<RunFigures> runs = runs_of(f);
  REQUIRE(runs.size() == 256);
  for (std::size_t i = 0; i < runs.size(); ++i) CHECK(runs[i].run_id == kRuns - i);
  std::filesystem::remove(table_of(f));
  CHECK(runs_of(f).size() == 256);
}

TEST_CASE("a table that is damaged, or private, costs figures and nothing else") {
  Fixture f;
  {
    auto cache = f.open();
    put(cache, 1);
  }
  SUBCASE("damaged under the rows") {
    std::fstream file(table_of(f), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(56);
    for (int i = 0; i < 48 * 512; ++i) {
      const std::uint64_t word = static_cast<std::uint64_t>(i) * 0x9e3779b97f4a7c15;
      file.write(reinterpret_cast<const char*>(&word), sizeof word);
    }
  }
  SUBCASE("of an older version") {
    std::fstream file(table_of(f), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(8);
    const std::uint32_t version = 1;
    file.write(reinterpret_cast<const char*>(&version), sizeof version);
  }
  SUBCASE("a directory stands in its place") {
    std::filesystem::remove(table_of(f));
    std::filesystem::create_directory(table_of(f));
    std::ofstream(table_of(f) / "file") << 'x';
  }
  {
    auto cache = f.open();
    put(cache, 2);
    CHECK(cache.get(key(1)));
    cache.flush();
    const std::vector<RunFigures> runs = cache.runs();
    REQUIRE_FALSE(runs.empty());
    CHECK(cache.stats().run.puts == 1);
  }
  auto cache = f.open();
  CHECK(cache.stats().entry_count == 2);
  CHECK(cache.stats().last_run.run_id <= 2 + (std::uint64_t{1} << 16));
}

TEST_CASE("more handles than there are rows for: they work, and say so once each") {
  Fixture f;
  auto founder = f.open();
  put(founder, 1);
  founder.flush();
  std::vector<TokenizedCache> members;
  for (int i = 1; i < 1024; ++i) members.push_back(f.open({.read_only = true, .run_id = 1}));
  CHECK(members.back().run_id() == 1);
  CHECK(f.messages.all().empty());
  auto extra = f.open();
  CHECK(f.messages.count("not protected from eviction") > 0);
  CHECK(extra.run_id() == 0);
  CHECK(extra.get(key(1)));
  CHECK(extra.stats().run.hits == 1);
  put(extra, 2);
  extra.close();
  members.clear();
  CHECK(f.open().run_id() == 2);
}

}  // namespace tokcask
