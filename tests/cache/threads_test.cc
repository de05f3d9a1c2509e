// One handle, many threads. Run under ThreadSanitizer by tools/test.
#include <atomic>
#include <thread>

#include "support.h"

namespace tokcask {

using namespace test;

TEST_CASE("threads that put, read, flush, clear and look at figures") {
  constexpr int kSteps = 300;
  const std::uint64_t seed = test_seed();
  INFO("TOKCASK_TEST_SEED=" << seed);
  Fixture f;
  auto cache = f.open({.batch_bytes = 1 << 17, .batch_age = std::chrono::milliseconds(5)});
  std::atomic<int> wrong{0};
  const auto writer = [&](std::uint64_t number) {
    std::mt19937_64 random(seed + number);
    for (int i = 0; i < kSteps; ++i) {
      const std::uint64_t section = random() % 100;
      cache.put(key(section), {.input_ids = ids(section, 10 * section)});
      if (i % 64 == 0) cache.flush();
      if (number == 0 && i % 100 == 99) cache.clear();
      if (number == 1 && i % 100 == 50) cache.prune(std::chrono::milliseconds(1));
    }
  };
  const auto reader = [&](std::uint64_t number) {
    std::mt19937_64 random(seed + 100 + number);
    std::vector<std::pair<std::uint64_t, TokenView>> held;
    for (int i = 0; i < kSteps; ++i) {
      const std::uint64_t section = random() % 100;
      if (auto view = cache.get(key(section))) held.emplace_back(section, *std::move(view));
      if (held.size() > 20 || i == kSteps - 1) {
        for (const auto& [which, view] : held) {
          if (copy_of(view.input_ids()) != ids(which, 10 * which)) ++wrong;
        }
        held.clear();
      }
      if (i % 50 == 0) static_cast<void>(cache.stats());
      if (i % 100 == 0 && cache.verify().damaged > 0) ++wrong;
    }
  };
  std::vector<std::thread> threads;
  for (std::uint64_t i = 0; i < 2; ++i) threads.emplace_back(writer, i);
  for (std::uint64_t i = 0; i < 3; ++i) threads.emplace_back(reader, i);
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
}

TEST_CASE("threads that open and close the same store") {
  Fixture f;
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (std::uint64_t number = 0; number < 4; ++number) {
    threads.emplace_back([&, number] {
      for (std::uint64_t i = 0; i < 15; ++i) {
        auto cache = f.open();
        cache.put(key(100 * number + i), {.input_ids = ids(i, 50)});
        if (i > 0 && !cache.get(key(100 * number + i - 1))) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
  CHECK(f.open().stats().entry_count == 60);
}

TEST_CASE("a handle that is closed while others use it") {
  Fixture f;
  auto cache = f.open();
  cache.put(key(1), {.input_ids = ids(1, 100)});
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int number = 0; number < 3; ++number) {
    threads.emplace_back([&] {
      try {
        for (;;) {
          if (!cache.get(key(1))) ++wrong;
        }
      } catch (const Error& error) {
        if (error.code() != Errc::kClosed) ++wrong;
      }
    });
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  cache.close();
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
}

}  // namespace tokcask
