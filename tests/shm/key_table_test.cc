#include "shm/key_table.h"

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstring>
#include <fstream>
#include <iterator>
#include <optional>
#include <thread>
#include <vector>

#include "directory.h"

namespace tokcask::shm {

namespace {

constexpr Uuid kUuid = {1, 2, 3};
constexpr std::int64_t kMtime = 123'456'789'012;
constexpr std::uint64_t kKeep = 1 << 20;

// A table of `count` keys whose every byte tells from which `seed` it is.
struct Content {
  explicit Content(std::size_t count, std::uint64_t seed = 1) : places(count), keys(8 * count) {
    for (std::size_t i = 0; i < count; ++i) {
      const auto number = static_cast<std::uint32_t>(seed + i);
      places[i] = {8 * (seed + i), seed * 1000 + i, number, 2 * number};
    }
    for (std::size_t i = 0; i < keys.size(); ++i) keys[i] = static_cast<std::byte>(i);
  }
  [[nodiscard]] KeyTableContent table(std::uint64_t txnid = 7) const {
    return {kUuid, txnid, kMtime, places, keys, kKeep};
  }
  [[nodiscard]] bool is(const KeyTable& table) const {
    return std::equal(places.begin(), places.end(), table.places().begin(), table.places().end()) &&
           std::equal(keys.begin(), keys.end(), table.keys().begin(), table.keys().end());
  }
  std::vector<Place> places;
  std::vector<std::byte> keys;
};

std::vector<std::filesystem::path> files_in(const Directory& d) {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(d.path)) files.push_back(entry.path());
  return files;
}

std::vector<char> read_file(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

}  // namespace

TEST_CASE("a table that one process made is mapped by others, and stays for those to come") {
  const Directory d;
  const Content content(10'001);
  {
    const auto table = KeyTable::publish(d.path, content.table());
    CHECK(table->why_private().empty());
    CHECK(content.is(*table));
    CHECK(elsewhere([&] {
      const auto other = KeyTable::attach(d.path, kUuid, content.keys, kKeep);
      return other && other->txnid() == 7 && other->data_mtime_ns() == kMtime && content.is(*other);
    }));
    REQUIRE(files_in(d).size() == 1);
    struct stat status{};
    REQUIRE(stat(files_in(d).front().c_str(), &status) == 0);
    CHECK((status.st_mode & 0777) == 0600);
    {
      const auto second = KeyTable::attach(d.path, kUuid, content.keys, kKeep);
      REQUIRE(second);
    }
    CHECK(files_in(d).size() == 1);  // the first is still there
  }
  const auto later = KeyTable::attach(d.path, kUuid, content.keys, kKeep);
  REQUIRE(later);
  CHECK(content.is(*later));
}

TEST_CASE("of tables that nobody holds the newest stay, as many as may be kept") {
  const Directory d;
  const auto list = [](std::size_t number) {
    Content content(1000);  // 36 KiB with its header
    content.keys[0] = static_cast<std::byte>(number);
    return content;
  };
  const auto stays = [&](std::size_t number, std::uint64_t keep) {
    return KeyTable::attach(d.path, kUuid, list(number).keys, keep) != nullptr;
  };
  const auto held = KeyTable::publish(d.path, list(0).table());
  for (std::size_t number = 1; number < 5; ++number) {
    KeyTable::publish(d.path, list(number).table());
    std::this_thread::sleep_for(std::chrono::milliseconds(20));  // longer than the clock of file times
  }
  CHECK(files_in(d).size() == 5);
  CHECK(stays(4, 90'000));
  CHECK(stays(3, 90'000));
  CHECK_FALSE(stays(2, 90'000));
  CHECK_FALSE(stays(1, 90'000));
  CHECK(stays(0, 0));  // it is held
  CHECK(files_in(d).size() == 1);
  CHECK(list(0).is(*held));
}

TEST_CASE("tables of another file of the store are removed by the next that makes one") {
  const Directory d;
  const Content content(100);
  KeyTable::publish(d.path, content.table());
  KeyTableContent of_new_file = content.table();
  of_new_file.store = Uuid{9};
  Content other(50);
  of_new_file.places = other.places;
  of_new_file.keys = other.keys;
  const auto table = KeyTable::publish(d.path, of_new_file);
  CHECK(files_in(d).size() == 1);
  CHECK(other.is(*table));
}

TEST_CASE("an empty list has a table too") {
  const Directory d;
  const Content content(0);
  const auto table = KeyTable::publish(d.path, content.table());
  CHECK(content.is(*table));
  CHECK(KeyTable::attach(d.path, kUuid, content.keys, kKeep));
}

TEST_CASE("a table of another store, of other keys, or of none is not taken") {
  const Directory d;
  const Content content(100);
  const auto table = KeyTable::publish(d.path, content.table());
  CHECK_FALSE(KeyTable::attach(d.path, Uuid{9}, content.keys, kKeep));
  CHECK_FALSE(KeyTable::attach(d.path, kUuid, Content(101).keys, kKeep));
  CHECK_FALSE(KeyTable::attach(d.path / "nowhere", kUuid, content.keys, kKeep));
}

TEST_CASE("a damaged table is not taken: every byte of it is under a checksum") {
  const Directory d;
  const Content content(50);
  const auto table = KeyTable::publish(d.path, content.table());
  const std::filesystem::path file = files_in(d).front();
  const std::vector<char> good = read_file(file);
  const auto attach_to = [&](const std::vector<char>& bytes) {
    // A file of its own, so that the table that is mapped keeps its bytes.
    const std::filesystem::path fresh = d.path / "fresh";
    std::ofstream(fresh, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    std::filesystem::rename(fresh, file);
    return KeyTable::attach(d.path, kUuid, content.keys, kKeep);
  };
  REQUIRE(attach_to(good));
  for (std::size_t at = 0; at < good.size(); at += at < 128 || at >= 4096 ? 1 : 500) {
    std::vector<char> bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 0x10);
    const auto taken = attach_to(bad);
    // Only the rest of block 0 means nothing.
    if (at >= 88 && at < 4096) continue;
    CAPTURE(at);
    CHECK_FALSE(taken);
  }
  for (std::size_t size = 0; size < good.size(); size += 97) {
    CHECK_FALSE(attach_to(std::vector<char>(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(size))));
  }
  std::vector<char> longer = good;
  longer.push_back(0);
  CHECK_FALSE(attach_to(longer));
  CHECK(content.is(*table));
}

TEST_CASE("a table whose number of keys is more than the file can hold is not taken") {
  const Directory d;
  const Content content(10);
  const auto table = KeyTable::publish(d.path, content.table());
  std::vector<char> bytes = read_file(files_in(d).front());
  // 24 bytes for each are 0 bytes in 64 bits; all checksums are right.
  const std::uint64_t count = std::uint64_t{1} << 61;
  bytes.erase(bytes.begin() + 4096, bytes.begin() + 4096 + 24 * 10);
  const auto put = [&](std::size_t at, std::uint64_t word) {
    std::memcpy(bytes.data() + at, &word, sizeof word);
  };
  put(48, count);
  put(80, XXH3_64bits(bytes.data() + 4096, bytes.size() - 4096));
  put(88, XXH3_64bits(bytes.data(), 88));
  std::ofstream(files_in(d).front(), std::ios::binary)
      .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  CHECK_FALSE(KeyTable::attach(d.path, kUuid, content.keys, kKeep));
}

TEST_CASE("a newer table takes the place of one that is in use, which stays as it is") {
  const Directory d;
  const Content old(100, 1);
  const Content fresh(100, 2);
  auto table = KeyTable::publish(d.path, old.table(7));
  const auto newer = KeyTable::publish(d.path, fresh.table(8));
  CHECK(old.is(*table));
  const auto found = KeyTable::attach(d.path, kUuid, old.keys, kKeep);
  REQUIRE(found);
  CHECK(found->txnid() == 8);
  CHECK(fresh.is(*found));
  table.reset();  // removes its own file, not the one that took its name
  CHECK(KeyTable::attach(d.path, kUuid, old.keys, kKeep));
}

TEST_CASE("what killed processes left behind is removed by the next that makes a table") {
  const Directory d;
  const Content content(100);
  CHECK_FALSE(elsewhere([&] {
    const auto table = KeyTable::publish(d.path, content.table());
    std::ofstream(d.path / "keys-00.shm.123") << "half a table";
    return raise(SIGKILL) == 0;
  }));
  CHECK(files_in(d).size() == 2);
  Content other(100);
  other.keys[0] = std::byte{0xff};
  const auto table = KeyTable::publish(d.path, other.table());
  const auto files = files_in(d);
  CHECK(files.size() == 2);  // the whole one stays
  for (const auto& file : files) CHECK(file.extension() == ".shm");
}

TEST_CASE("a child goes on with its parent's table when the file and the parent's mapping are gone") {
  const Directory d;
  const Content content(5000);
  auto table = KeyTable::publish(d.path, content.table());
  int gate[2];
  REQUIRE(pipe(gate) == 0);
  const pid_t child = fork();
  if (child == 0) {
    close(gate[1]);
    char byte = 0;
    // Until the parent has let go of it.
    if (read(gate[0], &byte, 1) != 0) _exit(2);
    _exit(content.is(*table) ? 0 : 1);
  }
  close(gate[0]);
  table.reset();
  for (const auto& file : files_in(d)) std::filesystem::remove(file);
  close(gate[1]);
  int status = 0;
  waitpid(child, &status, 0);
  CHECK(status == 0);
}

TEST_CASE("where no file can be made the table is private, and children share it") {
  const Content content(100);
  const auto table = KeyTable::publish("/proc/nowhere", content.table());
  CHECK_FALSE(table->why_private().empty());
  CHECK(content.is(*table));
  CHECK(elsewhere([&] { return content.is(*table); }));
}

}  // namespace tokcask::shm
