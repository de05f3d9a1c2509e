// Processes that open and close one store at the same time. LMDB 0.9.26 to 0.9.31 destroys the mutexes in the
// lock file when it is the last to close it, also under the hands of one that opens it at that moment: then
// there is an error where none is due, or a process that hangs. TOKCASK_TEST_OPENS=20000 makes it a long
// test.
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <string>

#include "child.h"
#include "files/store_files.h"
#include "support.h"

namespace tokcask {

using namespace test;
namespace fs = std::filesystem;

namespace {

// The sanitizer of undefined behaviour looks at objects by way of a pipe, so it needs descriptors itself.
#if defined(__SANITIZE_ADDRESS__)
constexpr bool kDescriptorsMayEnd = false;
#else
constexpr bool kDescriptorsMayEnd = true;
#endif

std::uint64_t opens() {
  const char* const given = std::getenv("TOKCASK_TEST_OPENS");
  return given == nullptr ? 1000 : std::strtoull(given, nullptr, 0);
}

// So few that opening a store fails behind LMDB's lock file, or before it, or does not fail.
void leave_descriptors(rlim_t count) {
  const int next = dup(STDERR_FILENO);
  close(next);
  struct rlimit limit{};
  REQUIRE(getrlimit(RLIMIT_NOFILE, &limit) == 0);
  limit.rlim_cur = static_cast<rlim_t>(next) + count;
  REQUIRE(setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

fs::path lock_file(const Fixture& f) {
  return f.root() / "locks" / std::to_string(files::id_of(f.data())->second) / "lock.mdb";
}

}  // namespace

TEST_CASE("processes open and close a store as fast as they can, and some fail to: nobody is disturbed") {
  Fixture f;
  f.open().put(key(1), {.input_ids = ids(1, 100)});
  const std::uint64_t count = opens();
  const auto use = [&](bool writes) {
    return [&, writes](const Line&) {
      for (std::uint64_t i = 0; i < count; ++i) {
        alarm(120);
        const bool now = writes && i % 8 == 0;
        auto cache = TokenizedCache::open(f.root(), {.read_only = !now});
        if (copy_of(cache.get(key(1))) != ids(1, 100)) return false;
        if (now) cache.put(key(i % 100), {.input_ids = ids(i % 100, 100)});
        cache.close();
      }
      return true;
    };
  };
  const auto fail = [&](const Line&) {
    if (!kDescriptorsMayEnd) return true;
    std::uint64_t failed = 0;
    for (std::uint64_t i = 0; i < count; ++i) {
      alarm(120);
      leave_descriptors(2 + i % 4);
      try {
        static_cast<void>(TokenizedCache::open(f.root(), {.read_only = true}).get(key(1)));
      } catch (const Error& error) {
        if (std::string(error.what()).find("Too many open files") == std::string::npos) throw;
        ++failed;
      }
    }
    return failed >= count / 2;
  };
  // Few, so that now and then one is the last.
  Child writer(use(true));
  Child reader(use(false));
  Child failing(fail);
  CHECK(writer.succeeded());
  CHECK(reader.succeeded());
  CHECK(failing.succeeded());
}

TEST_CASE("a process hangs while it opens a store: others wait for it as long as they were asked to") {
  Fixture f;
  f.open().put(key(1), {.input_ids = ids(1, 100)});
  Child hanging([&](const Line& line) {
    const int fd = open(lock_file(f).c_str(), O_RDWR | O_CLOEXEC);
    struct flock lock{};
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    lock.l_start = std::numeric_limits<off_t>::max() - 1;
    lock.l_len = 1;
    line.tell(fcntl(fd, F_OFD_SETLK, &lock) == 0 ? 1 : 0);
    line.hear();
    return true;
  });
  REQUIRE(hanging.line().hear() == 1);
  for (const bool read_only : {false, true}) {
    const std::string why = error_of(Errc::kBusy, [&] {
      static_cast<void>(f.open({.read_only = read_only, .lock_timeout = std::chrono::milliseconds(50)}));
    });
    CHECK(why.find("another process is opening it; waited 0.1 s") != std::string::npos);
  }
  hanging.signal(SIGKILL);
  CHECK(f.open().get(key(1)));
}

}  // namespace tokcask
