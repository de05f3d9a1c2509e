// The arithmetic of pages, and that the file keeps within its cap at each page size.
#include "write/room.h"
#include "write/pending.h"

#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <optional>
#include <thread>
#include <utility>

#include <tokcask/source_index.h>

#include "files/store_files.h"
#include "support.h"
#include "tables/commit.h"

extern char** environ;

namespace tokcask {

using namespace test;

namespace {

std::uint64_t page_bytes() { return static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE)); }

// The largest size that data.mdb has while this lives.
class Watcher {
 public:
  explicit Watcher(std::filesystem::path file) : file_(std::move(file)), thread_([this] { watch(); }) {}
  ~Watcher() { stop(); }
  Watcher(const Watcher&) = delete;
  Watcher& operator=(const Watcher&) = delete;
  std::uint64_t stop() {
    stopped_ = true;
    if (thread_.joinable()) thread_.join();
    return largest_;
  }

 private:
  void watch() {
    while (!stopped_) {
      struct stat status{};
      if (stat(file_.c_str(), &status) == 0)
        largest_ = std::max(largest_, static_cast<std::uint64_t>(status.st_size));
    }
  }
  const std::filesystem::path file_;
  std::atomic<bool> stopped_{false};
  std::uint64_t largest_ = 0;
  std::thread thread_;
};

SourceDirectory directory_of(std::size_t files, std::uint64_t seed) {
  SourceDirectory directory(files);
  for (std::size_t i = 0; i < files; ++i) {
    directory[i].name = "binary file number " + std::to_string(seed * files + i) + ".png";
    directory[i].kind = SourceKind::kBinary;
    directory[i].identity.inode = seed * files + i;
  }
  return directory;
}

room::Space measured(const lmdb::Environment& environment) {
  room::Space space;
  const lmdb::ReadTransaction snapshot(environment);
  space.page_bytes = environment.page_bytes();
  space.limit = std::uint64_t{1} << 30;
  space.end = environment.page_count();
  space.txnid = snapshot.id();
  space.records = snapshot.stat(lmdb::Table::kRecords);
  space.meta = snapshot.stat(lmdb::Table::kMeta);
  space.slots = read_store_row(snapshot).slot_count;
  for (const lmdb::FreedPages& freed : snapshot.free_list()) {
    const std::uint64_t size = 8 * (freed.count + 1);
    const std::uint64_t bytes =
        18 + (lmdb::value_pages(8, size, space.page_bytes) > 0 ? std::uint64_t{8} : size);
    space.free_list_bytes += bytes;
    if (freed.txnid >= space.txnid) {
      space.recent += freed.count;
    } else {
      if (space.reusable_bytes == 0) space.oldest_freed = freed.txnid;
      space.reusable += freed.count;
      space.reusable_bytes += bytes;
    }
  }
  return space;
}

PendingPut put_of(std::uint64_t seed, std::size_t length) {
  PendingPut put;
  const Ids tokens = ids(seed, length);
  put.tokens = PendingTokens::copy_of({.input_ids = tokens});
  put.stamp = seed + 1;
  return put;
}

}  // namespace

