// Writers in several processes, and one that is stopped while it holds the write lock.
#include <array>
#include <atomic>
#include <csignal>
#include <fstream>
#include <memory>
#include <thread>

#include "child.h"
#include "files/write_lock.h"
#include "os/clock.h"
#include "support.h"

namespace tokcask {

using namespace test;

namespace {

// Takes the write lock, tells so, and keeps it until it hears something.
std::function<bool(const Line&)> hold_write_lock(const Fixture& f) {
  return [&](const Line& line) {
    WriteLock lock(f.root() / "write.lock");
    const WriteLock::Hold hold = lock.acquire(std::chrono::seconds(5));
    line.tell(1);
    line.hear();
    return true;
  };
}

// Calls `act`, which is to be interrupted while it waits, and returns how long that took after it was asked.
std::chrono::milliseconds interrupted(const std::function<void()>& act) {
  static std::atomic<bool> asked;
  asked = false;
  std::chrono::steady_clock::time_point when;
  std::thread asker([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    when = std::chrono::steady_clock::now();
    asked = true;
  });
  {
    const InterruptScope scope([](void*) { return asked.load(); });
    error_of(Errc::kInterrupted, act);
  }
  const auto now = std::chrono::steady_clock::now();
  asker.join();
  return std::chrono::duration_cast<std::chrono::milliseconds>(now - when);
}

}  // namespace

TEST_CASE("calls that wait for the write lock or a commit end when they are asked to, and nothing is lost") {
  Fixture f;
  auto cache = f.open({.batch_bytes = 1 << 16, .batch_age = std::chrono::milliseconds(20)});
  cache.put(key(1), {.input_ids = ids(1, 100)});
  cache.flush();
  Child child(hold_write_lock(f));
  REQUIRE(child.line().hear() == 1);
  cache.put(key(2), {.input_ids = ids(2, 100)});
  // The commit thread waits for the lock by now, and who flushes waits for the commit thread.
  constexpr std::chrono::milliseconds kSoon{1000};  // 0.1 s on a machine that is not busy
  CHECK(interrupted([&] { cache.flush(); }) < kSoon);
  CHECK(interrupted([&] { cache.compact(); }) < kSoon);
  CHECK(interrupted([&] { cache.prune(std::chrono::hours(1)); }) < kSoon);
  CHECK(interrupted([&] { cache.clear(); }) < kSoon);
  CHECK(interrupted([&] { cache.save_manifest("tokenizer"); }) < kSoon);
  std::uint64_t put = 3;
  CHECK(interrupted([&] {
          for (;; ++put) cache.put(key(put), {.input_ids = ids(put, 1000)});
        }) < kSoon);
  for (std::uint64_t i = 1; i < put; ++i) REQUIRE(cache.get(key(i)));
  child.line().tell(1);
  CHECK(child.succeeded());
  cache.flush();
  CHECK(cache.stats().entry_count == put - 1);
  CHECK(cache.stats().tokenizer_sha == "tokenizer");
  auto reader = f.open({.read_only = true});
  for (std::uint64_t i = 1; i < put; ++i) REQUIRE(reader.get(key(i)));
}

TEST_CASE("several processes create and fill one store at once") {
  Fixture f;
  std::vector<std::unique_ptr<Child>> children;
  for (std::uint64_t number = 0; number < 6; ++number) {
    children.push_back(std::make_unique<Child>([&, number](const Line&) {
      auto cache = TokenizedCache::open(f.root());
      for (std::uint64_t i = 0; i < 100; ++i) {
        cache.put(key(1000 * number + i), {.input_ids = ids(i, 100 + i)});
        cache.put(key(999'999), {.input_ids = ids(number, 50)});
        if (i % 20 == 0) cache.flush();
      }
      cache.close();
      return true;
    }));
  }
  for (const auto& child : children) CHECK(child->succeeded());
  auto cache = f.open();
  CHECK(cache.stats().entry_count == 601);
  for (std::uint64_t number = 0; number < 6; ++number) {
    for (std::uint64_t i = 0; i < 100; ++i) {
      CHECK(copy_of(cache.get(key(1000 * number + i))) == ids(i, 100 + i));
    }
  }
  CHECK(f.messages.all().empty());
}

TEST_CASE("a store that is opened while it grows and is rewritten is never taken for damaged") {
  Fixture f;
  auto cache = f.open();
  cache.put(key(1), {.input_ids = ids(1, 10)});
  cache.flush();
  std::vector<std::unique_ptr<Child>> openers;
  for (int number = 0; number < 3; ++number) {
    openers.push_back(std::make_unique<Child>([&](const Line&) {
      for (int i = 0; i < 400; ++i) {
        auto own = TokenizedCache::open(f.root(), {.read_only = i % 2 == 0});
        if (!own.get(key(1))) return false;
      }
      return true;
    }));
  }
  for (std::uint64_t round = 0; round < 300; ++round) {
    for (std::uint64_t i = 0; i < 5; ++i) cache.put(key(10 + i), {.input_ids = ids(i, 1000 + round % 900)});
    if (round % 5 == 0) cache.put(key(1000 + round), {.input_ids = ids(round, 3000)});
    cache.flush();
  }
  for (const auto& opener : openers) CHECK(opener->succeeded());
  CHECK(f.messages.all().empty());
}

TEST_CASE("a stopped writer: others are told who it is, readers read, and nothing is lost") {
  Fixture f;
  {
    auto cache = f.open();
    cache.put(key(1), {.input_ids = ids(1, 10)});
  }
  Child holder(hold_write_lock(f));
  REQUIRE(holder.line().hear() == 1);
  holder.signal(SIGSTOP);
  auto cache = f.open({.lock_timeout = std::chrono::milliseconds(150)});
  CHECK(cache.get(key(1)));
  cache.put(key(2), {.input_ids = ids(2, 10)});
  const std::string message = error_of(Errc::kBusy, [&] { cache.flush(); });
  CHECK(message.find("busy, held by process " + std::to_string(holder.pid()) + " since 2") !=
        std::string::npos);
  CHECK(message.find(" UTC (0 s); waited 0.1 s") != std::string::npos);
  CHECK(cache.get(key(2)));
  error_of(Errc::kBusy, [&] { cache.prune(std::chrono::hours(1)); });
  holder.signal(SIGKILL);
  CHECK_FALSE(holder.succeeded());
  cache.flush();
  CHECK(cache.stats().entry_count == 2);
}

TEST_CASE("who held the write lock before, or what is no time, is not told as its holder's") {
  Fixture f;
  f.open().close();
  Child holder(hold_write_lock(f));
  REQUIRE(holder.line().hear() == 1);
  const auto told = [&](std::uint64_t pid, std::uint64_t since_ns, std::uint64_t released = 0) {
    std::fstream file(f.root() / "write.lock", std::ios::in | std::ios::out | std::ios::binary);
    const std::array<std::uint64_t, 3> content = {pid, since_ns, released};
    file.write(reinterpret_cast<const char*>(content.data()), sizeof content);
    CHECK(file.flush().good());
    WriteLock lock(f.root() / "write.lock");
    return error_of(Errc::kBusy, [&] { const auto none = lock.acquire(std::chrono::milliseconds(1)); });
  };
  const auto pid = static_cast<std::uint64_t>(holder.pid());
  const std::string named = "held by process " + std::to_string(pid);
  const std::uint64_t now = os::now_ns();
  CHECK(told(pid, now - 12'500'000'000).find(named + " since 2") != std::string::npos);
  CHECK(told(pid, now - 12'500'000'000).find(" UTC (12 s);") != std::string::npos);
  const std::string unknown = "held by another process;";
  CHECK(told(pid, now, 1).find(unknown) != std::string::npos);
  CHECK(told(std::uint64_t{1} << 40, now).find(unknown) != std::string::npos);
  Child dead([](const Line&) { return true; });
  const auto dead_pid = static_cast<std::uint64_t>(dead.pid());
  CHECK(dead.succeeded());
  CHECK(told(dead_pid, now).find(unknown) != std::string::npos);
  CHECK(told(pid, now + 3'600'000'000'000).find(named + ';') != std::string::npos);
  CHECK(told(pid, 0).find(named + ';') != std::string::npos);
  holder.line().tell(1);
  CHECK(holder.succeeded());
}

TEST_CASE("a full batch that cannot be committed is an error for the next put, which stores nothing") {
  Fixture f;
  auto cache = f.open({.batch_bytes = 10'000,
                       .batch_age = std::chrono::milliseconds(1),
                       .lock_timeout = std::chrono::milliseconds(50)});
  Child holder(hold_write_lock(f));
  REQUIRE(holder.line().hear() == 1);
  std::uint64_t stored = 0;
  error_of(Errc::kBusy, [&] {
    for (; stored < 100; ++stored) cache.put(key(stored), {.input_ids = ids(stored, 500)});
  });
  CHECK(stored < 10);
  // The commit thread says so, which may be waiting for the lock still.
  for (int i = 0; i < 400 && f.messages.count("tried again") == 0; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  CHECK(f.messages.count("tried again") >= 1);
  holder.line().tell(1);
  CHECK(holder.succeeded());
  cache.flush();
  CHECK(cache.stats().entry_count == stored);
  for (std::uint64_t i = 0; i < stored; ++i) CHECK(cache.get(key(i)));
}

TEST_CASE(
    "two write locks of one process on one file: threads exclude each other, and closing one frees nothing") {
  Fixture f;
  f.open().close();
  const auto file = f.root() / "write.lock";
  const auto busy_elsewhere = [&] {
    Child other([&](const Line&) {
      try {
        WriteLock lock(file);
        const WriteLock::Hold hold = lock.acquire(std::chrono::milliseconds(1));
      } catch (const Error& error) {
        return error.code() == Errc::kBusy;
      }
      return false;
    });
    return other.succeeded();
  };
  WriteLock lock(file);
  {
    const WriteLock::Hold hold = lock.acquire(std::chrono::milliseconds(1));
    {
      WriteLock another(file);
      std::thread thread([&] {
        const std::string message =
            error_of(Errc::kBusy, [&] { const auto none = another.acquire(std::chrono::milliseconds(10)); });
        CHECK(message.find("another thread of this process") != std::string::npos);
      });
      thread.join();
    }
    CHECK(busy_elsewhere());
  }
  CHECK_FALSE(busy_elsewhere());
}

}  // namespace tokcask
