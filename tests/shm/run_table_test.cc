#include "shm/run_table.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "directory.h"
#include "shm/access_table.h"

namespace tokcask::shm {

namespace {

constexpr Uuid kUuid = {1, 2, 3};
constexpr std::uint64_t kNow = 1'000'000;

// A table in a file, as every process of a store opens it for itself.
struct Shared {
  Directory directory;
  std::unique_ptr<AccessTable> table = open();
  [[nodiscard]] std::unique_ptr<AccessTable> open() const { return AccessTable::open(directory.path, kUuid); }
  RunTable& runs() const { return table->runs(); }
};

void did(const RunTable::Member& member, std::uint64_t hits, std::uint64_t at) {
  member.counters->hits.fetch_add(hits);
  member.counters->last_active.store(at);
}

RunFigures figures_of(const RunTable& runs, const RunRef& run) {
  const auto entry = runs.entry(run);
  REQUIRE(entry);
  return entry->figures;
}

}  // namespace

TEST_CASE("a run is its members: what they count adds up, also when they have left") {
  const Shared s;
  const auto founder = s.runs().begin(500);
  REQUIRE(founder);
  CHECK(figures_of(s.runs(), founder->run).run_id == 1);
  did(*founder, 10, 600);
  CHECK(elsewhere([&] {
    const auto table = s.open();
    const auto worker = table->runs().join(1);
    if (!worker) return false;
    did(*worker, 5, 700);
    worker->counters->misses.fetch_add(2);
    table->runs().leave(*worker, kNow);
    return true;
  }));
  // One that exits without a word.
  CHECK(elsewhere([&] {
    const auto table = s.open();
    const auto worker = table->runs().join(founder->run);
    if (worker) did(*worker, 100, 800);
    return worker.has_value();
  }));
  for (int sweep = 0; sweep < 2; ++sweep) {
    const RunFigures figures = figures_of(s.runs(), founder->run);
    CHECK(figures.hits == 115);
    CHECK(figures.misses == 2);
    CHECK(figures.last_active_ns == 800);
    CHECK(figures.state == RunState::kAlive);
    s.runs().sweep();
  }
  s.runs().leave(*founder, kNow);
  const RunFigures figures = figures_of(s.runs(), founder->run);
  CHECK(figures.hits == 115);
  CHECK(figures.state == RunState::kEnded);
  CHECK(figures.ended_ns == kNow);
  CHECK_FALSE(s.runs().join(1));
  CHECK_FALSE(s.runs().join(founder->run));
}

TEST_CASE("a run protects while it has a member that does") {
  const Shared s;
  const auto server = s.runs().begin(500);
  REQUIRE(server);
  s.runs().protect_nothing(*server);
  CHECK_FALSE(s.runs().oldest());
  CHECK(s.runs().begin(700));
  CHECK(s.runs().oldest_start() == 700);
  const auto guard = s.runs().join(server->run);
  REQUIRE(guard);
  CHECK(s.runs().oldest_start() == 500);
  s.runs().leave(*guard, 800);
  CHECK(s.runs().oldest_start() == 700);
  s.runs().leave(*server, 800);
  // Its row is another's then.
  CHECK(s.runs().begin(600));
  CHECK(s.runs().oldest_start() == 600);
}

TEST_CASE("the oldest living run counts; a dead process's does not") {
  const Shared s;
  CHECK_FALSE(s.runs().oldest_start());
  const auto first = s.runs().begin(500);
  CHECK(s.runs().oldest_start() == 500);
  CHECK(elsewhere([&] { return s.open()->runs().begin(100).has_value(); }));
  CHECK(s.runs().oldest_start() == 500);
  const auto second = s.runs().begin(400);
  CHECK(s.runs().oldest_start() == 400);
  // Its last commit is protected too.
  s.runs().end_if_last(*second, kNow);
  CHECK(s.runs().oldest_start() == 400);
  s.runs().leave(*second, kNow);
  CHECK(s.runs().oldest_start() == 500);
  s.runs().leave(*first, kNow);
  CHECK_FALSE(s.runs().oldest_start());
}

TEST_CASE("who ends a run, and whether it was killed") {
  const Shared s;
  SUBCASE("the founder is killed: at the last activity") {
    CHECK(elsewhere([&] {
      const auto table = s.open();
      const auto member = table->runs().begin(500);
      did(*member, 1, 777);
      return true;
    }));
    s.runs().sweep();
    const auto entries = s.runs().entries();
    REQUIRE(entries.size() == 1);
    CHECK(entries[0].figures.state == RunState::kKilled);
    CHECK(entries[0].figures.ended_ns == 777);
  }
  SUBCASE("the founder is killed, a worker goes on and closes") {
    std::optional<RunTable::Member> worker;
    CHECK(elsewhere([&] {
      const auto table = s.open();
      const auto founder = table->runs().begin(500);
      did(*founder, 1, 777);
      // The parent joins while this process is alive.
      return true;
    }));
    worker = s.runs().join(RunRef{0, 500});
    REQUIRE(worker);
    s.runs().sweep();
    CHECK(figures_of(s.runs(), worker->run).state == RunState::kAlive);
    CHECK(s.runs().oldest_start() == 500);
    s.runs().leave(*worker, kNow);
    CHECK(figures_of(s.runs(), worker->run).state == RunState::kKilled);
    CHECK(figures_of(s.runs(), worker->run).ended_ns == kNow);
  }
  SUBCASE("the founder closes, a worker exits without closing") {
    const auto founder = s.runs().begin(500);
    did(*founder, 1, 600);
    CHECK(elsewhere([&] {
      const auto table = s.open();
      const auto worker = table->runs().join(founder->run);
      did(*worker, 1, 900);
      // Not swept yet when the founder leaves.
      return true;
    }));
    s.runs().leave(*founder, 800);
    s.runs().sweep();
    const RunFigures figures = figures_of(s.runs(), founder->run);
    CHECK(figures.state == RunState::kEnded);
    CHECK(figures.ended_ns == 900);
    CHECK(figures.hits == 2);
  }
  SUBCASE("the founder's process closes one of two handles, and dies") {
    CHECK(elsewhere([&] {
      const auto table = s.open();
      const auto founder = table->runs().begin(500);
      const auto second = table->runs().join_own();
      did(*second, 1, 600);
      table->runs().leave(*founder, kNow);
      return second.has_value() && second->run == founder->run;
    }));
    s.runs().sweep();
    REQUIRE(s.runs().entries().size() == 1);
    CHECK(s.runs().entries()[0].figures.state == RunState::kKilled);
  }
}

TEST_CASE("a run that did nothing is forgotten, and its id is given to the next") {
  const Shared s;
  for (int i = 0; i < 3; ++i) {
    const auto idle = s.runs().begin(500);
    CHECK(figures_of(s.runs(), idle->run).run_id == 1);
    s.runs().leave(*idle, kNow);
    CHECK(s.runs().entries().empty());
    CHECK(elsewhere([&] { return s.open()->runs().begin(100).has_value(); }));
  }
  // Not when there is a later one.
  const auto idle = s.runs().begin(500);
  const auto later = s.runs().begin(501);
  s.runs().leave(*idle, kNow);
  CHECK(figures_of(s.runs(), s.runs().begin(502)->run).run_id == 3);
  CHECK(figures_of(s.runs(), later->run).run_id == 2);
}

TEST_CASE("ids follow those of the store; a last id out of all proportion is damage") {
  const Shared s;
  s.runs().raise_last_run(41);
  const auto run = s.runs().begin(500);
  CHECK(figures_of(s.runs(), run->run).run_id == 42);
  s.runs().raise_last_run(10);
  CHECK(figures_of(s.runs(), s.runs().begin(501)->run).run_id == 43);
  s.runs().raise_last_run(10'000'000);
  s.runs().raise_last_run(50);
  CHECK(figures_of(s.runs(), s.runs().begin(502)->run).run_id == 51);
}

TEST_CASE("a row is free when its run is saved; when none is, the run that ended first is forgotten") {
  const Shared s;
  std::vector<RunTable::Member> members;
  for (std::uint64_t i = 0; i < kMaxRuns; ++i) {
    const auto member = s.runs().begin(i + 1);
    REQUIRE(member);
    did(*member, 1, kNow);
    members.push_back(*member);
  }
  CHECK_FALSE(s.runs().begin(1000));
  s.runs().leave(members[7], 100);
  s.runs().leave(members[3], 50);
  CHECK(s.runs().begin(1000));
  CHECK_FALSE(s.runs().entry(members[3].run));
  REQUIRE(s.runs().entry(members[7].run));

  const auto before = s.runs().entry(members[9].run);
  CHECK(before->unsaved());
  s.runs().mark_saved(members[9].run, before->activity, before->figures.run_id, 77);
  CHECK_FALSE(s.runs().entry(members[9].run)->unsaved());
  CHECK(s.runs().entry(members[9].run)->figures.bytes_after == 77);
  did(members[9], 1, kNow);
  CHECK(s.runs().entry(members[9].run)->unsaved());
  s.runs().end_if_last(members[9], kNow);
  const auto after = s.runs().entry(members[9].run);
  s.runs().mark_saved(members[9].run, after->activity, after->figures.run_id, 78);
  REQUIRE(s.runs().entry(members[9].run));  // it has not left yet
  s.runs().leave(members[9], kNow);
  CHECK_FALSE(s.runs().entry(members[9].run));
}

TEST_CASE("there are rows for 1,024 members, and those of the dead are used again") {
  const Shared s;
  const auto founder = s.runs().begin(500);
  CHECK(elsewhere([&] {
    const auto table = s.open();
    for (std::size_t i = 1; i < kMaxMembers; ++i) {
      if (!table->runs().join(founder->run)) return false;
    }
    return !table->runs().join(founder->run) && !table->runs().begin(1000);
  }));
  CHECK(s.runs().begin(2000));
  CHECK(s.runs().oldest_start() == 500);
}

TEST_CASE("a row whose owner died is freed, and so is one with an id that cannot be") {
  const Shared s;
  const auto member = s.runs().begin(500);
  did(*member, 1, 600);
  // As the head of this file's layout says: member rows begin at 4,096, run rows 131,072 later.
  const auto write_word = [&](std::streamoff at, std::uint64_t word) {
    std::fstream file(s.directory.path / "access.shm", std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(at);
    file.write(reinterpret_cast<const char*>(&word), sizeof word);
  };
  constexpr std::uint64_t kNobody = 0x3ffffff0;
  for (std::streamoff row = 1; row < static_cast<std::streamoff>(kMaxMembers); ++row) {
    write_word(4096 + row * 128, kNobody);
  }
  for (std::streamoff row = 1; row < static_cast<std::streamoff>(kMaxRuns); ++row) {
    write_word(4096 + 131'072 + row * 256, std::uint64_t{1} << 63 | kNobody);
  }
  CHECK(s.runs().begin(501));
  CHECK(figures_of(s.runs(), member->run).hits == 1);
}

TEST_CASE("a process that is killed leaves its run at once, although a child that it forked lives on") {
  const Shared s;
  int started[2];
  int done[2];
  REQUIRE(pipe(started) == 0);
  REQUIRE(pipe(done) == 0);
  char byte = 0;
  const pid_t parent = fork();
  if (parent == 0) {
    const auto table = s.open();
    const auto member = table->runs().begin(500);
    did(*member, 1, 600);
    if (fork() == 0) {
      close(done[1]);
      if (write(started[1], &byte, 1) != 1 || read(done[0], &byte, 1) != 0) _exit(1);
      _exit(0);
    }
    if (read(started[0], &byte, 1) == 1) raise(SIGKILL);
    _exit(1);
  }
  int status = 0;
  REQUIRE(waitpid(parent, &status, 0) == parent);
  CHECK(WIFSIGNALED(status));
  CHECK_FALSE(s.runs().oldest_start());
  REQUIRE(s.runs().entries().size() == 1);
  CHECK(s.runs().entries()[0].figures.state == RunState::kKilled);
  CHECK(s.runs().entries()[0].figures.hits == 1);
  for (const int fd : {started[0], started[1], done[0], done[1]}) close(fd);
}

TEST_CASE("tokenizer and length are those told first; others are flagged") {
  const Shared s;
  const auto run = s.runs().begin(500);
  CHECK(figures_of(s.runs(), run->run).tokenizer_sha.empty());
  const std::string sha(64, 'a');
  CHECK(s.runs().identify(run->run, sha, 2048));
  CHECK(s.runs().identify(run->run, sha, 2048));
  RunFigures figures = figures_of(s.runs(), run->run);
  CHECK(figures.tokenizer_sha == sha);
  CHECK(figures.sequence_len == 2048);
  CHECK_FALSE(figures.several_tokenizers);
  SUBCASE("another length") { CHECK(s.runs().identify(run->run, sha, 1024)); }
  SUBCASE("another tokenizer") { CHECK(s.runs().identify(run->run, sha.substr(1) + 'b', 2048)); }
  figures = figures_of(s.runs(), run->run);
  CHECK(figures.tokenizer_sha == sha);
  CHECK(figures.sequence_len == 2048);
  CHECK(figures.several_tokenizers);
}

TEST_CASE("a table of random bytes never crashes, and works again when the dead are gone") {
  const char* const given = std::getenv("TOKCASK_TEST_SEED");
  const std::uint64_t seed = given != nullptr ? std::stoull(given) : std::random_device{}();
  INFO("TOKCASK_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  for (int round = 0; round < 20; ++round) {
    const Shared s;
    {
      std::fstream file(s.directory.path / "access.shm", std::ios::in | std::ios::out | std::ios::binary);
      for (int i = 0; i < 4000; ++i) {
        const std::uint64_t word = i % 2 == 0 ? random() : random() % 2000;
        file.seekp(4096 + static_cast<std::streamoff>(random() % (RunTable::kBytes / 8) * 8));
        file.write(reinterpret_cast<const char*>(&word), sizeof word);
      }
    }
    static_cast<void>(s.runs().oldest_start());
    for (const auto& entry : s.runs().entries()) {
      CHECK(entry.figures.tokenizer_sha.size() <= 64);
      s.runs().mark_saved(entry.ref, entry.activity, entry.figures.run_id, 0);
    }
    static_cast<void>(s.runs().join(random() % 2000));
    if (const auto member = s.runs().begin(500)) {
      did(*member, 1, 600);
      s.runs().identify(member->run, "sha", 1);
      s.runs().leave(*member, kNow);
    }
  }
}

TEST_CASE("threads and processes begin, join and leave at once, and nothing is left or lost") {
  const Shared s;
  const auto founder = s.runs().begin(1);
  constexpr std::uint64_t kRounds = 300;
  const auto work = [&](RunTable& runs, std::uint64_t number) {
    for (std::uint64_t i = 0; i < kRounds; ++i) {
      const auto joined = runs.join(founder->run);
      const auto begun = runs.begin(10 + number * kRounds + i);
      if (!joined || !begun) return false;
      did(*joined, 1, i);
      runs.sweep();
      runs.leave(*begun, kNow);
      runs.leave(*joined, kNow);
    }
    return true;
  };
  std::vector<pid_t> children;
  for (std::uint64_t number = 0; number < 2; ++number) {
    children.push_back(fork());
    if (children.back() == 0) {
      const auto table = s.open();
      _exit(work(table->runs(), number) ? 0 : 1);
    }
  }
  std::thread thread([&] { CHECK(work(s.runs(), 5)); });
  CHECK(work(s.runs(), 6));
  thread.join();
  for (const pid_t child : children) {
    int status = 0;
    waitpid(child, &status, 0);
    CHECK(status == 0);
  }
  s.runs().sweep();
  CHECK(s.runs().entries().size() == 1);
  CHECK(figures_of(s.runs(), founder->run).hits == 4 * kRounds);
}

}  // namespace tokcask::shm
