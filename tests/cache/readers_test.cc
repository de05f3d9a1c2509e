// Snapshots for the threads of a process: none waits for another one, and none is kept longer than it is
// used.
#include <unistd.h>

#include <atomic>
#include <thread>
#include <vector>

#include "support.h"

namespace tokcask {

using namespace test;

namespace fs = std::filesystem;

TEST_CASE("who is told a message may call the store, also while another thread closes it") {
  for (int round = 0; round < 20; ++round) {
    Fixture f;
    f.expect_damage();
    {
      auto cache = f.open();
      for (std::uint64_t i = 0; i < 4; ++i) cache.put(key(i), {.input_ids = ids(i, 2000)});
    }
    for (std::uint64_t i = 0; i < 3; ++i)
      change_record(f, key(i), [](std::vector<std::byte>& value) { value[60] ^= std::byte{1}; });
    std::atomic<std::uint64_t> told{0};
    TokenizedCache* cache = nullptr;
    std::atomic<std::uint64_t> wrong{0};
    // Nothing but what is to be there, or that the cache is closed.
    const auto look_up = [&](std::uint64_t section) {
      try {
        const auto found = cache->get(key(section));
        if (found.has_value() != (section == 3)) ++wrong;
      } catch (const Error& error) {
        if (error.code() != Errc::kClosed) ++wrong;
      }
    };
    auto opened = TokenizedCache::open(f.root(), {.on_message = [&](Severity, std::string_view) {
                                         look_up(3);
                                         ++told;
                                       }});
    cache = &opened;
    std::thread reader([&] {
      for (std::uint64_t i = 0; i < 3; ++i) look_up(i);
    });
    if (round % 2 == 0) reader.join();
    cache->close();
    if (reader.joinable()) reader.join();
    if (round % 2 == 0) CHECK(told >= 3);
    CHECK(wrong == 0);
  }
}

TEST_CASE("more threads than there are places read, write and hold views at once") {
  Fixture f;
  auto cache = f.open();
  for (std::uint64_t i = 0; i < 200; ++i) cache.put(key(i), {.input_ids = ids(i, i * 13 % 900)});
  cache.flush();
  std::atomic<std::uint64_t> wrong{0};
  std::vector<std::thread> threads;
  for (std::uint64_t number = 0; number < 100; ++number) {
    threads.emplace_back([&, number] {
      std::vector<std::pair<std::uint64_t, TokenView>> held;
      for (std::uint64_t i = 0; i < 60; ++i) {
        const std::uint64_t section = (number * 31 + i) % 200;
        auto found = cache.get(key(section));
        if (!found || copy_of(found) != ids(section, section * 13 % 900)) ++wrong;
        if (found && i % 7 == 0) held.emplace_back(section, *std::move(found));
        if (cache.get(key(10'000 + i))) ++wrong;
        if (i % 20 == 0) {
          cache.put(key(5000 + number), {.input_ids = ids(number, 10)});
          cache.flush();
        }
      }
      for (const auto& [section, view] : held) {
        if (copy_of(view.input_ids()) != ids(section, section * 13 % 900)) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
}

// As many snapshots as LMDB has reader slots, on a file system that is fast to sync.
TEST_CASE("views of thousands of snapshots that were let go of keep nobody out") {
  const fs::path root = "/dev/shm/tokcask-readers-" + std::to_string(getpid());
  struct Remove {
    const fs::path& directory;
    ~Remove() { fs::remove_all(directory); }
  } const remove{root};
  Messages messages;
  auto cache = TokenizedCache::open(root, {.on_message = messages.sink()});
  std::vector<TokenView> held;
  bool full = false;
  for (std::uint64_t i = 0; i < 5000 && !full; ++i) {
    cache.put(key(i), {.input_ids = ids(i, 3)});
    try {
      cache.flush();
    } catch (const Error& error) {
      CHECK(error.code() == Errc::kBusy);
      full = true;
    }
    if (auto view = cache.get(key(i))) held.push_back(*std::move(view));
  }
  CHECK(full);
  CHECK(held.size() > 4000);
  held.clear();
  cache.flush();
  CHECK(cache.get(key(7)));
  // As many as there are slots, but for those that this process keeps.
  for (std::uint64_t i = 0; i < 3900; ++i) {
    cache.put(key(100'000 + i), {.input_ids = ids(i, 3)});
    cache.flush();
    if (auto view = cache.get(key(100'000 + i))) held.push_back(*std::move(view));
  }
  CHECK(held.size() == 3900);
}

}  // namespace tokcask
