// A run over its processes: forked, started otherwise, killed.
#include <unistd.h>

#include <csignal>
#include <memory>
#include <vector>

#include <tokcask/dataset.h>

#include "child.h"
#include "support.h"

namespace tokcask {

using namespace test;

namespace {

std::vector<RunFigures> runs_of(const Fixture& f) { return f.open({.observe = true}).runs(); }

void put(TokenizedCache& cache, std::uint64_t section) {
  cache.put(key(section), {.input_ids = ids(section, 100)});
}

}  // namespace

TEST_CASE("a forked child and a process that is told the run belong to it, and the figures add up") {
  Fixture f;
  auto cache = f.open();
  put(cache, 1);
  cache.flush();
  const std::uint64_t run_id = cache.run_id();
  CHECK(run_id == 1);
  Child forked([&](const Line&) {
    for (int i = 0; i < 10; ++i) {
      if (!cache.get(key(1))) return false;
    }
    put(cache, 2);
    cache.flush();
    const Stats stats = cache.stats();
    // A grandchild belongs to it too, and exits without a word.
    Child grandchild([&](const Line&) { return cache.get(key(1)) && cache.run_id() == run_id; });
    return grandchild.succeeded() && cache.run_id() == run_id && stats.run.hits == 10 && stats.run.puts == 1;
  });
  CHECK(forked.succeeded());
  Child told([&](const Line&) {
    auto own = TokenizedCache::open(f.root(), {.read_only = true, .run_id = run_id});
    const bool good = own.get(key(1)) && !own.get(key(9)) && own.run_id() == run_id;
    own.close();
    return good;
  });
  CHECK(told.succeeded());
  CHECK(cache.stats().run.hits == 0);
  const RunFigures run = cache.stats().last_run;
  CHECK(run.hits == 12);
  CHECK(run.misses == 1);
  CHECK(run.puts == 2);
  cache.close();
  REQUIRE(runs_of(f).size() == 1);
  CHECK(runs_of(f)[0].hits == 12);
  CHECK(runs_of(f)[0].state == RunState::kEnded);
}

TEST_CASE("a child whose parent has closed begins a run of its own") {
  Fixture f;
  auto cache = f.open();
  put(cache, 1);
  cache.flush();
  Child child([&](const Line& line) {
    line.hear();
    return cache.get(key(1)) && cache.run_id() == 2;
  });
  cache.close();
  child.line().tell(1);
  CHECK(child.succeeded());
}

TEST_CASE("a trainer that is killed: its run lives while a worker does, and was killed then") {
  Fixture f;
  {
    auto cache = f.open();
    put(cache, 1);
  }
  int gate[2];
  REQUIRE(pipe(gate) == 0);
  Child trainer([&](const Line& line) {
    auto cache = f.open({.read_only = true});
    if (!cache.get(key(1))) return false;
    const pid_t worker = fork();
    if (worker == 0) {
      const bool found = cache.get(key(1)).has_value();
      line.tell(found ? 1 : 0);
      char end = 0;
      close(gate[1]);
      _exit(read(gate[0], &end, 1) == 0 ? 0 : 1);
    }
    line.hear();
    return true;
  });
  close(gate[0]);
  REQUIRE(trainer.line().hear() == 1);
  trainer.signal(SIGKILL);
  CHECK_FALSE(trainer.succeeded());
  REQUIRE(runs_of(f).size() == 2);
  CHECK(runs_of(f)[0].state == RunState::kAlive);
  CHECK(runs_of(f)[0].hits == 2);
  close(gate[1]);  // the worker ends
  RunFigures run = runs_of(f)[0];
  for (int i = 0; i < 200 && run.state == RunState::kAlive; ++i) {
    usleep(10'000);
    run = runs_of(f)[0];
  }
  CHECK(run.state == RunState::kKilled);
  CHECK(run.hits == 2);
  CHECK(run.ended_ns == run.last_active_ns);
}

TEST_CASE("a writer that is killed is recognised by the next opener, and saved as killed") {
  Fixture f;
  Child writer([&](const Line& line) {
    auto cache = f.open();
    put(cache, 1);
    cache.flush();
    if (!cache.get(key(1))) return false;  // only the table knows
    line.tell(1);
    line.hear();
    return false;
  });
  REQUIRE(writer.line().hear() == 1);
  CHECK(runs_of(f).at(0).state == RunState::kAlive);
  writer.signal(SIGKILL);
  CHECK_FALSE(writer.succeeded());
  for (int round = 0; round < 2; ++round) {
    const RunFigures run = runs_of(f).at(0);
    CHECK(run.state == RunState::kKilled);
    CHECK(run.hits == 1);
    CHECK(run.puts == 1);
    CHECK(run.ended_ns == run.last_active_ns);
    f.open().close();
    std::filesystem::remove(f.root() / "access.shm");
  }
}

TEST_CASE("hits of a data set outlive its process, unsaved and saved") {
  Fixture f;
  const std::vector<CacheKey> keys{key(1)};
  {
    auto cache = f.open();
    put(cache, 1);
  }
  Child trainer([&](const Line&) {
    auto dataset = TokenDataset::open(f.root(), keys);
    Child worker([&](const Line&) {
      for (int i = 0; i < 20; ++i) {
        if (!dataset.get(0)) return false;
      }
      return dataset.run_id() == 2;
    });
    const bool good = worker.succeeded() && dataset.get(0);
    // As a process that is given its pickle.
    Child spawned([&](const Line&) {
      auto own = TokenDataset::open_packed(f.root(), dataset.packed_keys(), {.run_id = 2});
      return own.get(0) && own.run_id() == 2;
    });
    const bool joined = spawned.succeeded();
    dataset.close();
    return good && joined;
  });
  CHECK(trainer.succeeded());
  for (int round = 0; round < 2; ++round) {
    const RunFigures run = runs_of(f).at(0);
    CHECK(run.run_id == 2);
    CHECK(run.hits == 22);
    CHECK(run.state == RunState::kEnded);
    f.open().close();
    std::filesystem::remove(f.root() / "access.shm");
  }
}

TEST_CASE("a run with a living worker protects what it used; a dead one does not") {
  constexpr std::uint64_t kMaxBytes = std::uint64_t{2} << 20;
  const auto fill = [](TokenizedCache& cache, std::uint64_t from, std::uint64_t count) {
    for (std::uint64_t i = from; i < from + count; ++i) cache.put(key(i), {.input_ids = ids(i, 2000)});
    cache.flush();
  };
  Fixture f;
  {
    auto cache = f.open({.max_bytes = kMaxBytes});
    fill(cache, 0, 200);
  }
  auto reader = std::make_unique<TokenizedCache>(f.open({.read_only = true}));
  for (std::uint64_t i = 0; i < 200; ++i) static_cast<void>(reader->get(key(i)));
  Child worker([&](const Line& line) {
    line.tell(reader->get(key(1)) ? 1 : 0);
    line.hear();
    return true;
  });
  REQUIRE(worker.line().hear() == 1);
  reader->close();
  {
    auto cache = f.open({.max_bytes = kMaxBytes});
    fill(cache, 1000, 50);
    CHECK(cache.stats().run.declined > 0);
    CHECK(cache.stats().run.evicted == 0);
  }
  worker.signal(SIGKILL);
  CHECK_FALSE(worker.succeeded());
  auto cache = f.open({.max_bytes = kMaxBytes});
  fill(cache, 1000, 50);
  CHECK(cache.stats().run.declined == 0);
  CHECK(cache.stats().run.evicted > 0);
}

TEST_CASE("two processes that were given one id, because the table was lost, are told apart") {
  Fixture f;
  Child first([&](const Line& line) {
    auto cache = f.open({.batch_age = std::chrono::hours(1)});
    put(cache, 1);
    line.tell(cache.run_id());
    line.hear();
    cache.close();
    return true;
  });
  REQUIRE(first.line().hear() == 1);
  std::filesystem::remove(f.root() / "access.shm");
  {
    auto cache = f.open();
    CHECK(cache.run_id() == 1);
    put(cache, 2);
    put(cache, 3);
  }
  first.line().tell(1);
  CHECK(first.succeeded());
  const std::vector<RunFigures> runs = runs_of(f);
  REQUIRE(runs.size() == 2);
  CHECK(runs[0].run_id == 2);
  CHECK(runs[0].puts == 1);
  CHECK(runs[1].run_id == 1);
  CHECK(runs[1].puts == 2);
  CHECK(f.open().run_id() == 3);
}

TEST_CASE("members killed at any moment leave a table that counts and runs on") {
  const std::uint64_t seed = test_seed();
  INFO("TOKCASK_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  Fixture f;
  auto cache = f.open({.read_only = false});
  put(cache, 1);
  cache.flush();
  for (int round = 0; round < 20; ++round) {
    Child child([&](const Line& line) {
      line.tell(1);
      for (;;) {
        auto member = TokenizedCache::open(f.root(), {.read_only = true, .run_id = 1});
        auto own = TokenizedCache::open(f.root(), {.read_only = true});
        if (!member.get(key(1)) || !own.get(key(1))) return false;
      }
    });
    REQUIRE(child.line().hear() == 1);
    usleep(static_cast<useconds_t>(random() % 10'000));
    child.signal(SIGKILL);
    CHECK_FALSE(child.succeeded());
    CHECK(cache.run_id() == 1);
    std::size_t living = 0;
    for (const RunFigures& run : cache.runs()) living += run.state == RunState::kAlive ? 1 : 0;
    CHECK(living == 1);
  }
}

}  // namespace tokcask
