// The power goes off at every sync of the script. Of what was not synced nothing is there, or all, or some,
// or the first so many changes, or writes in part. Each time the store opens and is whole, and has what
// flush() had returned for.
//
// The gate looks at one image of each kind at some of the moments; TOKCASK_POWER=N looks at N of each random
// kind at every moment, and tells how many there were.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "calls.h"
#include "directory.h"
#include "disk.h"
#include "script.h"
#include "support.h"

namespace tokcask {

using namespace test;

namespace fs = std::filesystem;

namespace {

constexpr unsigned kPatience = 60;  // seconds

// What the store had at a moment.
struct Mark {
  std::size_t moment = 0;
  Script::Content content;
};

// A script that was run, and what its disk was told.
struct Recording {
  explicit Recording(const fs::path& directory) : disk(directory) {
    marks.push_back({});
    watch_calls(directory);
    log_calls(&disk);
    Script script(directory / "store");
    script.on_durable([&] {
      // The log is full of what this look does, too; none of that is a change of what the store has.
      const std::size_t moment = disk.now();
      marks.push_back({moment, script.content()});
    });
    script.run({});
    log_calls(nullptr);
    errors = script.errors();
    violations = script.violations();
  }
  // What may be under a key after a power cut at `moment`: what the last mark had, or the next.
  [[nodiscard]] std::pair<const Mark*, const Mark*> around(std::size_t moment) const {
    const auto next =
        std::find_if(marks.begin(), marks.end(), [&](const Mark& mark) { return mark.moment > moment; });
    return {&*std::prev(next), next == marks.end() ? &marks.back() : &*next};
  }

  Disk disk;
  std::vector<Mark> marks;
  std::uint64_t errors = 0;
  std::vector<std::string> violations;
};

int version_in(const Script::Content& content, int number) {
  const auto found = content.find(number);
  return found == content.end() ? 0 : found->second;
}

// What is wrong with a store after a power cut, or nothing.
std::string look_at(const fs::path& root, const Mark& before, const Mark& after) {
  Messages messages;
  {
    auto cache = TokenizedCache::open(root, {.on_message = messages.sink()});
    const VerifyReport report = cache.verify();
    if (!report.findings.empty()) return "verify: " + report.findings.front().reason;
    if (report.damaged != 0 || !report.structure_ok) return "verify finds damage";
    for (int number = 0; number < Script::kKeys; ++number) {
      const auto view = cache.get(Script::key_of(number));
      const auto found = view ? Script::version_of(number, *view) : std::optional(0);
      if (!found) return "wrong tokens under key " + std::to_string(number);
      const int old_version = version_in(before.content, number);
      const int new_version = version_in(after.content, number);
      if (*found == old_version || *found == new_version) continue;
      // At the cap the old one may have made room for others.
      if (*found == 0 && old_version != new_version) continue;
      return "version " + std::to_string(*found) + " of key " + std::to_string(number) + " instead of " +
             std::to_string(old_version);
    }
    const Ids tokens = ids(1, 100);
    cache.put(key(1000), {.input_ids = tokens});
    cache.close();
  }
  for (const char* text : {"set-aside", "damaged", "cannot"}) {
    if (messages.count(text) > 0) return "it says: " + messages.all().front();
  }
  return {};
}

enum class Left { kNothing, kAll, kSome, kFirst, kTorn };
constexpr std::array<Left, 5> kKinds = {Left::kNothing, Left::kAll, Left::kSome, Left::kFirst, Left::kTorn};
constexpr std::array<const char*, 5> kKindNames = {"nothing", "all", "some", "the first", "torn"};

// Makes one image and looks at it.
std::string try_image(const Recording& recording, std::size_t moment, Left left, std::uint64_t seed,
                      const FastDirectory& directory) {
  directory.empty();
  std::mt19937_64 random(seed);
  const std::vector<std::size_t> undecided = recording.disk.undecided(moment);
  const std::size_t first = undecided.empty() ? 0 : undecided[random() % undecided.size()];
  const auto fate_of = [&](std::size_t change) {
    switch (left) {
      case Left::kNothing:
        return Fate::kLost;
      case Left::kAll:
        return Fate::kWhole;
      case Left::kSome:
        return (random() & 1) != 0 ? Fate::kWhole : Fate::kLost;
      case Left::kFirst:
        return change <= first ? Fate::kWhole : Fate::kLost;
      case Left::kTorn:
        break;
    }
    const std::uint64_t chance = random() % 4;
    return chance == 0 ? Fate::kWhole : chance == 1 ? Fate::kLost : Fate::kTorn;
  };
  recording.disk.leave(moment, fate_of, seed, directory.path());
  const auto [before, after] = recording.around(moment);
  try {
    return look_at(directory.path() / "store", *before, *after);
  } catch (const std::exception& error) {
    return std::string("it threw: ") + error.what();
  }
}

// In a child: the exit status.
int try_moment(const Recording& recording, std::size_t moment, std::uint64_t of_each, std::uint64_t seed,
               const FastDirectory& directory) {
  alarm(kPatience);
  bool good = true;
  for (const Left left : kKinds) {
    const bool random = left != Left::kNothing && left != Left::kAll;
    for (std::uint64_t i = 0; i < (random ? of_each : 1); ++i) {
      const std::string wrong = try_image(recording, moment, left, seed + i, directory);
      if (wrong.empty()) continue;
      good = false;
      std::fprintf(stderr, "  power cut at moment %zu, %s left, seed %llu: %s\n", moment,
                   kKindNames[static_cast<std::size_t>(left)], static_cast<unsigned long long>(seed + i),
                   wrong.c_str());
    }
  }
  return good ? 0 : 1;
}

}  // namespace

TEST_CASE("after a power cut the store opens, is whole, and has what was flushed") {
  const std::uint64_t seed = test_seed();
  INFO("TOKCASK_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  const FastDirectory recorded;
  const Recording recording(recorded.path());
  REQUIRE(recording.errors == 0);
  REQUIRE(recording.violations.empty());
  REQUIRE(recording.marks.size() > 10);
  const std::vector<std::size_t> moments = recording.disk.moments();
  REQUIRE(moments.size() > 100);

  const char* const given = std::getenv("TOKCASK_POWER");
  const std::uint64_t of_each = given == nullptr ? 1 : std::stoull(given);
  const std::uint64_t one_in = given == nullptr ? 3 : 1;
  const FastDirectory images;
  std::uint64_t tried = 0;
  for (const std::size_t moment : moments) {
    if (random() % one_in != 0) continue;
    const std::uint64_t moment_seed = random();
    std::fflush(nullptr);
    const pid_t child = fork();
    if (child == 0) _exit(try_moment(recording, moment, of_each, moment_seed, images));
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    INFO("moment " << moment);
    CHECK(status == 0);
    tried += 2 + 3 * of_each;
  }
  if (given != nullptr) {
    std::printf("| %zu | %llu |\n", moments.size(), static_cast<unsigned long long>(tried));
  }
}

}  // namespace tokcask
