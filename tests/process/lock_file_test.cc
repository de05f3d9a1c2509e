// LMDB's lock file is removed or replaced, and one data file has two names: nobody hangs, nobody reads what
// was not stored, and two that do not see each other are never let in.
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <optional>
#include <string>
#include <thread>

#include "child.h"
#include "files/store_files.h"
#include "support.h"

namespace tokcask {

using namespace test;
namespace fs = std::filesystem;

namespace {

constexpr std::uint64_t kEntries = 40;

fs::path lock_file(const Fixture& f) {
  return f.root() / "locks" / std::to_string(files::id_of(f.data())->second) / "lock.mdb";
}

void fill(const Fixture& f) {
  auto cache = f.open();
  for (std::uint64_t i = 0; i < kEntries; ++i) cache.put(key(i), {.input_ids = ids(i, 100 * i)});
}

// Looks everything up: the tokens of each key or nothing. How many there are.
std::uint64_t right_or_missing(TokenizedCache& cache) {
  std::uint64_t found = 0;
  for (std::uint64_t i = 0; i < kEntries; ++i) {
    const auto view = cache.get(key(i));
    if (!view) continue;
    CHECK(copy_of(view->input_ids()) == ids(i, 100 * i));
    ++found;
  }
  return found;
}

// The error that another process gets when it opens the store, or nothing.
std::string refusal(const fs::path& root, bool read_only) {
  Child child([&](const Line& line) {
    alarm(20);
    try {
      auto cache = TokenizedCache::open(root, {.read_only = read_only});
      for (std::uint64_t i = 0; i < kEntries; ++i) {
        if (copy_of(cache.get(key(i))) != ids(i, 100 * i)) return false;
      }
    } catch (const Error& error) {
      line.tell(error.code() == Errc::kBusy ? 1 : 2);
    }
    return true;
  });
  const auto code = child.line().hear();
  CHECK(child.succeeded());
  return code ? *code == 1 ? "busy" : "another error" : "";
}

}  // namespace

TEST_CASE(
    "the lock file is removed or replaced while the store is open: others are refused until it is closed") {
  Fixture f;
  fill(f);
  {
    auto cache = f.open();
    const auto held = cache.get(key(7)).value();
    SUBCASE("removed") { fs::remove(lock_file(f)); }
    SUBCASE("its directory is removed") { fs::remove_all(f.root() / "locks"); }
    SUBCASE("replaced by a copy") {
      fs::copy_file(lock_file(f), f.directory() / "copy");
      fs::rename(f.directory() / "copy", lock_file(f));
    }
    CHECK(refusal(f.root(), false) == "busy");
    CHECK(refusal(f.root(), true) == "busy");
    // Whoever has it open goes on.
    CHECK(right_or_missing(cache) == kEntries);
    for (std::uint64_t i = 100; i < 120; ++i) {
      cache.put(key(i), {.input_ids = ids(i, 3000)});
      cache.flush();
    }
    CHECK(copy_of(held.input_ids()) == ids(7, 700));
  }
  CHECK(refusal(f.root(), false).empty());
  CHECK(f.messages.all().empty());
}

TEST_CASE("the lock file is anything when the store is opened: that is made good") {
  Fixture f;
  fill(f);
  const std::uintmax_t whole = fs::file_size(lock_file(f));
  for (std::uintmax_t bytes = 0; bytes < whole; bytes = 2 * bytes + 10) {
    fs::resize_file(lock_file(f), bytes);
    auto cache = f.open();
    CHECK(right_or_missing(cache) == kEntries);
    CHECK(refusal(f.root(), false).empty());
  }
  CHECK(f.messages.all().empty());
}

TEST_CASE("a data file by two names: whoever comes second by the other name is refused while it is open") {
  Fixture f;
  fill(f);
  const fs::path other = f.directory() / "other";
  fs::create_directory(other);
  fs::create_hard_link(f.data(), other / "data.mdb");
  {
    auto cache = f.open();
    CHECK(refusal(other, false) == "busy");
    CHECK(refusal(other, true) == "busy");
    CHECK(refusal(f.root(), false).empty());
    cache.put(key(100), {.input_ids = ids(1, 3000)});
    cache.flush();
    CHECK(right_or_missing(cache) == kEntries);
  }
  CHECK(refusal(other, false).empty());
  Child holder([&](const Line& line) {
    auto cache = TokenizedCache::open(other);
    line.tell(1);
    line.hear();
    return true;
  });
  CHECK(holder.line().hear() == 1);
  CHECK(error_of(Errc::kBusy, [&] { auto cache = f.open(); }).find("a hard link") != std::string::npos);
  holder.line().tell(1);
  CHECK(holder.succeeded());
}

TEST_CASE("a store's directory by two names is one store") {
  Fixture f;
  fill(f);
  auto cache = f.open();
  fs::create_directory_symlink(f.root(), f.directory() / "link");
  CHECK(refusal(f.directory() / "link", false).empty());
  // Mounted once more, where that is allowed.
  fs::create_directory(f.directory() / "mount");
  Child child([&](const Line& line) {
    const fs::path mount_point = f.directory() / "mount";
    if (unshare(CLONE_NEWNS) != 0 || mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        mount(f.root().c_str(), mount_point.c_str(), nullptr, MS_BIND, nullptr) != 0) {
      line.tell(0);
      line.hear();
      return true;
    }
    line.tell(1);
    auto own = TokenizedCache::open(mount_point);
    own.put(key(200), {.input_ids = ids(200, 3000)});
    own.flush();
    line.hear();
    return own.get(key(201)).has_value();
  });
  if (child.line().hear() == 0) MESSAGE("a second mount was not tried: not allowed here");
  for (int i = 0; i < 100; ++i) {
    cache.put(key(201), {.input_ids = ids(201, 3000)});
    cache.flush();
  }
  child.line().tell(1);
  CHECK(child.succeeded());
  CHECK(right_or_missing(cache) == kEntries);
  CHECK(f.messages.all().empty());
}

TEST_CASE("a store on a read-only mount: no reader beside others, and no writer beside a reader") {
  Fixture f;
  fill(f);
  const fs::path mount_point = f.directory() / "mount";
  fs::create_directory(mount_point);
  // A reader there: says whether it came to mount, then whether it was let in, then stays.
  const auto read_there = [&](const Line& line) {
    if (unshare(CLONE_NEWNS) != 0 || mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        mount(f.root().c_str(), mount_point.c_str(), nullptr, MS_BIND, nullptr) != 0 ||
        mount(nullptr, mount_point.c_str(), nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY, nullptr) != 0) {
      line.tell(0);
      line.hear();
      return true;
    }
    line.tell(1);
    try {
      auto cache = TokenizedCache::open(mount_point, {.read_only = true});
      const auto held = cache.get(key(7)).value();
      line.tell(1);
      line.hear();
      return copy_of(held.input_ids()) == ids(7, 700);
    } catch (const Error& error) {
      const std::string why = error.what();
      line.tell(0);
      line.hear();
      return error.code() == Errc::kBusy && why.find("read-only mount") != std::string::npos;
    }
  };
  {
    auto cache = f.open();
    Child reader(read_there);
    if (reader.line().hear() == 0) {
      MESSAGE("a read-only mount was not tried: not allowed here");
      return;
    }
    CHECK(reader.line().hear() == 0);
    reader.line().tell(1);
    CHECK(reader.succeeded());
  }
  std::optional<Child> reader(std::in_place, read_there);
  CHECK(reader->line().hear() == 1);
  CHECK(reader->line().hear() == 1);
  auto cache = f.open();
  CHECK(right_or_missing(cache) == kEntries);
  cache.put(key(300), {.input_ids = ids(300, 3000)});
  const std::string why = error_of(Errc::kBusy, [&] { cache.flush(); });
  CHECK(why.find("process " + std::to_string(reader->pid())) != std::string::npos);
  reader->line().tell(1);
  CHECK(reader->succeeded());
  cache.flush();
  CHECK(cache.get(key(300)));
}

}  // namespace tokcask
