// Random damage to good files. What the walker lets pass, LMDB must read to the end without a crash, a hang
// or an error, and find each key and each inline value where it was; and it must be able to write to it.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>

#include "lmdb/walker.h"
#include "support.h"

using namespace tokcask::lmdb;
using namespace tokcask::lmdb::layout;
using namespace tokcask::lmdb::test;

namespace {

constexpr unsigned kFilesPerKind = 3;
#if defined(__SANITIZE_ADDRESS__)
constexpr unsigned kDamagesPerFile = 40;  // which takes a minute there
#else
constexpr unsigned kDamagesPerFile = 130;
#endif

// A good file, and what LMDB finds in it.
struct Subject {
  File file;
  Anatomy where;
  Listing newest;
  Listing previous;  // the snapshot before
};

template <class T>
T get(const File& file, std::size_t at) {
  return load<T>(file.data() + at);
}
template <class T>
void set(File& file, std::size_t at, const T& value) {
  std::memcpy(file.data() + at, &value, sizeof value);
}
template <class T>
const T& one_of(Random& random, const std::vector<T>& things) {
  return things.at(below(random, things.size()));
}

Subject make_subject(Random& random, const std::string& path) {
  const Store store;
  churn(store.env(), random,
        {.transactions = 8 + static_cast<unsigned>(below(random, 20)), .operations = 40});
  Subject subject{.file = store.file(), .where = {}, .newest = list(store.env()), .previous = {}};
  subject.where = dissect(subject.file);
  File back = subject.file;
  auto meta = get<Meta>(back, subject.where.meta);
  meta.txnid -= 2;
  set(back, subject.where.meta, meta);
  subject.previous = list(path, back);
  return subject;
}

// The snapshot that LMDB opens. One of the two transaction numbers may be damaged so that they still follow
// each other, the wrong way round: the snapshot before the last is whole and goes through.
const Listing& expected(const Subject& subject, const File& damaged) {
  const bool newest =
      get<Meta>(damaged, subject.where.meta).txnid > get<Meta>(damaged, subject.where.older_meta).txnid;
  return newest ? subject.newest : subject.previous;
}

struct Outcome {
  unsigned damaged = 0;
  unsigned found = 0;
};

// Calls `damage` (File&, const Subject&, Random&) for many copies of several files.
template <class Damage>
Outcome inflict(Damage&& damage) {
  const std::uint64_t seed = test_seed();
  INFO("TOKCASK_TEST_SEED=", seed);
  Random random(seed);
  const TemporaryDirectory directory;
  const std::string path = directory.path() + "/damaged.mdb";
  Outcome outcome;
  for (unsigned i = 0; i < kFilesPerKind; ++i) {
    const Subject subject = make_subject(random, path);
    REQUIRE(walk(subject.file).ok);
    REQUIRE_FALSE(subject.where.children.empty());
    REQUIRE_FALSE(subject.where.overflow_nodes.empty());
    REQUIRE_FALSE(subject.where.free_lists.empty());
    REQUIRE(read_with_lmdb(path, subject.file, subject.newest).empty());
    for (unsigned n = 0; n < kDamagesPerFile; ++n) {
      INFO("file ", i, ", damage ", n);
      File damaged = subject.file;
      damage(damaged, subject, random);
      if (damaged == subject.file) continue;
      ++outcome.damaged;
      const WalkReport report = walk(damaged);
      CHECK(report.ok == (report.finding_count == 0));
      CHECK(report.findings.size() == std::min<std::size_t>(report.finding_count, WalkReport::kMaxFindings));
      if (!report.ok) {
        ++outcome.found;
        continue;
      }
      const std::string problem = read_with_lmdb(path, damaged, expected(subject, damaged));
      CHECK_MESSAGE(problem.empty(), problem);
    }
  }
  return outcome;
}

void flip_bit(File& file, std::size_t at, Random& random) {
  file[at] ^= static_cast<std::byte>(1U << below(random, 8));
}

void overwrite(File& file, std::size_t at, Random& random) {
  const std::size_t end = std::min(file.size(), at + 1 + below(random, 16));
  for (; at < end; ++at) file[at] = static_cast<std::byte>(below(random, 256));
}

// A byte that LMDB takes structure from, or any byte of a tree page.
std::size_t structural_byte(const Subject& subject, Random& random) {
  const File& file = subject.file;
  const Anatomy& where = subject.where;
  const std::size_t page = one_of(random, where.tree_pages());
  const std::size_t entry = one_of(random, where.entries);
  switch (below(random, 7)) {
    case 0:
      return below(random, 2) * where.page_bytes + below(random, sizeof(PageHeader) + sizeof(Meta));
    case 1:
      return one_of(random, where.overflows) + below(random, sizeof(PageHeader));
    case 2:
      return one_of(random, where.databases) + below(random, sizeof(Database));
    case 3:
      return one_of(random, where.children) + below(random, sizeof(NodeHeader));
    case 4:
      return entry + below(random, sizeof(NodeHeader) + get<NodeHeader>(file, entry).key_bytes);
    case 5:
      return page + below(random, get<PageHeader>(file, page).lower);
    default:
      return page + below(random, where.page_bytes);
  }
}

// Changes an integer a little, or to something extreme.
template <class T>
void nudge(File& file, std::size_t at, Random& random) {
  const T value = get<T>(file, at);
  const T changes[] = {static_cast<T>(value + 1),
                       static_cast<T>(value - 1),
                       static_cast<T>(value + 2),
                       static_cast<T>(value - 2),
                       static_cast<T>(value + 8),
                       static_cast<T>(value - 8),
                       static_cast<T>(0),
                       static_cast<T>(~T{0}),
                       static_cast<T>(value ^ static_cast<T>(T{1} << below(random, 8 * sizeof(T)))),
                       static_cast<T>(random())};
  set(file, at, changes[below(random, std::size(changes))]);
}

// Page `to` becomes a copy of page `from`, with its own number when `renumber`.
void copy_page(File& file, const File& source, std::size_t from, std::size_t to, std::size_t bytes,
               bool renumber) {
  std::memcpy(file.data() + to, source.data() + from, bytes);
  if (renumber) set(file, to + offsetof(PageHeader, number), std::uint64_t{to / bytes});
}

}  // namespace

