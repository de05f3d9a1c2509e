// An environment among others: who has a data file alone, and how much of a file is mapped.
#include "lmdb/environment.h"

#include <doctest/doctest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "child.h"
#include "files/store_files.h"
#include "files/write_lock.h"

namespace tokcask::lmdb {

namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

class Directory {
 public:
  Directory() {
    std::string name = (fs::temp_directory_path() / "tokcask-environment-XXXXXX").string();
    REQUIRE(mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~Directory() { fs::remove_all(path_); }
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;
  [[nodiscard]] const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

std::unique_ptr<Environment> open(const fs::path& root, milliseconds timeout = milliseconds(50),
                                  std::uint64_t budget = 0) {
  return files::open_environment(root, *files::id_of(root / "data.mdb"), Environment::Mode::kReadWrite,
                                 timeout, budget);
}

std::string busy(const std::function<void()>& act) { return test::error_text(Errc::kBusy, act); }

// Whether `act` returns true in a child.
bool in_child(const std::function<bool()>& act) { return test::status_of_child(60, act) == 0; }

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

// Another process that does `act` and then stays for as long as this lives.
class Neighbour {
 public:
  explicit Neighbour(const std::function<std::shared_ptr<void>()>& act) {
    int up[2];
    REQUIRE(pipe(up) == 0);
    std::fflush(nullptr);
    pid_ = fork();
    if (pid_ == 0) {
      const std::shared_ptr<void> kept = act();
      if (write(up[1], "x", 1) == 1) pause();
      _exit(0);
    }
    char byte = 0;
    REQUIRE(read(up[0], &byte, 1) == 1);
    close(up[0]);
    close(up[1]);
  }
  ~Neighbour() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  Neighbour(const Neighbour&) = delete;
  Neighbour& operator=(const Neighbour&) = delete;
  [[nodiscard]] std::string name() const { return "process " + std::to_string(pid_); }

 private:
  pid_t pid_ = -1;
};

}  // namespace

TEST_CASE("alone: not while others have the file open, who are named; then others wait for a limited time") {
  const Directory d;
  files::create(d.path());
  const auto environment = open(d.path());
  {
    const Neighbour neighbour([&] { return std::shared_ptr<void>(open(d.path())); });
    CHECK_FALSE(static_cast<bool>(environment->alone()));
    const std::string why = environment->not_alone("compacted").what();
    CHECK(has(why, "cannot be compacted while others have it open: " + neighbour.name()));
  }
  {
    const Alone alone = environment->alone();
    REQUIRE(static_cast<bool>(alone));
    CHECK(in_child([&] {
      const auto began = std::chrono::steady_clock::now();
      const std::string why = busy([&] { static_cast<void>(open(d.path(), milliseconds(100))); });
      const auto took = std::chrono::steady_clock::now() - began;
      return has(why, "is being compacted or repaired by process " + std::to_string(getppid())) &&
             took >= milliseconds(100) && took < std::chrono::seconds(10);
    }));
    // What has it alone reads and writes.
    const ReadTransaction snapshot(*environment);
    WriteTransaction(*environment).commit();
  }
  CHECK(in_child([&] { return open(d.path()) != nullptr; }));
  // Still claimed by this one after that.
  CHECK(in_child([&] { return !Alone(*std::make_unique<DataClaim>(d.path() / "data.mdb")); }));
}

TEST_CASE("alone: a file that LMDB must not open, and one that waits gets it afterwards") {
  const Directory d;
  files::create(d.path());
  DataClaim claim(d.path() / "data.mdb");
  {
    const Neighbour neighbour([&] { return std::shared_ptr<void>(open(d.path())); });
    CHECK_FALSE(static_cast<bool>(Alone(claim)));
    CHECK(has(claim.not_alone("repaired").what(), neighbour.name()));
    CHECK(claim.others().size() == 1);
  }
  CHECK(claim.others().empty());
  std::thread waiting;
  std::unique_ptr<Environment> opened;
  {
    const Alone alone(claim);
    REQUIRE(static_cast<bool>(alone));
    CHECK_FALSE(busy([&] { static_cast<void>(open(d.path())); }).empty());
    waiting = std::thread([&] { opened = open(d.path(), milliseconds(20'000)); });
    std::this_thread::sleep_for(milliseconds(30));
  }
  waiting.join();
  CHECK(opened);
}

TEST_CASE("a reader without a lock file: not beside others, and nobody writes beside it") {
  const Directory d;
  files::create(d.path());
  const fs::path data = d.path() / "data.mdb";
  {
    const auto environment = open(d.path());
    DataClaim claim(data);
    CHECK(has(busy([&] { claim.claim_without_lock_file(milliseconds(10)); }), "read-only mount"));
  }
  DataClaim claim(data);
  claim.claim_without_lock_file(milliseconds(10));
  DataClaim(data).claim_without_lock_file(milliseconds(10));  // any number of them
  const auto environment = open(d.path());
  const ReadTransaction snapshot(*environment);
  const std::string why = busy([&] { const WriteTransaction writing(*environment); });
  CHECK(has(why, "read-only mount"));
  CHECK(has(why, "process " + std::to_string(getpid())));
  CHECK_FALSE(static_cast<bool>(environment->alone()));
}

TEST_CASE("the map: so large that the file has room, so small that a process can have hundreds of stores") {
  constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;
  CHECK(Environment::map_bytes_for(0) == 64 * kGiB);
  CHECK(Environment::map_bytes_for(16 * kGiB) == 64 * kGiB);
  CHECK(Environment::map_bytes_for(17 * kGiB) == 128 * kGiB);
  CHECK(Environment::map_bytes_for(std::uint64_t{1} << 40) == Environment::kMostMapBytes);
  CHECK(Environment::map_bytes_for(~std::uint64_t{0}) == Environment::kMostMapBytes);
  const Directory d;
  constexpr int kStores = 300;
  fs::create_directory(d.path() / "0");
  files::create(d.path() / "0");
  for (int i = 1; i < kStores; ++i) {
    fs::create_directory(d.path() / std::to_string(i));
    fs::copy_file(d.path() / "0" / "data.mdb", d.path() / std::to_string(i) / "data.mdb");
  }
  std::vector<std::unique_ptr<Environment>> all;
  for (int i = 0; i < kStores; ++i) {
    all.push_back(open(d.path() / std::to_string(i)));
    REQUIRE(all.back()->map_bytes() == 64 * kGiB);
  }
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
TEST_CASE("the map: where address space is short, smaller, and who asks is told") {
  const Directory d;
  files::create(d.path());
  CHECK(in_child([&] {
    const rlimit limits{rlim_t{8} << 30, rlim_t{8} << 30};
    setrlimit(RLIMIT_AS, &limits);
    const auto environment = open(d.path());
    WriteTransaction(*environment).commit();
    return environment->map_bytes() >= std::uint64_t{4} << 30 && environment->map_bytes() < limits.rlim_cur;
  }));
}
#endif

TEST_CASE(
    "the write lock: closing another descriptor of its file frees nothing; a file that was replaced is "
    "noticed") {
  const Directory d;
  const fs::path file = d.path() / "write.lock";
  const auto is_busy = [&] {
    return in_child([&] {
      WriteLock lock(file);
      return !busy([&] { const auto hold = lock.acquire(milliseconds(1)); }).empty();
    });
  };
  WriteLock lock(file);
  {
    const WriteLock::Hold hold = lock.acquire(milliseconds(1));
    fclose(fopen(file.c_str(), "r"));
    CHECK(is_busy());
    CHECK(hold.still_held());
    fs::remove(file);
    CHECK_FALSE(hold.still_held());
    CHECK_FALSE(is_busy());  // another file
    CHECK_FALSE(hold.still_held());
  }
  // It locks the file that has the name now, so it and the others exclude each other again.
  const WriteLock::Hold hold = lock.acquire(milliseconds(100));
  CHECK(hold.still_held());
  CHECK(is_busy());
}

TEST_CASE("the write lock: a child of its holder keeps it from nobody") {
  const Directory d;
  const fs::path file = d.path() / "write.lock";
  const Neighbour neighbour([&] {
    // Its own parent: holds, forks and ends.
    std::fflush(nullptr);
    const pid_t holder = fork();
    if (holder == 0) {
      WriteLock lock(file);
      const WriteLock::Hold hold = lock.acquire(milliseconds(1));
      if (fork() == 0) {
        sleep(20);
        _exit(0);
      }
      _exit(0);
    }
    waitpid(holder, nullptr, 0);
    return std::shared_ptr<void>();
  });
  WriteLock lock(file);
  CHECK(lock.acquire(milliseconds(1)).still_held());
}

}  // namespace tokcask::lmdb
