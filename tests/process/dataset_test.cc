// A data set over forks, kills and other processes: one resolved table for all, and right on every side.
#include <tokcask/dataset.h>

#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <memory>
#include <numeric>
#include <thread>

#include "child.h"
#include "support.h"

namespace tokcask {

using namespace test;

namespace {

std::size_t length_of(std::uint64_t section) { return section % 2 == 0 ? 100 : 1500; }

std::vector<CacheKey> fill(TokenizedCache& cache, std::uint64_t count) {
  std::vector<CacheKey> keys;
  for (std::uint64_t i = 0; i < count; ++i) {
    keys.push_back(key(i));
    cache.put(keys.back(), {.input_ids = ids(i, length_of(i))});
  }
  cache.flush();
  return keys;
}

bool all_right(TokenDataset& dataset) {
  std::vector<std::size_t> indices(dataset.size());
  std::iota(indices.begin(), indices.end(), std::size_t{0});
  const auto views = dataset.get_many(indices);
  for (std::size_t i = 0; i < views.size(); ++i) {
    if (!views[i] || copy_of(views[i]->input_ids()) != ids(i, length_of(i))) return false;
  }
  return true;
}

}  // namespace

TEST_CASE("a data set that was used before a fork is right in the child, also after the parent has ended") {
  Fixture f;
  std::array<int, 2> done{};
  REQUIRE(pipe(done.data()) == 0);
  Child parent([&](const Line&) {
    auto cache = f.open();
    auto dataset = TokenDataset::open(f.root(), fill(cache, 200));
    if (!all_right(dataset)) return false;
    if (fork() != 0) return true;  // exits with all of it open
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    bool good = true;
    for (int round = 0; good && round < 20; ++round) {
      good = all_right(dataset);
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    const char answer = good ? 'y' : 'n';
    _exit(write(done[1], &answer, 1) == 1 ? 0 : 1);
  });
  CHECK(parent.succeeded());
  close(done[1]);
  // Another process rewrites the whole store meanwhile, more than once, with the same tokens.
  Child writer([&](const Line&) {
    auto cache = f.open();
    for (int round = 0; round < 6; ++round) fill(cache, 200);
    return true;
  });
  CHECK(writer.succeeded());
  char answer = 0;
  REQUIRE(read(done[0], &answer, 1) == 1);
  CHECK(answer == 'y');
  close(done[0]);
}

TEST_CASE("a child of a data set never used, closed, or used by other threads at the fork") {
  Fixture f;
  auto cache = f.open();
  auto dataset = TokenDataset::open(f.root(), fill(cache, 100));
  {
    Child child([&](const Line&) { return all_right(dataset); });
    CHECK(child.succeeded());
  }
#ifndef __SANITIZE_ADDRESS__  // see fork_test.cc
  // Often enough that some forks meet a lock of the parent's that is held.
  std::atomic<bool> stop{false};
  std::vector<std::thread> busy;
  for (std::size_t number = 0; number < 3; ++number) {
    busy.emplace_back([&, number] {
      while (!stop) static_cast<void>(dataset.get(number));
    });
  }
  for (int i = 0; i < 100; ++i) {
    Child child([&](const Line&) {
      alarm(20);
      return all_right(dataset);
    });
    REQUIRE(child.succeeded());
  }
  stop = true;
  for (std::thread& thread : busy) thread.join();
#endif
  dataset.close();
  // What a test checks in a child is lost; what the child returns is not.
  Child child([&](const Line&) {
    for (int twice = 0; twice < 2; ++twice) {
      try {
        static_cast<void>(dataset.get(0));
        return false;
      } catch (const Error& error) {
        if (error.code() != Errc::kClosed) return false;
      }
    }
    return true;
  });
  CHECK(child.succeeded());
}

TEST_CASE("sixteen children share one table, are killed at random, and leave that alone behind") {
  Fixture f;
  auto cache = f.open({.max_bytes = std::uint64_t{8} << 20});
  auto dataset = std::make_unique<TokenDataset>(TokenDataset::open(f.root(), fill(cache, 500)));
  const std::uint64_t seed = test_seed();
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  for (int round = 0; round < 3; ++round) {
    std::vector<std::unique_ptr<Child>> children;
    for (int number = 0; number < 16; ++number) {
      children.push_back(std::make_unique<Child>([&](const Line& line) {
        for (int i = 0; i < 10; ++i) {
          if (!all_right(*dataset)) return false;
          if (i == 0) line.tell(1);
        }
        return true;
      }));
    }
    for (const auto& child : children) {
      if (random() % 2 == 0) continue;
      static_cast<void>(child->line().hear());
      child->signal(SIGKILL);
    }
    for (std::uint64_t i = 0; i < 500; ++i) cache.put(key(i), {.input_ids = ids(i, length_of(i))});
    cache.flush();
    std::size_t right = 0;
    for (const auto& child : children) right += child->succeeded() ? 1 : 0;
    CHECK(right > 0);
  }
  CHECK(all_right(*dataset));
  dataset.reset();
  std::vector<std::string> tables;
  for (const auto& entry : std::filesystem::directory_iterator(f.root())) {
    const std::string name = entry.path().filename();
    if (name.starts_with("keys-")) tables.push_back(name);
  }
  REQUIRE(tables.size() == 1);  // whole, for the next run
  CHECK(tables.front().ends_with(".shm"));
}

TEST_CASE("a child that fails on a wrong item would be seen") {
  Fixture f;
  auto cache = f.open();
  auto dataset = TokenDataset::open(f.root(), fill(cache, 10));
  cache.put(key(3), {.input_ids = ids(77, 1500)});
  cache.flush();
  Child child([&](const Line&) { return all_right(dataset); });
  CHECK_FALSE(child.succeeded());
}

TEST_CASE("a process that did not inherit a data set opens it from its packed keys, with the same table") {
  Fixture f;
  auto cache = f.open();
  auto dataset = TokenDataset::open(f.root(), fill(cache, 300));
  const std::vector<std::byte> packed = dataset.packed_keys();
  // Nothing of the parent's objects is used in there.
  Child child([&](const Line&) {
    auto own = TokenDataset::open_packed(f.root(), packed, {.missing = MissingKeys::kKeep});
    return all_right(own);
  });
  CHECK(child.succeeded());
  CHECK(all_right(dataset));
}

TEST_CASE("the slots of killed readers are taken back, so more readers than there are slots may come") {
  Fixture f;
  auto cache = f.open();
  fill(cache, 10);
  // LMDB's reader table has 4,096 slots. Each process here takes 64 and is killed with them.
  for (int round = 0; round < 80; ++round) {
    Child child([&](const Line& line) {
      std::vector<std::optional<TokenView>> views;
      auto writer = f.open();
      for (std::uint64_t i = 0; i < 64; ++i) {
        views.push_back(writer.get(key(i % 10)));
        writer.put(key(1000), {.input_ids = ids(i, 10)});  // so that the next view is of another snapshot
        writer.flush();
      }
      line.tell(1);
      pause();
      return true;
    });
    REQUIRE(child.line().hear() == 1);
    child.signal(SIGKILL);
    CHECK_FALSE(child.succeeded());
  }
  const auto view = cache.get(key(3));
  REQUIRE(view);
  CHECK(copy_of(view->input_ids()) == ids(3, length_of(3)));
}

TEST_CASE("two processes with one process id, in two pid namespaces, get an error that says so") {
  Fixture f;
  auto cache = f.open();
  fill(cache, 10);
  // Each child of a process that unshared its pid namespace is process 1 of a new one, as in a container.
  const auto as_process_1 = [&](const std::function<bool()>& act) {
    if (unshare(CLONE_NEWPID) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWPID) != 0) return false;
    const pid_t first = fork();
    if (first == 0) _exit(getpid() == 1 && act() ? 0 : 1);
    int status = 0;
    return waitpid(first, &status, 0) == first && WIFEXITED(status) && WEXITSTATUS(status) == 0;
  };
  Child one([&](const Line& line) {
    return as_process_1([&] {
      auto own = TokenizedCache::open(f.root(), {.read_only = true});
      const auto view = own.get(key(3));
      line.tell(1);
      line.hear();  // the other has tried
      return view && copy_of(view->input_ids()) == ids(3, length_of(3));
    });
  });
  REQUIRE(one.line().hear() == 1);
  Child two([&](const Line&) {
    return as_process_1([&] {
      const std::string message =
          error_of(Errc::kBusy, [&] { TokenizedCache::open(f.root(), {.read_only = true}); });
      return message.find("two containers") != std::string::npos;
    });
  });
  CHECK(two.succeeded());
  one.line().tell(1);
  CHECK(one.succeeded());
}

}  // namespace tokcask