TEST_CASE("damage: bits of structural pages") {
  const Outcome outcome = inflict([](File& file, const Subject& subject, Random& random) {
    flip_bit(file, structural_byte(subject, random), random);
  });
  CHECK(outcome.found > 0);
}

TEST_CASE("damage: overwritten bytes of structural pages") {
  const Outcome outcome = inflict([](File& file, const Subject& subject, Random& random) {
    overwrite(file, structural_byte(subject, random), random);
  });
  CHECK(outcome.found > 0);
}

TEST_CASE("damage: bits and bytes anywhere") {
  inflict([](File& file, const Subject&, Random& random) {
    const std::size_t at = below(random, file.size());
    if (below(random, 2) == 0)
      flip_bit(file, at, random);
    else
      overwrite(file, at, random);
  });
}

TEST_CASE("damage: a whole page, or the rest of the file, of zeros or noise") {
  inflict([](File& file, const Subject& subject, Random& random) {
    const std::size_t page = below(random, file.size() / subject.where.page_bytes) * subject.where.page_bytes;
    const std::size_t end = below(random, 4) == 0 ? file.size() : page + subject.where.page_bytes;
    const bool noise = below(random, 2) == 0;
    for (std::size_t at = page; at < end; ++at)
      file[at] = static_cast<std::byte>(noise ? below(random, 256) : 0);
  });
}

TEST_CASE("damage: truncation") {
  const Outcome outcome = inflict([](File& file, const Subject& subject, Random& random) {
    const std::size_t tail = std::min(file.size(), 8 * subject.where.page_bytes);
    file.resize(below(random, 2) == 0 ? below(random, file.size()) : file.size() - 1 - below(random, tail));
  });
  CHECK(outcome.found > 0);
}

TEST_CASE("damage: fields of the meta pages") {
  const Outcome outcome = inflict([](File& file, const Subject& subject, Random& random) {
    const std::size_t meta = below(random, 3) == 0 ? subject.where.older_meta : subject.where.meta;
    const std::size_t field = below(random, sizeof(Meta) / 8) * 8;
    switch (below(random, 3)) {
      case 0:
        return nudge<std::uint64_t>(file, meta + field, random);
      case 1:
        return nudge<std::uint32_t>(file, meta + field + 4 * below(random, 2), random);
      default:
        return nudge<std::uint16_t>(file, meta + field + 2 * below(random, 4), random);
    }
  });
  CHECK(outcome.found > 0);
}

TEST_CASE("damage: the records of databases") {
  inflict([](File& file, const Subject& subject, Random& random) {
    const std::size_t at = one_of(random, subject.where.databases);
    const std::size_t field = below(random, sizeof(Database) / 8) * 8;
    if (below(random, 2) == 0)
      nudge<std::uint64_t>(file, at + field, random);
    else
      nudge<std::uint16_t>(file, at + field + 2 * below(random, 4), random);
  });
}

