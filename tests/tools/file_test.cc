#include "corpus/file.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <thread>

#include "support.h"

using namespace tokcask;
using namespace tokcask::corpus;
using namespace std::chrono_literals;

namespace {

constexpr std::int64_t kNow = 1'700'000'000'123'456'789;

FileIdentity changed(std::chrono::nanoseconds ago) {
  FileIdentity identity;
  identity.ctime_ns = kNow - ago.count();
  identity.mtime_ns = identity.ctime_ns;
  return identity;
}

FileIdentity changed_whole_second(std::int64_t seconds_ago) {
  FileIdentity identity;
  identity.ctime_ns = (kNow / 1'000'000'000 - seconds_ago) * 1'000'000'000;
  identity.mtime_ns = identity.ctime_ns;
  return identity;
}

}  // namespace

TEST_CASE("file: when a time stamp is old enough to rely on") {
  CHECK(settling(changed(1h), kNow).recency == Recency::kSettled);
  CHECK(settling(changed(20ms), kNow).recency == Recency::kSettled);
  const Settling soon = settling(changed(5ms), kNow);
  CHECK(soon.recency == Recency::kSoon);
  CHECK(soon.wait == 15ms);
  CHECK(settling(changed(0ms), kNow).recency == Recency::kSoon);
  CHECK(settling(changed(-1ns), kNow).recency == Recency::kUnsettled);
  CHECK(settling(changed(-1h), kNow).recency == Recency::kUnsettled);
  // Whole seconds in both stamps look like a file system that keeps no more than that.
  CHECK(settling(changed_whole_second(0), kNow).recency == Recency::kUnsettled);
  CHECK(settling(changed_whole_second(1), kNow).recency == Recency::kUnsettled);
  CHECK(settling(changed_whole_second(3), kNow).recency == Recency::kSettled);
  FileIdentity touched = changed(5ms);
  touched.mtime_ns = 0;
  CHECK(settling(touched, kNow).recency == Recency::kSoon);
}

TEST_CASE("file: waiting is bounded for all files together") {
  SettleBudget budget(30ms);
  const auto start = std::chrono::steady_clock::now();
  CHECK(budget.sleep(20ms));
  CHECK(std::chrono::steady_clock::now() - start >= 20ms);
  CHECK_FALSE(budget.sleep(20ms));
  CHECK(budget.sleep(10ms));
  CHECK_FALSE(budget.sleep(1ns));
}

TEST_CASE("file: a file just written is read only once its time stamp has settled") {
  const test::TempDir dir;
  const std::string path = dir.write("fresh", "content");
  SettleBudget budget;
  const FileContent content = read_file(path, budget);
  REQUIRE(content.status == ReadStatus::kOk);
  CHECK(content.text == "content");
  CHECK(content.sound);
  CHECK(realtime_ns() - content.identity.ctime_ns >= kTimestampTick.count());

  SettleBudget none(0ns);
  dir.write("fresh", "other");
  const FileContent unsettled = read_file(path, none);
  CHECK(unsettled.text == "other");
  CHECK_FALSE(unsettled.sound);
}

TEST_CASE("file: a same-size change with its mtime put back still changes the identity") {
  const test::TempDir dir;
  const std::string path = dir.write("racy", "aaaa");
  for (int round = 0; round < 30; ++round) {
    SettleBudget budget;
    const FileContent before = read_file(path, budget);
    REQUIRE(before.sound);
    dir.write("racy", round % 2 == 0 ? "bbbb" : "aaaa");
    const struct timespec times[2] = {{0, UTIME_OMIT},
                                      {static_cast<time_t>(before.identity.mtime_ns / 1'000'000'000),
                                       static_cast<long>(before.identity.mtime_ns % 1'000'000'000)}};
    REQUIRE(::utimensat(AT_FDCWD, path.c_str(), times, 0) == 0);
    struct stat status;
    REQUIRE(::stat(path.c_str(), &status) == 0);
    const FileIdentity after = identity_of(status);
    REQUIRE(after.mtime_ns == before.identity.mtime_ns);
    REQUIRE(after.size == before.identity.size);
    CHECK(after != before.identity);
  }
}

TEST_CASE("file: a file that keeps changing is returned, but never as sound with a wrong size") {
  const test::TempDir dir;
  const std::string path = dir.write("log", "start");
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC));
    while (!stop && ::write(fd.get(), "line\n", 5) == 5) std::this_thread::sleep_for(1ms);
  });
  for (int round = 0; round < 20; ++round) {
    SettleBudget budget(10ms);
    const FileContent content = read_file(path, budget);
    CHECK(content.status == ReadStatus::kOk);
    if (content.sound) CHECK(content.text.size() == content.identity.size);
  }
  stop = true;
  writer.join();
}

TEST_CASE("file: what is not a readable regular file of bearable size") {
  const test::TempDir dir;
  SettleBudget budget;
  const FileContent absent = read_file(dir / "absent", budget);
  CHECK(absent.status == ReadStatus::kUnreadable);
  CHECK(absent.error == ENOENT);
  CHECK(read_file(dir.path(), budget).status == ReadStatus::kSpecial);
  REQUIRE(::mkfifo((dir / "fifo").c_str(), 0600) == 0);
  CHECK(read_file(dir / "fifo", budget).status == ReadStatus::kSpecial);
  CHECK(read_file("/dev/zero", budget).status == ReadStatus::kSpecial);
  const FileContent broken = read_file("/proc/self/mem", budget);
  CHECK(broken.status == ReadStatus::kUnreadable);
  CHECK(broken.error == EIO);

  dir.write("large", std::string(1000, 'x'));
  CHECK(read_file(dir / "large", budget, 999).status == ReadStatus::kTooLarge);
  CHECK(read_file(dir / "large", budget, 1000).text.size() == 1000);
  CHECK(read_file(dir.write("empty", ""), budget).status == ReadStatus::kOk);
  // Its size is told as 0.
  CHECK_FALSE(read_file("/proc/self/status", budget).text.empty());
}
