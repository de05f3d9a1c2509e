// Every kind of call fails, the first time it is made, the second time, and so on through the script: once,
// or from then on.
//
// The gate tries a few dozen places of each kind, other ones each time. TOKCASK_FAULTS=N tries N of each, and
// TOKCASK_FAULTS=all every one; both tell what came of it. TOKCASK_FAULT=N goes one course in this process,
// for a debugger; -tc names the kind.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <string>

#include "calls.h"
#include "directory.h"
#include "script.h"
#include "support.h"

namespace tokcask {

using namespace test;

namespace {

constexpr unsigned kPatience = 60;  // seconds
constexpr int kViolated = 1;
// Else the exit status is a sum of these.
constexpr int kFailed = 2;  // a call did
constexpr int kThrew = 4;
constexpr int kOutOfMemory = 8;

// How a script goes that meets a failure.
struct Course {
  Failure failure;
  int more_steps = 0;       // after the one in which it failed
  bool leave_open = false;  // the store is looked at by another process while this one has it open
};

bool tell_violations(const Script& script) {
  for (const std::string& text : script.violations()) std::fprintf(stderr, "  %s\n", text.c_str());
  return !script.violations().empty();
}

int status_of(pid_t pid) {
  int status = 0;
  return waitpid(pid, &status, 0) == pid ? status : -1;
}

// In a child: the exit status.
int follow(const Course& course, const std::filesystem::path& directory) {
  alarm(kPatience);
  watch_calls(directory);
  arm_calls(course.failure);
  Script script(directory / "store", course.failure.call == Call::kAllocate);
  int more = 0;
  script.run([&] { return calls_failed() > 0 && more++ >= course.more_steps; });
  const int outcome = (calls_failed() > 0 ? kFailed : 0) + (script.errors() > 0 ? kThrew : 0) +
                      (script.out_of_memory() > 0 ? kOutOfMemory : 0);
  disarm_calls();
  // What is pending was kept, and can be committed now, unless LMDB has given up.
  const auto failure = script.flush();
  if (failure && failure->find("open it again") == std::string::npos) {
    std::fprintf(stderr, "  afterwards flush() throws: %s\n", failure->c_str());
    return kViolated;
  }
  if (!course.leave_open) script.close();
  if (tell_violations(script)) return kViolated;
  const pid_t checker = fork();
  if (checker == 0) {
    alarm(kPatience);
    script.check_store();
    _exit(tell_violations(script) ? kViolated : 0);
  }
  return status_of(checker) == 0 ? outcome : kViolated;
}

std::string text_of(const Course& course) {
  const Failure& failure = course.failure;
  return std::string(name_of(failure.call)) + " call " + std::to_string(failure.nth) +
         (failure.from_then_on ? " and all after it" : "") + (failure.half ? " does half" : "") + ", errno " +
         std::to_string(failure.error) + ", " + std::to_string(course.more_steps) + " more steps" +
         (course.leave_open ? ", left open" : "");
}

struct Tally {
  std::uint64_t tried = 0;
  std::uint64_t failed = 0;  // the call was made, and failed
  std::uint64_t threw = 0;
  std::uint64_t out_of_memory = 0;
  std::uint64_t bad = 0;
};

void try_course(const Course& course, const FastDirectory& directory, Tally& tally) {
  directory.empty();
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) _exit(follow(course, directory.path()));
  const int status = status_of(child);
  const int code = WIFEXITED(status) ? WEXITSTATUS(status) : kViolated;
  ++tally.tried;
  INFO(text_of(course));
  if (WIFSIGNALED(status)) FAIL_CHECK("it ended with signal " << WTERMSIG(status));
  CHECK(code != kViolated);
  if (code == kViolated) {
    ++tally.bad;
    return;
  }
  if ((code & kFailed) != 0) ++tally.failed;
  if ((code & kThrew) != 0) ++tally.threw;
  if ((code & kOutOfMemory) != 0) ++tally.out_of_memory;
}

// How many calls of each kind the script makes when none fails.
std::array<std::uint64_t, kCalls> count_calls(const FastDirectory& directory) {
  std::array<std::uint64_t, kCalls> counts{};
  watch_calls(directory.path());
  // Twice, because libraries prepare themselves when they are first used.
  Script(directory.path() / "store").run({});
  directory.empty();
  Script script(directory.path() / "store");
  arm_calls(std::nullopt);
  script.run({});
  for (std::size_t i = 0; i < kCalls; ++i) counts[i] = calls_made(static_cast<Call>(i));
  disarm_calls();
  CHECK(script.errors() == 0);
  script.check_store();
  CHECK_FALSE(tell_violations(script));
  return counts;
}

std::uint64_t wanted_of_each(std::uint64_t in_the_gate) {
  const char* const given = std::getenv("TOKCASK_FAULTS");
  if (given == nullptr) return in_the_gate;
  if (std::string_view(given) == "all") return std::numeric_limits<std::uint64_t>::max();
  return std::stoull(given);
}

// Tries `wanted` of `there` places, spread over all.
void try_places(Failure failure, std::uint64_t there, std::uint64_t wanted, std::mt19937_64& random) {
  const FastDirectory directory;
  wanted = std::min(wanted, there);
  Tally tally;
  for (std::uint64_t i = 0; i < wanted && tally.bad < 20; ++i) {
    const std::uint64_t from = i * there / wanted;
    const std::uint64_t to = (i + 1) * there / wanted;
    failure.nth = 1 + from + random() % (to - from);
    const auto chance = static_cast<unsigned>(random());
    try_course({failure, static_cast<int>(chance % 3), (chance & 8) != 0}, directory, tally);
  }
  if (std::getenv("TOKCASK_FAULTS") == nullptr) return;
  std::printf("| %s%s%s | %d | %llu | %llu | %llu | %llu | %llu | %llu |\n", name_of(failure.call).data(),
              failure.from_then_on ? ", all from then on" : "", failure.half ? ", half" : "", failure.error,
              static_cast<unsigned long long>(there), static_cast<unsigned long long>(tally.tried),
              static_cast<unsigned long long>(tally.failed), static_cast<unsigned long long>(tally.threw),
              static_cast<unsigned long long>(tally.out_of_memory),
              static_cast<unsigned long long>(tally.bad));
  std::fflush(stdout);
}

void try_call(Call call, std::uint64_t in_the_gate) {
  if (const char* const one = std::getenv("TOKCASK_FAULT")) {
    const FastDirectory directory;
    static_cast<void>(count_calls(directory));  // as the courses of the others come after that
    directory.empty();
    const Course course{{.call = call, .nth = std::stoull(one), .error = usual_error_of(call)}};
    MESSAGE(text_of(course));
    CHECK(follow(course, directory.path()) != kViolated);
    return;
  }
  const std::uint64_t seed = test_seed();
  INFO("TOKCASK_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  const FastDirectory directory;
  const std::uint64_t there = count_calls(directory)[static_cast<std::size_t>(call)];
  REQUIRE(there > 0);
  const std::uint64_t wanted = wanted_of_each(in_the_gate);
  Failure failure{.call = call, .error = usual_error_of(call)};
  try_places(failure, there, wanted, random);
  failure.from_then_on = true;
  try_places(failure, there, std::max<std::uint64_t>(wanted / 4, 1), random);
  if (call != Call::kWrite) return;
  failure = {.call = call, .half = true};
  try_places(failure, there, wanted, random);
  failure = {.call = call, .error = EIO};
  try_places(failure, there, wanted, random);
}

}  // namespace

TEST_CASE("calls of LMDB, of libstdc++ and of the library come through the program's own") {
  const FastDirectory directory;
  const auto counts = count_calls(directory);
  for (std::size_t i = 0; i < kCalls; ++i) {
    INFO(name_of(static_cast<Call>(i)));
    if (kMallocIsOurs || static_cast<Call>(i) != Call::kMemory) CHECK(counts[i] > 0);
  }
}

TEST_CASE("open fails") { try_call(Call::kOpen, 12); }
TEST_CASE("read fails") { try_call(Call::kRead, 8); }
TEST_CASE("write fails, or writes half") { try_call(Call::kWrite, 10); }
TEST_CASE("sync fails") { try_call(Call::kSync, 12); }
TEST_CASE("allocating disk space fails") { try_call(Call::kAllocate, 12); }
TEST_CASE("mapping fails") { try_call(Call::kMap, 8); }
TEST_CASE("making, renaming or removing a name fails") { try_call(Call::kName, 12); }
TEST_CASE("looking at a file fails") { try_call(Call::kLook, 12); }
TEST_CASE("locking fails") { try_call(Call::kLock, 8); }
TEST_CASE("starting a thread fails") { try_call(Call::kThread, 4); }
TEST_CASE("memory runs out") {
  if (kMallocIsOurs) try_call(Call::kMemory, 60);
}

}  // namespace tokcask
