// The table of access times and runs, over a file with words in it that nobody wrote.
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>

#include "shm/access_table.h"
#include "target.h"

namespace tokcask::fuzz {
namespace {

using shm::AccessTable;
using shm::RunTable;

constexpr shm::Uuid kUuid{1, 2, 3};
constexpr std::size_t kHeaderWords = 8;
constexpr std::size_t kRunsAt = 4096;
constexpr std::size_t kWordBytes = sizeof(std::uint64_t);
constexpr std::size_t kChangeBytes = 3 + kWordBytes;

// A directory for the life of the program, in memory where that can be.
const std::filesystem::path& directory() {
  struct Directory {
    std::filesystem::path path;
    Directory() {
      std::string name = std::filesystem::is_directory("/dev/shm") ? "/dev/shm/tokcask-fuzz-XXXXXX"
                                                                   : "/tmp/tokcask-fuzz-XXXXXX";
      require(mkdtemp(name.data()) != nullptr, "a directory");
      path = name;
    }
    ~Directory() { std::filesystem::remove_all(path); }
    Directory(const Directory&) = delete;
    Directory& operator=(const Directory&) = delete;
  };
  static const Directory directory;
  return directory.path;
}

// An input is a list of words and their places. Half of the places are in the header or near it.
std::string change(std::size_t word, std::uint64_t value) {
  std::string bytes{static_cast<char>(word), static_cast<char>(word >> 8), static_cast<char>(word >> 16)};
  bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
  return bytes;
}

std::vector<std::string> seeds() {
  const std::size_t runs = kRunsAt / kWordBytes;
  const std::size_t rows = runs + 128 * shm::kMaxMembers / kWordBytes;
  return {"", change(4, ~0ULL), change(5, ~0ULL) + change(7, 1ULL << 40),
          change(runs, 1) + change(runs + 3, 300) + change(rows, 5),
          change(rows, 1ULL << 63) + change(rows + 1, 7) + change(rows + 3, ~0ULL)};
}

void damage(std::string_view input) {
  const int fd = open((directory() / "access.shm").c_str(), O_RDWR | O_CLOEXEC);
  require(fd >= 0, "a table is a file");
  Feed feed(input);
  while (feed.rest().size() >= kChangeBytes) {
    const std::size_t word = (feed.number() | std::size_t{feed.byte()} << 16) % (std::size_t{1} << 17);
    const std::string_view value = feed.take(kWordBytes);
    require(pwrite(fd, value.data(), value.size(), static_cast<off_t>(word * kWordBytes)) == kWordBytes,
            "a word");
  }
  // The rest says how long the file is.
  if (!feed.rest().empty()) require(ftruncate(fd, static_cast<off_t>(feed.number() * 64)) == 0, "a size");
  close(fd);
}

void use(AccessTable& table) {
  for (const std::uint32_t slot : {0U, 600U, 100'000U, 0xffffffffU}) {
    table.touch(slot, table.next_stamp());
    static_cast<void>(table.stamp(slot));
    table.fetch_ahead(slot);
  }
  table.take_dirty([](std::uint64_t, std::span<const std::uint64_t>) {});
  table.grow(1000);
  RunTable& runs = table.runs();
  runs.raise_last_run(3);
  static_cast<void>(runs.oldest_start());
  for (const RunTable::Entry& entry : runs.entries()) {
    require(entry.figures.tokenizer_sha.size() <= 64, "a sha has its size");
    runs.mark_saved(entry.ref, entry.activity, entry.figures.run_id, 1);
    static_cast<void>(runs.join(entry.ref));
  }
  static_cast<void>(runs.join_own());
  if (const auto member = runs.begin(500)) {
    member->counters->hits.fetch_add(1);
    runs.identify(member->run, "sha", 1);
    runs.end_if_last(*member, 600);
    runs.leave(*member, 600);
  }
}

void run(std::string_view input) {
  std::filesystem::remove(directory() / "access.shm");
  use(*AccessTable::open(directory(), kUuid));
  damage(input);
  const auto table = AccessTable::open(directory(), kUuid);
  require(table->why_private().empty(), "a damaged table is used, or made anew");
  use(*table);
}

void mutate(std::string& bytes, std::size_t most, Random& random) {
  const std::size_t region = below(random, 3);
  const std::size_t word = region == 0   ? below(random, kHeaderWords)
                           : region == 1 ? kRunsAt / kWordBytes + below(random, RunTable::kBytes / kWordBytes)
                                         : below(random, std::size_t{1} << 17);
  const std::string one = change(word, below(random, 2) == 0 ? random() : random() >> below(random, 64));
  if (bytes.size() + one.size() <= most && below(random, 4) != 0) {
    bytes.insert(0, one);
  } else {
    bytes = one;
  }
}

}  // namespace

const Target shm_target{.name = "shm", .seeds = seeds, .run = run, .mutate = mutate, .rounds = 600};

}  // namespace tokcask::fuzz
