#include "cli/interrupt.h"

#include <doctest/doctest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <string>
#include <thread>

#include "support.h"

using namespace tokcask;
using test::CountingLoader;
using test::Outcome;
using test::TempDir;

namespace {

constexpr int kFiles = 4500;  // five batches

void write_corpus(const TempDir& dir) {
  dir.write("tokenizer.json", "version 1");
  for (int i = 0; i < kFiles; ++i) {
    dir.write("corpus/" + std::to_string(i % 10) + '/' + std::to_string(i), "file " + std::to_string(i));
  }
}

std::vector<std::string> command(const TempDir& dir) {
  return {"warm",      dir / "store", dir / "corpus", "--tokenizer", dir / "tokenizer.json",
          "--seq-len", "50",          "--jobs",       "2",           "--json"};
}

// Runs the command in a child process, whose every batch writes a byte to a pipe and takes a while.
class Child {
 public:
  Child(const TempDir& dir, std::function<void(int batch)> hook) {
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    child_ = ::fork();
    REQUIRE(child_ >= 0);
    if (child_ == 0) {
      ::close(ends[0]);
      CountingLoader loader;
      std::atomic<int> batch = 0;
      loader.on_batch([&] {
        if (::write(ends[1], "b", 1) != 1) ::_exit(99);
        hook(++batch);
      });
      const Outcome outcome = test::run(command(dir), loader.loader());
      ::_exit(outcome.code);
    }
    ::close(ends[1]);
    batches_ = ends[0];
  }
  ~Child() { ::close(batches_); }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  // Returns once the child has begun its next batch; false if it ended instead.
  bool wait_for_batch() const {
    char byte = 0;
    return ::read(batches_, &byte, 1) == 1;
  }
  void send(int signal) const { ::kill(child_, signal); }
  int wait() const {
    int status = 0;
    ::waitpid(child_, &status, 0);
    return status;
  }

 private:
  pid_t child_ = -1;
  int batches_ = -1;
};

}  // namespace

TEST_CASE("interrupt: warm stops after the batches at hand, keeps them, and goes on next time") {
  for (const int signal : {SIGINT, SIGTERM}) {
    const TempDir dir;
    write_corpus(dir);
    CountingLoader loader;
    std::atomic<int> batches = 0;
    loader.on_batch([&] {
      if (++batches == 2) ::raise(signal);
    });
    const Outcome outcome = test::run(command(dir), loader.loader());
    CHECK(outcome.code == cli::kExitInterrupted);
    // One more may have been begun when the second was.
    const int stored = outcome.json()["stored"];
    CHECK((stored == 2048 || stored == 3072));
    const std::string shown = stored == 2048 ? "2,048" : "3,072";
    CHECK(outcome.err.find("interrupted: " + shown +
                           " of 4,500 sections stored; run the same command to go on") != std::string::npos);
    CHECK(outcome.json()["interrupted"] == true);

    loader.on_batch({});
    const auto rest = test::run(command(dir), loader.loader()).json();
    CHECK(rest["hits"] == stored);
    CHECK(rest["misses"] == kFiles - stored);
    // Files whose entries were stored are not read again, those of half-done directories included.
    CHECK(rest["files_read"] == kFiles - stored);
    const auto done = test::run(command(dir), loader.loader()).json();
    CHECK(done["hits"] == kFiles);
    CHECK(done["files_read"] == 0);
  }
}

TEST_CASE("interrupt: the handlers found are put back") {
  struct sigaction before = {};
  ::sigaction(SIGINT, nullptr, &before);
  {
    const cli::InterruptGuard guard;
    CHECK_FALSE(cli::InterruptGuard::requested());
    ::raise(SIGTERM);
    CHECK(cli::InterruptGuard::requested());
  }
  struct sigaction after = {};
  ::sigaction(SIGINT, nullptr, &after);
  CHECK((after.sa_handler == before.sa_handler));
  const cli::InterruptGuard again;
  CHECK_FALSE(cli::InterruptGuard::requested());
}

TEST_CASE("interrupt: a second Ctrl-C ends the process at once") {
  const TempDir dir;
  write_corpus(dir);
  const Child child(dir, [](int) {
    ::raise(SIGINT);
    ::raise(SIGINT);
  });
  const int status = child.wait();
  CHECK(WIFSIGNALED(status));
  CHECK(WTERMSIG(status) == SIGINT);
}

TEST_CASE("interrupt: a kill at any time loses only what was not committed") {
  const std::uint64_t seed = test::test_seed();
  CAPTURE(seed);
  const TempDir dir;
  write_corpus(dir);
  int hits_before = 0;
  for (std::uint64_t round = 0; round < 3; ++round) {
    // Long enough for commits to happen between batches.
    const Child child(dir, [](int) { std::this_thread::sleep_for(std::chrono::milliseconds(700)); });
    for (std::uint64_t batches = 1 + round; batches > 0; --batches) static_cast<void>(child.wait_for_batch());
    std::this_thread::sleep_for(std::chrono::milliseconds((seed + round * 131) % 400));
    child.send(SIGKILL);
    static_cast<void>(child.wait());
    const Outcome verified = test::run({"verify", dir / "store", "--json"});
    INFO(verified.out << verified.err);
    CHECK(verified.code == cli::kExitOk);
    const int entries = verified.json()["records"].get<int>();
    CHECK(entries >= hits_before);
    hits_before = entries;
  }
  CountingLoader loader;
  const auto rest = test::run(command(dir), loader.loader()).json();
  CHECK(rest["hits"] == hits_before);
  CHECK(rest["misses"] == kFiles - hits_before);
  const auto done = test::run(command(dir), loader.loader()).json();
  CHECK(done["hits"] == kFiles);
  CHECK(done["files_read"] == 0);
  CHECK(test::run({"verify", dir / "store"}).code == cli::kExitOk);
}