TEST_CASE("room: the marks in numbers, at 4, 16 and 32 KiB") {
  for (const std::uint64_t page : {4096U, 16'384U, 32'768U}) {
    CAPTURE(page);
    room::Space space;
    space.page_bytes = page;
    space.end = 9;
    space.records = {1, 0, 1, 0, 10};
    space.meta = {1, 0, 1, 2, 10};
    space.limit = 64;
    // The smallest budget has room for entries of a page or two beside what is kept.
    room::Work two;
    two.put(104, 2 * page - 1000, "0123456789abcdef0123456789abcdef", page);
    CHECK(two.value_pages == 2);
    CHECK(room::fits(space, two, room::high_mark(space)));
    CHECK(room::high_mark(space) < room::removal_mark(space));
    CHECK(room::removal_mark(space) < space.limit);
    CHECK(room::reserve(space) < 40);
    space.limit = 100'000;
    CHECK(room::high_mark(space) > 97'900);
    CHECK(room::high_mark(space) < 98'000);
    CHECK(room::low_mark(space) == room::high_mark(space) - 4000);
    // A list of many freed pages lies side by side; of few, it is one page of those that are left.
    room::Work many;
    many.freed = 10 * page / 8;
    CHECK(room::tail_of(space, many, 0).side_by_side == 11);
    CHECK(room::tail_of(space, {}, 0).side_by_side == 0);
    // The pages of values count as they are: they come from the free list, or from the end.
    space.reusable = 50;
    CHECK(room::end_after(space, {}, 9, false) == 9);
    room::Work large;
    large.value_pages = 200;
    CHECK(room::end_after(space, large, 9, false) >= 9 + 150);
    CHECK(room::end_after(space, large, 209, false) >= 209);
    CHECK(room::end_after(space, large, 209, true) <= 209 + 10);
  }
}

TEST_CASE("room: no commit takes more than its bound, at this page size") {
  const std::uint64_t seed = test_seed();
  INFO("TOKCASK_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  Fixture f;
  f.expect_damage();  // it is no whole store
  std::filesystem::create_directory(f.root());
  files::make_empty(f.root(), f.data());
  const auto environment = lmdb::Environment::open(f.root(), lmdb::Environment::Mode::kReadWrite);
  TokenizerNames names;
  std::vector<std::pair<std::uint64_t, std::size_t>> stored;
  std::uint64_t next = 0;
  std::uint64_t closest = ~std::uint64_t{0};
  for (int step = 0; step < 300; ++step) {
    const room::Space space = measured(*environment);
    room::Work work;
    Commit commit(*environment, names);
    const std::size_t most = std::size_t{1} << random() % 9;
    std::vector<std::pair<CacheKey, PendingPut>> puts;
    for (std::size_t i = random() % most; i > 0; --i) {
      const std::size_t length = random() % 20 == 0 ? random() % 40'000 : random() % 2500;
      puts.emplace_back(key(next), put_of(next, length));
      stored.emplace_back(next++, length);
      work.put(puts.back().first.canonical().size(), puts.back().second.tokens.record_bytes(),
               puts.back().first.section_id(), space.page_bytes);
    }
    work.row(8, 64, space.page_bytes);  // the name of the tokenizer
    std::sort(puts.begin(), puts.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    for (const auto& [k, put] : puts) commit.put(k, put.of_commit());
    for (std::size_t i = random() % most; i > 0 && stored.size() > 50; --i) {
      std::swap(stored[random() % stored.size()], stored.back());
      commit.erase(key(stored.back().first));
      stored.pop_back();
      ++work.removals;
    }
    for (std::size_t i = random() % 4; i > 0; --i) {
      const auto row =
          rows::encode_directory("/d" + std::to_string(random() % 100), directory_of(random() % 100, i));
      const auto at = rows::MetaKey::of_path(rows::Tag::kDirectory, "/d" + std::to_string(random() % 100));
      work.row(at.bytes().size(), row.size(), space.page_bytes);
      commit.put_hint(at, row);
    }
    commit.finish();
    work.freed = commit.freed_pages();
    const std::uint64_t before = room::end_after(space, work, space.end, false);
    const std::uint64_t end = room::end_after(space, work, commit.next_page(), true);
    REQUIRE(commit.id() == space.txnid + 1);
    // Values may lie scattered; all else is bounded before the first of them is written.
    if (commit.next_page() == space.end) REQUIRE(end <= before);
    commit.commit();
    REQUIRE(environment->page_count() <= end);
    closest = std::min(closest, end - environment->page_count());
  }
  CHECK(closest < 8);  // the bound is not far from the truth
}

TEST_CASE("the cap holds under a watcher: puts, views, prunes, clears") {
  const std::uint64_t seed = test_seed();
  INFO("TOKCASK_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  for (const std::uint64_t pages : {64U, 150U, 600U, 2000U}) {
    const std::uint64_t max_bytes = pages * page_bytes();
    CAPTURE(pages);
    Fixture f;
    f.open({.max_bytes = max_bytes}).close();
    Watcher watcher(f.data());
    std::vector<std::optional<TokenView>> held(4);
    std::uint64_t stored = 0;
    for (int run = 0; run < 4; ++run) {
      auto cache = f.open({.max_bytes = max_bytes,
                           .protect_run = random() % 2 == 0,
                           .batch_bytes = std::uint64_t{1} << (14 + random() % 8)});
      for (int step = 0; step < 150; ++step) {
        const std::uint64_t section = random() % 400;
        switch (random() % 16) {
          case 0:
            cache.flush();
            break;
          case 1:
            held[random() % held.size()] = cache.get(key(section));
            break;
          case 2:
          case 3:
            held[random() % held.size()].reset();
            break;
          case 4:
            if (random() % 20 != 0) break;
            held = std::vector<std::optional<TokenView>>(4);
            cache.clear();
            CHECK(cache.stats().entry_count == 0);
            break;
          case 5:
            if (random() % 8 != 0) break;
            held = std::vector<std::optional<TokenView>>(4);
            cache.prune(std::chrono::milliseconds(random() % 200));
            break;
          case 6:
            cache.put_source_directory("/d" + std::to_string(random() % 50),
                                       directory_of(random() % 80, step));
            break;
          default: {
            const std::size_t length =
                random() % 12 == 0 ? random() % (10 * page_bytes()) : random() % (page_bytes() * 5 / 8);
            cache.put(key(section), {.input_ids = ids(section, length % 40'000)});
          }
        }
      }
      cache.close();
      stored += f.open({.read_only = true}).stats().entry_count;
    }
    CHECK(watcher.stop() <= max_bytes);
    // The least budget of all may be full of what is not an entry.
    if (pages > 64) CHECK(stored > 0);
  }
}

TEST_CASE("the cap holds: directories without text") {
  const std::uint64_t max_bytes = 256 * page_bytes();
  Fixture f;
  f.open({.max_bytes = max_bytes}).close();
  Watcher watcher(f.data());
  for (std::uint64_t tree = 0; tree < 6; ++tree) {
    auto cache = f.open({.max_bytes = max_bytes});
    for (std::uint64_t i = 0; i < 400 * page_bytes() / 4096; ++i) {
      cache.put_source_directory("/tree" + std::to_string(tree) + "/" + std::to_string(i),
                                 directory_of(20, i));
      if (i % 100 == 99) cache.flush();
    }
  }
  CHECK(watcher.stop() <= max_bytes);
  auto cache = f.open({.max_bytes = max_bytes});
  for (std::uint64_t i = 0; i < 20; ++i) cache.put(key(i), {.input_ids = ids(i, 500)});
  cache.flush();
  CHECK(cache.stats().run.declined == 0);
  CHECK(f.file_bytes() <= max_bytes);
}

TEST_CASE("the cap holds: declared tokenizers, and puts go on") {
  const std::uint64_t max_bytes = 256 * page_bytes();
  Fixture f;
  auto cache = f.open({.max_bytes = max_bytes});
  Watcher watcher(f.data());
  const std::string padding(440, 'x');
  for (std::uint64_t i = 0; i < 4000; ++i) {
    cache.declare_tokenizer(padding + std::to_string(i), {.cuts_at_length = true});
    if (i % 200 == 199) cache.flush();
  }
  for (std::uint64_t i = 0; i < 20; ++i) cache.put(key(i), {.input_ids = ids(i, 500)});
  cache.flush();
  CHECK(cache.stats().run.declined == 0);
  // Names of tokenizers stay until they are cleared: entries name them.
  for (std::uint64_t i = 0; i < 100; ++i) {
    cache.put(CacheKey(section_id("one"), padding + std::to_string(i), 900'000), {.input_ids = ids(i, 10)});
  }
  cache.flush();
  CHECK(cache.stats().run.declined == 0);
  CHECK(cache.clear() == 120);
  for (std::uint64_t i = 0; i < 20; ++i) {
    cache.put(CacheKey(section_id("two"), padding + std::to_string(i), 900'000), {.input_ids = ids(i, 10)});
    cache.put(key(i), {.input_ids = ids(i, 500)});
  }
  cache.flush();
  CHECK(cache.stats().run.declined == 0);
  CHECK(cache.stats().entry_count == 40);
  CHECK(watcher.stop() <= max_bytes);
}

TEST_CASE("a budget of less than 64 pages is refused, whatever a page is") {
  Fixture f;
  f.open({.max_bytes = 64 * page_bytes()}).close();
  if (page_bytes() == 4096) return;
  const std::string told =
      error_of(Errc::kInvalidArgument, [&] { auto smaller = f.open({.max_bytes = 63 * page_bytes()}); });
  CHECK(told.find("must be at least " + std::to_string(64 * page_bytes())) != std::string::npos);
}

// A sanitizer's library must be the first that is loaded, so none can be loaded before it.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
TEST_CASE("the same with pages of 16 and 32 KiB") {
  if (page_bytes() != 4096) return;
  for (const char* const page : {"16384", "32768"}) {
    CAPTURE(page);
    std::vector<std::string> environment{"LD_PRELOAD=" TOKCASK_PAGE_SIZE_LIB,
                                         std::string("TOKCASK_TEST_PAGE=") + page,
                                         "TOKCASK_TEST_SEED=" + std::to_string(test_seed())};
    std::vector<char*> variables;
    for (std::string& variable : environment) variables.push_back(variable.data());
    for (char** inherited = environ; *inherited != nullptr; ++inherited) variables.push_back(*inherited);
    variables.push_back(nullptr);
    std::string program = std::filesystem::read_symlink("/proc/self/exe").string();
    std::string cases = "--test-case=the cap holds*,a budget of less*,room: no commit*";
    char* const arguments[] = {program.data(), cases.data(), nullptr};
    pid_t child = 0;
    REQUIRE(posix_spawn(&child, program.c_str(), nullptr, nullptr, arguments, variables.data()) == 0);
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK(status == 0);
  }
}
#endif

}  // namespace tokcask
