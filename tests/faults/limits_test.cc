// Limits of the process, permissions, and the clock.
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "calls.h"
#include "child.h"
#include "support.h"

namespace tokcask {

using namespace test;

namespace {

constexpr std::int64_t kHour = 3600LL * 1'000'000'000;

// Whether `act` returns true in a child, which ends with it.
bool holds_in_child(const std::function<bool()>& act) {
  return in_child([&] { return act() ? 0 : 1; }) == 0;
}

void limit(int resource, rlim_t most) {
  const rlimit limits{most, most};
  setrlimit(static_cast<__rlimit_resource>(resource), &limits);
}

void fill(TokenizedCache& cache, std::uint64_t from, std::uint64_t to, std::size_t length = 1000) {
  for (std::uint64_t i = from; i < to; ++i) cache.put(key(i), {.input_ids = ids(i, length)});
}

bool has_all(TokenizedCache& cache, std::uint64_t from, std::uint64_t to, std::size_t length = 1000) {
  for (std::uint64_t i = from; i < to; ++i) {
    const auto view = cache.get(key(i));
    if (!view || copy_of(view->input_ids()) != ids(i, length)) return false;
  }
  return true;
}

// The text of the Error(kIo) that `act` throws, or nothing.
std::string io_error_of(const std::function<void()>& act) {
  try {
    act();
  } catch (const Error& error) {
    return error.code() == Errc::kIo ? error.what() : "";
  }
  return {};
}

bool says(const std::string& text, const char* what) {
  if (text.find(what) != std::string::npos) return true;
  std::fprintf(stderr, "  it says: %s\n", text.c_str());
  return false;
}

}  // namespace

TEST_CASE("a limit on the size of files is an error and no signal, and what is committed stays") {
  const Fixture f;
  {
    auto cache = f.open();
    fill(cache, 0, 50);
  }
  const bool held = holds_in_child([&] {
    limit(RLIMIT_FSIZE, f.file_bytes() + 64 * 1024);
    auto cache = f.open();
    fill(cache, 50, 150);
    if (!says(io_error_of([&] { cache.flush(); }), "limit on the size of files")) return false;
    // Also one that the commit thread meets, and in a new file.
    cache.put(key(1), {.input_ids = ids(1, 500'000)});
    if (!says(io_error_of([&] { cache.flush(); }), "limit on the size of files")) return false;
    return has_all(cache, 2, 150) && !io_error_of([&] { cache.close(); }).empty();
  });
  CHECK(held);
  auto cache = f.open();
  CHECK(has_all(cache, 0, 50));
}

TEST_CASE("the signal of a file limit stays the host's: blocked, pending or handled as it was") {
  const Fixture f;
  f.open().close();
  static volatile sig_atomic_t signals = 0;
  const bool held = holds_in_child([&] {
    signal(SIGXFSZ, [](int) { signals = signals + 1; });
    limit(RLIMIT_FSIZE, f.file_bytes() + 64 * 1024);
    auto cache = f.open();
    fill(cache, 0, 150);
    if (io_error_of([&] { cache.flush(); }).empty() || signals != 0) return false;
    // The host's own still comes.
    raise(SIGXFSZ);
    if (signals != 1) return false;
    // One that it holds back itself, and that is pending, stays so.
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGXFSZ);
    pthread_sigmask(SIG_BLOCK, &set, nullptr);
    raise(SIGXFSZ);
    if (io_error_of([&] { cache.flush(); }).empty()) return false;
    sigset_t pending;
    sigpending(&pending);
    return sigismember(&pending, SIGXFSZ) == 1 && signals == 1;
  });
  CHECK(held);
}

TEST_CASE("a commit thread that meets the file limit keeps the batch, and the host lives") {
  const Fixture f;
  f.open().close();
  const bool held = holds_in_child([&] {
    limit(RLIMIT_FSIZE, f.file_bytes() + 64 * 1024);
    auto cache = f.open({.batch_age = std::chrono::milliseconds(1)});
    fill(cache, 0, 150);
    for (int i = 0; i < 2000 && f.messages.count("limit on the size of files") == 0; ++i) usleep(1000);
    return f.messages.count("limit on the size of files") > 0 && has_all(cache, 0, 150);
  });
  CHECK(held);
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
TEST_CASE("little address space: the map is smaller, and the store works") {
  const Fixture f;
  const bool held = holds_in_child([&] {
    limit(RLIMIT_AS, rlim_t{6} << 30);
    auto cache = f.open();
    fill(cache, 0, 50);
    cache.flush();
    return has_all(cache, 0, 50) && cache.verify().structure_ok;
  });
  CHECK(held);
  auto cache = f.open();
  CHECK(has_all(cache, 0, 50));
}

TEST_CASE("too little address space is an error that names the store") {
  const Fixture f;
  f.open().close();
  const bool held = holds_in_child([&] {
    limit(RLIMIT_AS, rlim_t{1} << 30);
    return says(io_error_of([&] { static_cast<void>(f.open()); }), f.data().c_str());
  });
  CHECK(held);
}
#endif

TEST_CASE("no descriptors left: an error, and it works when there are some again") {
  const Fixture f;
  {
    auto cache = f.open();
    fill(cache, 0, 20);
  }
  const bool held = holds_in_child([&] {
    auto cache = f.open();
    std::vector<int> taken;
    limit(RLIMIT_NOFILE, 64);
    for (int fd = dup(2); fd >= 0; fd = dup(2)) taken.push_back(fd);
    // What is open goes on.
    fill(cache, 20, 40);
    if (!has_all(cache, 0, 40)) return false;
    if (!says(io_error_of([&] { static_cast<void>(TokenizedCache::open(f.directory() / "other")); }),
              "Too many open files")) {
      return false;
    }
    if (!says(io_error_of([&] { cache.compact(); }), "Too many open files")) return false;
    for (const int fd : taken) close(fd);
    cache.compact();
    return has_all(cache, 0, 40);
  });
  CHECK(held);
}

TEST_CASE("permission lost: an error that says so; what is open can be read all the same") {
  if (geteuid() != 0) {
    MESSAGE("not tried: takes root");
    return;
  }
  const Fixture f;
  {
    auto cache = f.open();
    fill(cache, 0, 20);
  }
  constexpr uid_t kNobody = 65534;
  const bool held = holds_in_child([&] {
    auto cache = f.open();
    fill(cache, 0, 1);
    cache.flush();  // opens what writing takes
    if (setgid(kNobody) != 0 || setuid(kNobody) != 0) return false;
    fill(cache, 20, 40);
    // Whether data.mdb is still the file that is open cannot be told any more.
    for (const auto& act :
         std::vector<std::function<void()>>{[&] { cache.flush(); }, [&] { cache.compact(); }}) {
      if (!says(io_error_of(act), "Permission denied")) return false;
    }
    return has_all(cache, 0, 40);
  });
  CHECK(held);
  const bool refused = holds_in_child([&] {
    if (setgid(kNobody) != 0 || setuid(kNobody) != 0) return false;
    return says(io_error_of([&] { static_cast<void>(f.open()); }), "Permission denied") &&
           says(io_error_of([&] { static_cast<void>(f.open({.read_only = true})); }), "Permission denied");
  });
  CHECK(refused);
  auto cache = f.open();
  CHECK(has_all(cache, 0, 20));
}

TEST_CASE("a clock that goes back: the order of eviction is that of use all the same") {
  constexpr std::uint64_t kCap = std::uint64_t{1} << 20;
  for (const std::int64_t back : {kHour, 24 * 40 * kHour, 24 * 400 * kHour}) {
    INFO((back / kHour) << " hours back");
    const Fixture f;
    const bool held = holds_in_child([&] {
      {
        auto cache = f.open({.max_bytes = kCap});
        fill(cache, 0, 100);
        cache.flush();
      }
      shift_clock(-back);
      {
        // Used after the others, though the clock says before. Of another run, so they are not protected.
        auto cache = f.open({.max_bytes = kCap});
        if (!has_all(cache, 0, 50)) return false;
      }
      auto cache = f.open({.max_bytes = kCap});
      fill(cache, 1000, 1050, 2000);
      cache.flush();
      const Stats stats = cache.stats();
      if (stats.run.evicted == 0 || stats.run.declined != 0) {
        std::fprintf(stderr, "  evicted %llu, declined %llu\n",
                     static_cast<unsigned long long>(stats.run.evicted),
                     static_cast<unsigned long long>(stats.run.declined));
        return false;
      }
      std::size_t early = 0;
      std::size_t late = 0;
      for (std::uint64_t i = 0; i < 50; ++i) {
        if (cache.get(key(i))) ++early;
        if (cache.get(key(50 + i))) ++late;
      }
      std::fprintf(stderr, "%s", early >= late ? "" : "  what was used last went first\n");
      // Nothing is older than now.
      return early >= late && cache.prune(std::chrono::hours(1)) == 0 && has_all(cache, 1000, 1050, 2000);
    });
    CHECK(held);
  }
}

}  // namespace tokcask
