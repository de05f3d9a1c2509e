#include "shm/access_table.h"

#include <doctest/doctest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <map>
#include <span>
#include <thread>
#include <vector>

#include "directory.h"

namespace tokcask::shm {

namespace {

constexpr Uuid kUuid = {1, 2, 3};

}  // namespace

TEST_CASE("stamps grow, also when another process has a clock that is ahead") {
  const Directory d;
  const auto table = AccessTable::open(d.path, kUuid);
  CHECK(table->why_private().empty());
  std::uint64_t last = 0;
  for (int i = 0; i < 1000; ++i) {
    const std::uint64_t stamp = table->next_stamp();
    CHECK(stamp > last);
    last = stamp;
  }
  table->raise_clock(last + 1'000'000'000'000);
  CHECK(table->next_stamp() > last + 1'000'000'000'000);
  table->take_dirty([](auto, auto) {});  // publishes the clock
  CHECK(AccessTable::open(d.path, kUuid)->next_stamp() > last + 1'000'000'000'000);
}

TEST_CASE("a touch is seen by every process, and an older one changes nothing") {
  const Directory d;
  const auto table = AccessTable::open(d.path, kUuid);
  CHECK(elsewhere([&] {
    AccessTable::open(d.path, kUuid)->touch(7, 1000);
    return true;
  }));
  CHECK(table->stamp(7) == 1000);
  table->touch(7, 900);
  CHECK(table->stamp(7) == 1000);
  table->assign(7, 5);
  CHECK(table->stamp(7) == 5);
  CHECK(table->stamp(8) == 0);
}

TEST_CASE("slots beyond the file are not recorded until it grows") {
  const Directory d;
  const auto table = AccessTable::open(d.path, kUuid);
  const auto other = AccessTable::open(d.path, kUuid);
  constexpr std::uint32_t kFar = 100'000;
  table->touch(kFar, 1);
  CHECK(table->stamp(kFar) == 0);
  CHECK(table->grow(kFar + 1));
  table->touch(kFar, 2);
  CHECK(other->stamp(kFar) == 2);
  table->touch(0xffffffff, 3);
  CHECK(table->stamp(0xffffffff) == 0);
}

TEST_CASE(
    "there is address space for every slot; where there is not, that is said once a slot has no place") {
  const Directory d;
  {
    const auto table = AccessTable::open(d.path, kUuid);
    CHECK(table->capacity() > 0xffffffff);
    CHECK(table->shortcoming().empty());
  }
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // they take the address space themselves
  CHECK(elsewhere([&] {
    constexpr rlim_t kLittle = rlim_t{1} << 32;
    const rlimit limit{kLittle, kLittle};
    if (setrlimit(RLIMIT_AS, &limit) != 0) return false;
    const auto small = AccessTable::open(d.path, kUuid);
    if (!small->why_private().empty() || small->capacity() > kLittle / 8) return false;
    if (!small->grow(100'000) || !small->shortcoming().empty()) return false;
    return !small->grow(small->capacity() + 1) && !small->shortcoming().empty();
  }));
#endif
}

TEST_CASE("a table that others use is not replaced, whatever it holds, and one that nobody uses is") {
  const Directory d;
  const auto file = d.path / "access.shm";
  auto used = AccessTable::open(d.path, kUuid);
  used->touch(3, 30);
  const auto write_version = [&](std::uint32_t version) {
    std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
    stream.seekp(8);
    stream.write(reinterpret_cast<const char*>(&version), sizeof version);
  };
  write_version(99);
  const auto is_private = [&] { return !AccessTable::open(d.path, kUuid)->why_private().empty(); };
  CHECK(is_private());
  CHECK(elsewhere(is_private));
  write_version(3);
  CHECK(AccessTable::open(d.path, kUuid)->stamp(3) == 30);
  write_version(99);
  used.reset();
  CHECK_FALSE(is_private());
  CHECK(AccessTable::open(d.path, kUuid)->stamp(3) == 0);
}

TEST_CASE("a descriptor of the table is not there in a program that is executed, nor in a forked child") {
  const Directory d;
  const auto table = AccessTable::open(d.path, kUuid);
  const auto has_it = [&] {
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
      std::error_code error;
      if (std::filesystem::read_symlink(entry.path(), error).filename() == "access.shm") return true;
    }
    return false;
  };
  CHECK(has_it());
  CHECK(elsewhere([&] { return !has_it(); }));
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
TEST_CASE("who has no address space for the table replaces nothing") {
  const Directory d;
  const auto table = AccessTable::open(d.path, kUuid);
  table->touch(3, 30);
  CHECK(elsewhere([&] {
    std::uint64_t pages = 0;
    std::ifstream("/proc/self/statm") >> pages;
    const rlim_t little = pages * static_cast<rlim_t>(sysconf(_SC_PAGESIZE)) + (rlim_t{512} << 10);
    const rlimit limit{little, little};
    if (setrlimit(RLIMIT_AS, &limit) != 0) return false;
    try {
      static_cast<void>(AccessTable::open(d.path, kUuid));
    } catch (const std::exception&) {
      return true;  // not even for a private one
    }
    return false;
  }));
  CHECK(AccessTable::open(d.path, kUuid)->stamp(3) == 30);
}
#endif

TEST_CASE("what was touched is taken once") {
  const Directory d;
  const auto table = AccessTable::open(d.path, kUuid);
  table->touch(3, 30);
  table->touch(kStampsPerBlock + 1, 40);
  std::map<std::uint64_t, std::vector<std::uint64_t>> taken;
  const auto take = [&](std::uint64_t block, std::span<const std::uint64_t> stamps) {
    taken[block].assign(stamps.begin(), stamps.end());
  };
  table->take_dirty(take);
  REQUIRE(taken.size() == 2);
  CHECK(taken[0][3] == 30);
  CHECK(taken[1][1] == 40);
  taken.clear();
  table->take_dirty(take);
  CHECK(taken.empty());
  table->touch(3, 31);
  table->take_dirty(take);
  CHECK(taken.size() == 1);
}

TEST_CASE("a stamp far in the future is damage: it is no access, and the next one takes its place") {
  const Directory d;
  const auto table = AccessTable::open(d.path, kUuid);
  table->touch(8, 1000);
  // As the head of access_table.h says: stamps begin in block 49, 16 bytes into it.
  const std::uint64_t future = ~std::uint64_t{0} - 5;
  std::fstream file(d.path / "access.shm", std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(49 * 4096 + 16 + 7 * 8);
  file.write(reinterpret_cast<const char*>(&future), sizeof future);
  REQUIRE(file.flush());
  CHECK(table->stamp(7) == 0);
  CHECK(table->stamp(8) == 1000);
  table->take_dirty([](auto, std::span<const std::uint64_t> stamps) {
    CHECK(stamps[7] == 0);
    CHECK(stamps[8] == 1000);
  });
  const std::uint64_t now = table->next_stamp();
  table->touch(7, now);
  CHECK(table->stamp(7) == now);
}

TEST_CASE("another store's table is not used, and where no file can be the table is private") {
  const Directory d;
  AccessTable::open(d.path, kUuid)->touch(1, 10);
  CHECK(AccessTable::open(d.path, kUuid)->stamp(1) == 10);
  CHECK(AccessTable::open(d.path, Uuid{9})->stamp(1) == 0);
  CHECK(AccessTable::open(d.path, kUuid)->stamp(1) == 0);

  const auto table = AccessTable::open("/proc", kUuid);
  CHECK_FALSE(table->why_private().empty());
  CHECK(table->grow(50'000));
  table->touch(49'999, 10);
  CHECK(table->stamp(49'999) == 10);
  CHECK(table->runs().begin(1));
}

TEST_CASE("threads touch and take at once") {
  const Directory d;
  const auto table = AccessTable::open(d.path, kUuid);
  std::vector<std::thread> threads;
  for (std::uint32_t number = 0; number < 3; ++number) {
    threads.emplace_back([&, number] {
      for (std::uint32_t i = 0; i < 5000; ++i) table->touch(i % 2000, table->next_stamp());
      if (number == 0) table->grow(20'000);
    });
  }
  for (int i = 0; i < 50; ++i) table->take_dirty([](auto, auto) {});
  for (std::thread& thread : threads) thread.join();
  for (std::uint32_t slot = 0; slot < 2000; ++slot) CHECK(table->stamp(slot) > 0);
}

}  // namespace tokcask::shm
