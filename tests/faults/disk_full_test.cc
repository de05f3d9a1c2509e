// File systems that are full or read-only: small ones, mounted for a child that takes them along when it
// ends. That takes root or user namespaces; where neither can be had the tests say so and pass.
// TOKCASK_EXT4=1 tries ext4 too, in an image that takes root and a loop device.
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>

#include "child.h"
#include "support.h"

namespace tokcask {

using namespace test;

namespace fs = std::filesystem;

namespace {

constexpr int kNoMount = 2;
constexpr std::size_t kLength = 1500;  // ids of an entry: two pages
constexpr std::uint64_t kEntries = 300;

void write_line(const char* file, const std::string& text) { std::ofstream(file) << text; }

// A name space of this process's own, in which it may mount.
bool may_mount() {
  const uid_t uid = geteuid();
  const gid_t gid = getegid();
  if (uid != 0 || unshare(CLONE_NEWNS) != 0) {
    if (unshare(CLONE_NEWNS | CLONE_NEWUSER) != 0) return false;
    write_line("/proc/self/setgroups", "deny");
    write_line("/proc/self/uid_map", "0 " + std::to_string(uid) + " 1");
    write_line("/proc/self/gid_map", "0 " + std::to_string(gid) + " 1");
  }
  return mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
}

using MountIt = std::function<bool(const fs::path& where)>;

bool mount_tmpfs(const fs::path& where) {
  return mount("tokcask", where.c_str(), "tmpfs", 0, "size=7m") == 0;
}

// Through the commands, which find a free loop device.
bool mount_ext4(const fs::path& where) {
  const std::string image = where.string() + ".ext4";
  const std::string commands = "truncate -s 8M '" + image + "' && mkfs.ext4 -q -F -O ^has_journal -m 0 '" +
                               image + "' && mount -o loop '" + image + "' '" + where.string() + "'";
  return std::system(commands.c_str()) == 0;
}

// Runs `act` in a child that has a small file system of its own. True if it returned true, or cannot be
// tried.
bool holds_on(const MountIt& mount_it, const fs::path& where, const std::function<bool()>& act) {
  const int code = in_child([&] {
    if (!may_mount() || !mount_it(where)) return kNoMount;
    return act() ? 0 : 1;
  });
  if (code == kNoMount) MESSAGE("not tried: nothing can be mounted here");
  return code == 0 || code == kNoMount;
}

// Takes all the space that is left.
class Ballast {
 public:
  explicit Ballast(const fs::path& directory) : file_(directory / "ballast") { grow(); }
  void grow() const {
    const int fd = open(file_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    static const std::string kPiece(65536, 'x');
    for (std::size_t size = kPiece.size(); size > 0;) {
      if (write(fd, kPiece.data(), size) <= 0) size /= 2;
    }
    close(fd);
  }
  void remove() const { fs::remove(file_); }

 private:
  fs::path file_;
};

void put(TokenizedCache& cache, std::uint64_t from, std::uint64_t to) {
  for (std::uint64_t i = from; i < to; ++i) cache.put(key(i), {.input_ids = ids(i, kLength)});
}

// How many are there; -1 when one is wrong.
std::int64_t count(TokenizedCache& cache, std::uint64_t from, std::uint64_t to) {
  std::int64_t found = 0;
  for (std::uint64_t i = from; i < to; ++i) {
    const auto view = cache.get(key(i));
    if (view && copy_of(view->input_ids()) != ids(i, kLength)) return -1;
    if (view) ++found;
  }
  return found;
}

bool expect(bool right, const char* what) {
  if (!right) std::fprintf(stderr, "  not so: %s\n", what);
  return right;
}

// Whether it throws Error(kIo).
bool fails(const std::function<void()>& act) {
  try {
    act();
  } catch (const Error& error) {
    return error.code() == Errc::kIo;
  }
  return false;
}

bool is_whole(TokenizedCache& cache) {
  const VerifyReport report = cache.verify();
  return report.damaged == 0 && report.structure_ok && report.records == cache.stats().entry_count;
}

// Entries of an earlier run, and then no space left.
void fill(const fs::path& root, std::optional<std::uint64_t> max_bytes) {
  auto cache =
      TokenizedCache::open(root, {.max_bytes = max_bytes, .on_message = [](Severity, std::string_view) {}});
  put(cache, 0, kEntries);
}

// Below its budget, on a full disk, which is a smaller budget then: entries of earlier runs make room, what
// this run has used stays, what finds no room is declined, and pruning works.
bool evicts_below_its_budget(const fs::path& directory) {
  const fs::path root = directory / "store";
  fill(root, {});
  const Ballast ballast(directory);
  Messages messages;
  auto cache =
      TokenizedCache::open(root, {.batch_age = std::chrono::hours(1), .on_message = messages.sink()});
  constexpr std::uint64_t kUsed = 200;
  if (!expect(count(cache, 0, kUsed) == kUsed, "what is committed can be read")) return false;
  constexpr std::uint64_t kNew = 200;
  for (std::uint64_t from = 1000; from < 1000 + kNew; from += 50) {
    put(cache, from, from + 50);
    cache.flush();
    ballast.grow();
  }
  const Stats stats = cache.stats();
  if (!expect(stats.run.evicted > 0 && stats.run.declined > 0, "some were evicted, and some declined") ||
      !expect(messages.count("the full disk has") == 1, "it is told why") ||
      !expect(count(cache, 0, kUsed) == kUsed, "what this run has used stays") ||
      !expect(count(cache, 1000, 1000 + kNew) + static_cast<std::int64_t>(stats.run.declined) == kNew,
              "what was put is there, or was declined") ||
      !expect(is_whole(cache), "the store is whole")) {
    return false;
  }
  cache.prune({.sequence_len = test::kAnyLength});
  if (!expect(cache.stats().entry_count == 0, "pruning works on a full disk")) return false;
  put(cache, 2000, 2100);
  cache.flush();
  return expect(count(cache, 2000, 2100) == 100, "and its pages are used again") &&
         expect(is_whole(cache), "the store is whole after that");
}

// At its cap: puts evict, as they would with space to spare.
bool evicts_at_its_cap(const fs::path& directory) {
  constexpr std::uint64_t kCap = std::uint64_t{2} << 20;
  const fs::path root = directory / "store";
  fill(root, kCap);
  const Ballast ballast(directory);
  auto cache = TokenizedCache::open(root, {.max_bytes = kCap, .batch_age = std::chrono::hours(1)});
  for (std::uint64_t round = 0; round < 10; ++round) {
    put(cache, 1000 + 20 * round, 1020 + 20 * round);
    cache.flush();
    ballast.grow();
  }
  const Stats stats = cache.stats();
  return expect(stats.run.evicted > 0, "something was evicted") &&
         expect(count(cache, 1000, 1200) + static_cast<std::int64_t>(stats.run.declined) == 200,
                "what was put is there, or was declined") &&
         expect(stats.run.declined < 100, "most of it is there") &&
         expect(is_whole(cache), "the store is whole");
}

bool compacts_not_on_a_full_disk(const fs::path& directory) {
  const fs::path root = directory / "store";
  fill(root, {});
  const Ballast ballast(directory);
  auto cache = TokenizedCache::open(root, {});
  if (!expect(fails([&] { cache.compact(); }), "compacting takes space")) return false;
  if (!expect(count(cache, 0, kEntries) == kEntries, "the old file stays")) return false;
  if (!expect(fails([&] { static_cast<void>(TokenizedCache::open(directory / "other", {})); }),
              "a new store takes space"))
    return false;
  ballast.remove();
  cache.compact();
  return expect(count(cache, 0, kEntries) == kEntries, "all is there");
}

void try_all_on(const MountIt& mount_it) {
  const Fixture f;
  const fs::path where = f.directory() / "small";
  fs::create_directory(where);
  CHECK(holds_on(mount_it, where, [&] { return evicts_below_its_budget(where); }));
  CHECK(holds_on(mount_it, where, [&] { return evicts_at_its_cap(where); }));
  CHECK(holds_on(mount_it, where, [&] { return compacts_not_on_a_full_disk(where); }));
}

}  // namespace

TEST_CASE("a full disk (tmpfs): errors, eviction goes on, and nothing committed is lost") {
  try_all_on(mount_tmpfs);
}

TEST_CASE("a full disk (ext4): errors, eviction goes on, and nothing committed is lost") {
  if (std::getenv("TOKCASK_EXT4") != nullptr) try_all_on(mount_ext4);
}

TEST_CASE("a read-only file system: readers read, writers are told") {
  const Fixture f;
  const fs::path where = f.directory() / "small";
  fs::create_directory(where);
  CHECK(holds_on(mount_tmpfs, where, [&] {
    const fs::path root = where / "store";
    fill(root, {});
    if (mount("none", where.c_str(), nullptr, MS_REMOUNT | MS_RDONLY, nullptr) != 0) return false;
    const MessageSink silent = [](Severity, std::string_view) {};
    {
      auto cache = TokenizedCache::open(root, {.read_only = true, .on_message = silent});
      if (!expect(count(cache, 0, kEntries) == kEntries, "all can be read")) return false;
    }
    return expect(fails([&] { static_cast<void>(TokenizedCache::open(root, {.on_message = silent})); }),
                  "opening it for writing is an error");
  }));
}

}  // namespace tokcask
