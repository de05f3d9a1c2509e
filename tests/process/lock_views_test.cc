// Views stay what they were when the process that holds them reads the files of its own store, as a backup
// does, and when a second copy of the library is in it. POSIX drops a process's record locks on a file when
// the process closes any descriptor of that file, so nothing may rest on such a lock.
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include "child.h"
#include "files/store_files.h"
#include "support.h"

namespace tokcask {

using namespace test;
namespace fs = std::filesystem;

namespace {

constexpr std::uint64_t kEntries = 200;
constexpr std::size_t kTokens = 3000;
constexpr std::uint64_t kBudget = 16 << 20;

// As shutil.copytree() of Python: each file is opened, read and closed.
void read_all_files(const fs::path& root) {
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(root)) {
    if (!entry.is_regular_file()) continue;
    std::ifstream stream(entry.path(), std::ios::binary);
    const std::string content{std::istreambuf_iterator<char>(stream), {}};
  }
}

// Views of entries that another process removes later.
class Held {
 public:
  explicit Held(TokenizedCache& cache) {
    for (std::uint64_t i = 0; i < kEntries; ++i) cache.put(key(i), {.input_ids = ids(i, kTokens)});
    cache.flush();
    for (std::uint64_t i = 0; i < kEntries; ++i) views_.push_back(cache.get(key(i)).value());
  }
  [[nodiscard]] std::size_t changed() const {
    std::size_t changed = 0;
    for (std::uint64_t i = 0; i < kEntries; ++i)
      if (copy_of(views_[i].input_ids()) != ids(i, kTokens)) ++changed;
    return changed;
  }

 private:
  std::vector<TokenView> views_;
};

// In another process: everything that is stored is removed and other entries put, until all pages that may be
// used again are.
bool turn_over(const Fixture& f) {
  Child writer([&](const Line&) {
    auto cache = TokenizedCache::open(f.root(), {.max_bytes = kBudget});
    for (std::uint64_t round = 1; round <= 6; ++round) {
      for (std::uint64_t i = 0; i < kEntries; ++i) {
        cache.put(key(1000 * round + i), {.input_ids = ids(1000 * round + i, kTokens)});
      }
      cache.flush();
      cache.prune(std::chrono::seconds(0));
    }
    return true;
  });
  return writer.succeeded();
}

std::unique_ptr<lmdb::Environment> open_once_more(const Fixture& f) {
  return files::open_environment(f.root(), *files::id_of(f.data()), lmdb::Environment::Mode::kReadWrite,
                                 std::chrono::milliseconds(100));
}

}  // namespace

TEST_CASE("a process reads all files of its own store: its views stay what they were") {
  Fixture f;
  auto cache = f.open({.max_bytes = kBudget});
  const Held held(cache);
  read_all_files(f.root());
  SUBCASE("and others write") {}
  SUBCASE("and a writer is killed in the middle of a transaction") {
    Child killed([&](const Line&) {
      const auto environment = open_once_more(f);
      const lmdb::WriteTransaction transaction(*environment);
      raise(SIGKILL);
      return true;
    });
    CHECK_FALSE(killed.succeeded());
  }
  CHECK(turn_over(f));
  CHECK(held.changed() == 0);
  CHECK(f.messages.all().empty());
}

TEST_CASE("a process reads all files of its own store and writes: the views of others stay what they were") {
  Fixture f;
  Child reader([&](const Line& line) {
    auto cache = TokenizedCache::open(f.root(), {.max_bytes = kBudget});
    const Held held(cache);
    read_all_files(f.root());
    line.tell(1);
    line.hear();
    return held.changed() == 0;
  });
  REQUIRE(reader.line().hear() == 1);
  auto cache = f.open({.max_bytes = kBudget});
  read_all_files(f.root());
  CHECK(turn_over(f));
  reader.line().tell(1);
  CHECK(reader.succeeded());
}

TEST_CASE(
    "a second copy of the library in a process is refused, and views of the first stay what they were") {
  Fixture f;
  auto cache = f.open({.max_bytes = kBudget});
  const Held held(cache);
  const std::string why = error_of(Errc::kBusy, [&] { static_cast<void>(open_once_more(f)); });
  CHECK(why.find("a second copy of the library") != std::string::npos);
  CHECK(turn_over(f));
  CHECK(held.changed() == 0);
  cache.put(key(1), {.input_ids = ids(1, 10)});
  cache.flush();
}

TEST_CASE("a reader that was killed holds no pages, also where others have read the files of the store") {
  Fixture f;
  auto cache = f.open({.max_bytes = kBudget});
  Child reader([&](const Line& line) {
    auto own = TokenizedCache::open(f.root(), {.max_bytes = kBudget});
    const Held held(own);
    line.tell(1);
    line.hear();
    return true;
  });
  REQUIRE(reader.line().hear() == 1);
  read_all_files(f.root());
  reader.signal(SIGKILL);
  CHECK_FALSE(reader.succeeded());
  const std::uint64_t before = f.file_bytes();
  CHECK(turn_over(f));
  CHECK(turn_over(f));
  CHECK(f.file_bytes() < 4 * before);
}

TEST_CASE("a child that was forked keeps nothing of its parent's alive") {
  Fixture f;
  Child opener([&](const Line& line) {
    auto cache = TokenizedCache::open(f.root());
    cache.put(key(1), {.input_ids = ids(1, 10)});
    cache.flush();
    const pid_t pid = fork();
    if (pid == 0) {
      pause();
      _exit(0);
    }
    line.tell(static_cast<std::uint64_t>(pid));
    line.hear();
    return true;
  });
  const auto grandchild = static_cast<pid_t>(opener.line().hear().value());
  opener.signal(SIGKILL);
  CHECK_FALSE(opener.succeeded());
  // Another lock file than the one that was claimed: right, if nobody has the store open any more.
  fs::remove_all(f.root() / "locks");
  CHECK(f.open().get(key(1)));
  kill(grandchild, SIGKILL);
}

}  // namespace tokcask