TEST_CASE("damage: page headers and node offsets") {
  inflict([](File& file, const Subject& subject, Random& random) {
    const std::size_t page = one_of(random, subject.where.tree_pages());
    const std::size_t lower = get<PageHeader>(file, page).lower;
    nudge<std::uint16_t>(file, page + 2 * below(random, lower / 2), random);
  });
}

TEST_CASE("damage: node headers") {
  inflict([](File& file, const Subject& subject, Random& random) {
    const auto& nodes = below(random, 2) == 0 ? subject.where.entries : subject.where.children;
    nudge<std::uint16_t>(file, one_of(random, nodes) + 2 * below(random, 4), random);
  });
}

TEST_CASE("damage: headers and numbers of overflow pages") {
  inflict([](File& file, const Subject& subject, Random& random) {
    if (below(random, 2) == 0) {
      nudge<std::uint16_t>(file, one_of(random, subject.where.overflows) + 2 * below(random, 8), random);
    } else {
      const std::size_t node = one_of(random, subject.where.overflow_nodes);
      nudge<std::uint64_t>(file, node + sizeof(NodeHeader) + get<NodeHeader>(file, node).key_bytes, random);
    }
  });
}

TEST_CASE("damage: the free list") {
  inflict([](File& file, const Subject& subject, Random& random) {
    const std::size_t list = one_of(random, subject.where.free_lists);
    const auto count = get<std::uint64_t>(file, list);
    const std::size_t at = list + 8 * below(random, count + 1);
    if (below(random, 2) == 0)
      nudge<std::uint64_t>(file, at, random);
    else
      set(file, at, 2 + below(random, file.size() / subject.where.page_bytes));
  });
}

TEST_CASE("damage: pages in each other's place") {
  for (const bool renumber : {false, true}) {
    const Outcome outcome = inflict([&](File& file, const Subject& subject, Random& random) {
      std::vector<std::size_t> pages = subject.where.tree_pages();
      pages.insert(pages.end(), subject.where.overflows.begin(), subject.where.overflows.end());
      const std::size_t bytes = subject.where.page_bytes;
      const std::size_t a = one_of(random, pages);
      const std::size_t b = one_of(random, pages);
      copy_page(file, subject.file, a, b, bytes, renumber);
      copy_page(file, subject.file, b, a, bytes, renumber);
    });
    if (!renumber) CHECK(outcome.found == outcome.damaged);
  }
}

TEST_CASE("damage: pages copied over others") {
  for (const bool renumber : {false, true}) {
    const Outcome outcome = inflict([&](File& file, const Subject& subject, Random& random) {
      std::vector<std::size_t> pages = subject.where.tree_pages();
      pages.insert(pages.end(), subject.where.overflows.begin(), subject.where.overflows.end());
      copy_page(file, subject.file, one_of(random, pages), one_of(random, pages), subject.where.page_bytes,
                renumber);
    });
    if (!renumber) CHECK(outcome.found == outcome.damaged);
  }
}

TEST_CASE("damage: crossed references") {
  const Outcome outcome = inflict([](File& file, const Subject& subject, Random& random) {
    const auto& nodes = below(random, 3) == 0 ? subject.where.overflow_nodes : subject.where.children;
    const std::size_t a = one_of(random, nodes);
    const std::size_t b = one_of(random, nodes);
    const auto cross = [&](std::size_t i, std::size_t j, std::size_t bytes) {
      std::swap_ranges(&file[i], &file[i] + bytes, &file[j]);
    };
    if (&nodes == &subject.where.children) {
      cross(a, b, offsetof(NodeHeader, key_bytes));
    } else {
      const auto data = [&](std::size_t node) {
        return node + sizeof(NodeHeader) + get<NodeHeader>(file, node).key_bytes;
      };
      cross(data(a), data(b), sizeof(std::uint64_t));
    }
  });
  CHECK(outcome.found > 0);
}

TEST_CASE("damage: loops, and references to any page") {
  const Outcome outcome = inflict([](File& file, const Subject& subject, Random& random) {
    const auto& where = subject.where;
    const std::size_t child = one_of(random, where.children);
    const std::vector<std::size_t> pages = where.tree_pages();
    const std::uint64_t to = below(random, 2) == 0 ? one_of(random, pages) / where.page_bytes
                                                   : below(random, file.size() / where.page_bytes + 2);
    auto node = get<NodeHeader>(file, child);
    node.low = static_cast<std::uint16_t>(to);
    node.high = static_cast<std::uint16_t>(to >> 16);
    set(file, child, node);
  });
  CHECK(outcome.found == outcome.damaged);
}
