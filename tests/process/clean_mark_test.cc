// The clean mark: when a store is opened without a walk of its pages, and that nothing that changes the file
// goes unseen.
#include "lmdb/clean_mark.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <fstream>
#include <optional>
#include <random>
#include <thread>

#include "child.h"
#include "files/store_files.h"
#include "support.h"

namespace tokcask {

using namespace test;

namespace fs = std::filesystem;

namespace {

void fill(TokenizedCache& cache, std::uint64_t first, std::uint64_t count) {
  for (std::uint64_t i = first; i < first + count; ++i) cache.put(key(i), {.input_ids = ids(i, 1000)});
  cache.flush();
}

struct stat status_of(const fs::path& file) {
  struct stat status{};
  REQUIRE(::stat(file.c_str(), &status) == 0);
  return status;
}

fs::path lock_directory(const Fixture& f) {
  return f.root() / "locks" / std::to_string(status_of(f.data()).st_ino);
}

lmdb::CleanMark mark_of(const Fixture& f) { return lmdb::CleanMark(lock_directory(f)); }

// Until the tick of the last change has passed.
void settle() { std::this_thread::sleep_for(std::chrono::milliseconds(20)); }

// Inverts the bytes of a page in the middle, which LMDB would stumble over.
void damage(const fs::path& data) {
  const auto pages = static_cast<std::streamoff>(fs::file_size(data)) / 4096;
  std::fstream stream(data, std::ios::binary | std::ios::in | std::ios::out);
  for (std::streamoff page = pages / 2; page < pages / 2 + 4; ++page) {
    stream.seekp(page * 4096);
    stream << std::string(16, '\xff');
  }
}

// All of a file, writable.
class Mapping {
 public:
  explicit Mapping(const fs::path& file) : bytes_(fs::file_size(file)) {
    const int fd = ::open(file.c_str(), O_RDWR | O_CLOEXEC);
    REQUIRE(fd >= 0);
    at_ = static_cast<char*>(::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    ::close(fd);
    REQUIRE(at_ != MAP_FAILED);
  }
  ~Mapping() { ::munmap(at_, bytes_); }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  // Writes what is there already.
  void touch() const {
    volatile char* const first = at_;
    *first = *first;
  }

 private:
  const std::size_t bytes_;
  char* at_ = nullptr;
};

// Where there is no such mark there is nothing to test.
bool has_marks(const Fixture& f) {
  struct statfs system{};
  REQUIRE(::statfs(f.directory().c_str(), &system) == 0);
  if (!lmdb::ctime_tells_changes(static_cast<long>(system.f_type))) {
    MESSAGE("not tried: TMPDIR is on a file system whose ctime does not tell all changes");
    return false;
  }
  // Each change of a file that was looked at has a ctime of its own, so all commits move the mark on.
  const fs::path probe = f.directory() / "probe";
  std::ofstream(probe) << "looked at";
  static_cast<void>(status_of(probe));
  for (int change = 0; change < 10; ++change) {
    std::ofstream(probe) << change;
    if (lmdb::is_settled(status_of(probe))) continue;
    MESSAGE("not tried: this kernel's ctimes are coarse");
    return false;
  }
  return true;
}

}  // namespace

TEST_CASE("clean mark: a store that was closed by its last writer is not walked when it is opened next") {
  const Fixture f;
  if (!has_marks(f)) return;
  for (std::uint64_t run = 0; run < 4; ++run) {
    std::optional cache = f.open();
    fill(*cache, run * 100, 100);
    cache.reset();
    CHECK(files::is_known_good(f.root()));
  }
  f.open().compact();
  CHECK(files::is_known_good(f.root()));
  // One that came from elsewhere is walked.
  const fs::path copy = f.root() / "copy";
  fs::copy_file(f.data(), copy);
  fs::rename(copy, f.data());
  static_cast<void>(f.open());  // makes its lock directory
  CHECK_FALSE(files::is_known_good(f.root()));
  settle();
  static_cast<void>(f.open());
  CHECK(files::is_known_good(f.root()));
  // Which is why: pages that nobody looks at are damaged, and the mark says that they are not.
  fs::copy_file(f.data(), copy);
  damage(f.data());
  CHECK_FALSE(files::is_known_good(f.root()));
  settle();
  mark_of(f).set(status_of(f.data()));
  CHECK(files::is_known_good(f.root()));
  CHECK(files::inspect(f.root()).condition == files::Condition::kBad);
  CHECK_FALSE(files::is_known_good(f.root()));  // a walk that found something takes it away
  fs::rename(copy, f.data());
}

TEST_CASE("clean mark: whatever somebody else does to the file takes it away for good") {
  const Fixture f;
  if (!has_marks(f)) return;
  {
    auto cache = f.open();
    fill(cache, 0, 100);
  }
  REQUIRE(files::is_known_good(f.root()));
  const auto touch = [&] {
    // Writes what is there already, as far as others can tell.
    std::fstream stream(f.data(), std::ios::binary | std::ios::in | std::ios::out);
    const int first = stream.get();
    stream.seekp(0);
    stream.put(static_cast<char>(first));
  };
  SUBCASE("while it is closed") {
    touch();
    CHECK_FALSE(files::is_known_good(f.root()));
    settle();
    std::optional cache = f.open();  // walks
    fill(*cache, 100, 1);
    cache.reset();
    CHECK(files::is_known_good(f.root()));
  }
  SUBCASE("between two commits") {
    {
      auto cache = f.open();
      fill(cache, 100, 1);
      touch();
      fill(cache, 101, 1);
    }
    CHECK_FALSE(files::is_known_good(f.root()));
  }
  SUBCASE("after the last commit") {
    {
      auto cache = f.open();
      fill(cache, 100, 1);
      static_cast<void>(cache.stats());
      touch();
    }
    // Closing may have made a commit for the figures of the run: the mark must not have come back with it.
    CHECK_FALSE(files::is_known_good(f.root()));
  }
  SUBCASE("through a map") {
    Mapping(f.data()).touch();
    CHECK_FALSE(files::is_known_good(f.root()));
  }
  SUBCASE("with its times set back") {
    const struct stat before = status_of(f.data());
    touch();
    const std::array<timespec, 2> times = {before.st_atim, before.st_mtim};
    REQUIRE(::utimensat(AT_FDCWD, f.data().c_str(), times.data(), 0) == 0);
    CHECK_FALSE(files::is_known_good(f.root()));
  }
  SUBCASE("a copy in its place") {
    const fs::path copy = f.root() / "copy";
    fs::copy_file(f.data(), copy);
    fs::rename(copy, f.data());
    CHECK_FALSE(files::is_known_good(f.root()));
  }
}

TEST_CASE("clean mark: a writer that is killed leaves a file that is good, or is walked") {
  const Fixture f;
  if (!has_marks(f)) return;
  const std::uint64_t seed = test_seed();
  INFO("TOKCASK_TEST_SEED=", seed);
  std::mt19937_64 random(seed);
  int known = 0;
  for (std::uint64_t round = 0; round < 20; ++round) {
    Child child([&](const Line&) -> bool {
      auto cache = f.open();
      for (std::uint64_t i = 0;; ++i) fill(cache, round * 1000 + i % 1000, 20);
    });
    std::this_thread::sleep_for(std::chrono::microseconds(5000 + random() % 20000));
    child.signal(SIGKILL);
    siginfo_t end{};
    REQUIRE(::waitid(P_PID, static_cast<id_t>(child.pid()), &end, WEXITED | WNOWAIT) == 0);
    REQUIRE(end.si_code == CLD_KILLED);
    if (!fs::exists(f.data()) || !files::is_known_good(f.root())) continue;
    ++known;
    CHECK(files::inspect(f.root()).condition == files::Condition::kGood);
  }
  MESSAGE(known, " of 20 were killed outside of a commit");
  settle();
  static_cast<void>(f.open());
  CHECK(files::is_known_good(f.root()));
}

TEST_CASE("clean mark: writers in two processes move it on for each other") {
  const Fixture f;
  if (!has_marks(f)) return;
  {
    auto cache = f.open();
    fill(cache, 0, 10);
  }
  std::optional cache = f.open();
  fill(*cache, 10, 10);
  Child child([&](const Line&) {
    auto other = f.open();
    fill(other, 20, 10);
    return true;
  });
  REQUIRE(child.succeeded());
  CHECK(files::is_known_good(f.root()));  // that process has closed it
  fill(*cache, 30, 10);
  cache.reset();
  CHECK(files::is_known_good(f.root()));
}

TEST_CASE("clean mark: one that is damaged, forged or not a file is none") {
  const Fixture f;
  if (!has_marks(f)) return;
  {
    auto cache = f.open();
    fill(cache, 0, 10);
  }
  REQUIRE(files::is_known_good(f.root()));
  const fs::path mark = lock_directory(f) / "clean";
  CHECK((status_of(mark).st_mode & 0777) == 0600);
  SUBCASE("any bit of it") {
    const auto bytes = fs::file_size(mark);
    CHECK(bytes == 80);
    for (std::uintmax_t bit = 0; bit < bytes * 8; ++bit) {
      const auto flip = [&] {
        std::fstream stream(mark, std::ios::binary | std::ios::in | std::ios::out);
        const auto at = static_cast<std::streamoff>(bit / 8);
        stream.seekg(at);
        const int byte = stream.get();
        stream.seekp(at);
        stream.put(static_cast<char>(byte ^ 1 << bit % 8));
      };
      flip();
      CHECK_FALSE(files::is_known_good(f.root()));
      flip();
    }
    CHECK(files::is_known_good(f.root()));
  }
  SUBCASE("cut short") {
    fs::resize_file(mark, 79);
    CHECK_FALSE(files::is_known_good(f.root()));
  }
  SUBCASE("of another user, or one that others may write to") {
    fs::permissions(mark, fs::perms::others_write, fs::perm_options::add);
    CHECK_FALSE(files::is_known_good(f.root()));
  }
  SUBCASE("a link") {
    const fs::path elsewhere = f.directory() / "elsewhere";
    fs::rename(mark, elsewhere);
    fs::create_symlink(elsewhere, mark);
    CHECK_FALSE(files::is_known_good(f.root()));
    std::ofstream(elsewhere) << "untouched";
    static_cast<void>(f.open());
    CHECK(fs::file_size(elsewhere) == 9);
  }
  SUBCASE("a directory") {
    fs::remove(mark);
    fs::create_directory(mark);
    CHECK_FALSE(files::is_known_good(f.root()));
    static_cast<void>(f.open());
    fs::remove(mark);
  }
}

}  // namespace tokcask
