// Files as LMDB makes them, which the walker must call good, and count as LMDB does; and what probe() says.
#include "lmdb/walker.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <filesystem>
#include <thread>

#include "support.h"

using namespace tokcask::lmdb;
using namespace tokcask::lmdb::test;

namespace {

std::string all(const std::vector<std::string>& findings) {
  std::string text;
  for (const std::string& finding : findings) text += finding + '\n';
  return text;
}

// Leaves nothing unaccounted for either: LMDB does not leak.
WalkReport check_agrees(const Store& store, const File& file) {
  const WalkReport report = walk(file);
  const Totals expected = totals(store.env());
  CHECK_MESSAGE(report.ok, all(report.findings));
  CHECK(report.meta_usable);
  CHECK(report.finding_count == report.findings.size());
  CHECK(report.page_bytes == 4096);
  CHECK(report.txnid == expected.txnid);
  CHECK(report.last_page == expected.last_page);
  CHECK(report.tree_pages == expected.tree_pages);
  CHECK(report.overflow_pages == expected.overflow_pages);
  CHECK(report.free_pages == expected.free_pages);
  CHECK(report.entries == expected.entries);
  CHECK(report.leaked_pages == 0);
  return report;
}

WalkReport check_agrees(const Store& store) { return check_agrees(store, store.file()); }

std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }

template <class T>
void set(File& file, std::size_t at, T value) {
  std::memcpy(file.data() + at, &value, sizeof value);
}

// Gives a file of 4 KiB pages larger ones, by moving meta page 1: enough for probe().
File with_page_bytes(const File& file, std::uint32_t page_bytes) {
  File moved(std::size_t{2} * page_bytes);
  std::memcpy(moved.data(), file.data(), 4096);
  std::memcpy(moved.data() + page_bytes, file.data() + 4096, 4096);
  set(moved, 16 + 24, page_bytes);
  set(moved, page_bytes + 16 + 24, page_bytes);
  return moved;
}

}  // namespace

TEST_CASE("walker: an environment that nothing was ever put into") {
  const Store store;
  const WalkReport report = check_agrees(store);
  CHECK(report.txnid == 0);
  CHECK(report.last_page == 1);
}

TEST_CASE("walker: empty databases, one record, none again") {
  const Store store;
  const auto change = [&](bool put) {
    Writer writer(store.env());
    const MDB_dbi records = writer.database("records");
    writer.database("meta");
    if (put) writer.put(records, record_key(1), std::string(48, 'v'));
    if (!put) writer.remove(records, record_key(1));
    writer.commit();
  };
  change(false);
  CHECK(check_agrees(store).entries == 0);
  change(true);
  CHECK(check_agrees(store).entries == 1);
  change(false);
  CHECK(check_agrees(store).entries == 0);
}

TEST_CASE("walker: random histories, after every few transactions") {
  const std::uint64_t seed = test_seed();
  INFO("TOKCASK_TEST_SEED=", seed);
  Random random(seed);
  for (unsigned i = 0; i < 20; ++i) {
    const Store store;
    History history;
    history.transactions = 3;
    history.operations = 1 + static_cast<unsigned>(below(random, 120));
    history.keys = 1 + static_cast<unsigned>(below(random, 600));
    history.largest = below(random, 4) == 0 ? 100000 : 9000;
    history.readers = below(random, 2) == 0;
    for (unsigned step = 0; step < 8; ++step) {
      churn(store.env(), random, history);
      check_agrees(store);
    }
  }
}

TEST_CASE("walker: deep trees, and what is left of them") {
  const Store store;
  std::uint64_t last = 0;
  for (unsigned t = 0; t < 3; ++t) {
    Writer writer(store.env());
    const MDB_dbi records = writer.database("records");
    for (const std::uint64_t end = last + 4000; last < end; ++last) {
      std::string key = record_key(last);
      key.resize(504, 'k');
      writer.put(records, key, std::string(1400, 'v'));
    }
    writer.commit();
    check_agrees(store);
  }
  CHECK(totals(store.env()).depth >= 5);
  Writer writer(store.env());
  const MDB_dbi records = writer.database("records");
  for (std::uint64_t i = 0; i < last; ++i) {
    std::string key = record_key(i);
    key.resize(504, 'k');
    if (i % 7 != 0) writer.remove(records, key);
  }
  writer.commit();
  check_agrees(store);
}

TEST_CASE("walker: values of many overflow pages, and values shrunk where they lie") {
  const Store store;
  Writer writer(store.env());
  const MDB_dbi records = writer.database("records");
  for (std::uint64_t i = 0; i < 40; ++i) writer.put(records, record_key(i), std::string(100000 + 8 * i, 'v'));
  for (std::uint64_t i = 0; i < 40; i += 2) writer.put(records, record_key(i), std::string(8 * i, 's'));
  writer.commit();
  const WalkReport report = check_agrees(store);
  CHECK(report.overflow_pages == 40 * 25);
}

TEST_CASE("walker: the free list itself needs overflow pages") {
  const Store store;
  for (unsigned t = 0; t < 4; ++t) {
    Writer writer(store.env());
    const MDB_dbi records = writer.database("records");
    for (std::uint64_t i = 0; i < 150; ++i) {
      if (t % 2 == 0) writer.put(records, record_key(i), std::string(100000, 'v'));
      if (t % 2 == 1) writer.remove(records, record_key(i));
    }
    writer.commit();
    const WalkReport report = check_agrees(store);
    if (t % 2 == 1) CHECK(report.overflow_pages > 0);
  }
}

TEST_CASE("walker: the free list is in the order of numbers, not of bytes") {
  const Store store;
  Random random(3);
  const History history{.transactions = 1, .operations = 3, .readers = false};
  while (totals(store.env()).txnid < 230) churn(store.env(), random, history);
  MDB_txn* reader = nullptr;
  check(mdb_txn_begin(store.env(), nullptr, MDB_RDONLY, &reader));
  while (totals(store.env()).txnid < 300) churn(store.env(), random, history);
  mdb_txn_abort(reader);
  const WalkReport report = check_agrees(store);
  CHECK(report.free_pages > 70);
}

TEST_CASE("walker: a file may end before its last page, at any byte past the pages in use") {
  const Store store;
  for (std::uint64_t i = 0; i < 4; ++i) {
    Writer writer(store.env());
    const MDB_dbi records = writer.database("records");
    writer.put(records, record_key(i), std::string(48, 'v'));
    // Pages that are allocated and freed in one transaction need not be written.
    const std::string passing = record_key(100 + i);
    writer.put(records, passing, std::string(100000, 'v'));
    writer.remove(records, passing);
    writer.commit();
  }
  File file = store.file();
  const WalkReport report = check_agrees(store, file);
  REQUIRE((report.last_page + 1) * 4096 > file.size());
  file.resize(file.size() + 100, std::byte{1});
  check_agrees(store, file);
}

TEST_CASE("walker: a file that was extended ahead of use") {
  const Store store;
  Random random(7);
  churn(store.env(), random, {});
  REQUIRE(truncate(store.data_path().c_str(), off_t{1} << 31) == 0);
  const std::size_t size = std::filesystem::file_size(store.data_path());
  const int descriptor = open(store.data_path().c_str(), O_RDONLY | O_CLOEXEC);
  void* const map = mmap(nullptr, size, PROT_READ, MAP_SHARED, descriptor, 0);
  close(descriptor);
  REQUIRE(map != MAP_FAILED);
  const WalkReport report = walk({static_cast<const std::byte*>(map), size});
  CHECK_MESSAGE(report.ok, all(report.findings));
  CHECK(report.entries == totals(store.env()).entries);
  munmap(map, size);
}

// Nothing can be said of what it reports; but it must end, and stay within bytes that no others
// follow.
TEST_CASE("walker: bytes that are overwritten meanwhile") {
  const std::uint64_t seed = test_seed();
  INFO("TOKCASK_TEST_SEED=", seed);
  Random random(seed);
  const Store store;
  // So small that from any page the largest size or offset leads past the end.
  churn(store.env(), random, {.transactions = 2, .operations = 8, .largest = 500, .readers = false});
  const File file = store.file();
  const std::size_t size = file.size() / 4096 * 4096;
  constexpr std::size_t kGuard = 1 << 18;
  void* const map = mmap(nullptr, size + kGuard, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  REQUIRE(map != MAP_FAILED);
  REQUIRE(mprotect(static_cast<char*>(map) + size, kGuard, PROT_NONE) == 0);
  auto* const bytes = static_cast<std::byte*>(map);
  std::memcpy(bytes, file.data(), size);
  // Only sizes and offsets are of interest, and only for a moment: a lasting fault would end each walk early.
  std::vector<std::size_t> places = dissect(file).entries;
  for (const std::size_t page : dissect(file).tree_pages()) places.push_back(page + 16);
  std::atomic<bool> done = false;
  std::thread writer([&] {
    while (!done) {
      const std::size_t at = places[below(random, places.size())] + 2 * below(random, 4);
      std::atomic_ref<std::uint16_t> word(*reinterpret_cast<std::uint16_t*>(bytes + at));
      const std::uint16_t good = word.exchange(0xFFFE);
      word = good;
    }
  });
  std::uint64_t findings = 0;
  for (unsigned i = 0; i < 200000; ++i) findings += walk({bytes, size}).finding_count;
  done = true;
  writer.join();
  CHECK(findings > 0);
  CHECK(walk({bytes, size}).ok);
  munmap(map, size + kGuard);
}

TEST_CASE("walker: what is no LMDB file has no usable meta page") {
  for (const std::string& text :
       {std::string(), std::string("{\"entries\": {}}"), std::string(100000, '\0')}) {
    const WalkReport report = walk(bytes_of(text));
    CHECK_FALSE(report.ok);
    CHECK_FALSE(report.meta_usable);
    CHECK(report.finding_count == 2);
    CHECK(report.page_bytes == 0);
  }
}

TEST_CASE("probe: what kind of file this is") {
  const Store store;
  const File file = store.file();
  CHECK(probe({}) == FileKind::kEmpty);
  CHECK(probe(file) == FileKind::kLmdb);
  CHECK(probe(bytes_of("x")) == FileKind::kForeign);
  CHECK(probe(bytes_of(std::string(5000, 'x'))) == FileKind::kForeign);
  CHECK(probe(bytes_of(std::string(5000, '\0'))) == FileKind::kForeign);
  for (std::size_t size = 1; size < 152; ++size) {
    INFO("size ", size);
    CHECK(probe(std::span(file).first(size)) == FileKind::kForeign);
  }
  CHECK(probe(std::span(file).first(152)) == FileKind::kLmdb);

  Random random(test_seed());
  for (unsigned i = 0; i < 200; ++i) {
    File garbage(below(random, 70000));
    for (std::byte& byte : garbage) byte = static_cast<std::byte>(below(random, 256));
    CHECK(probe(garbage) == (garbage.empty() ? FileKind::kEmpty : FileKind::kForeign));
  }
}

TEST_CASE("probe: one good meta page is enough, at any page size") {
  const Store store;
  const File original = store.file();
  for (const std::uint32_t page_bytes : {4096U, 8192U, 16384U, 32768U}) {
    const File file = with_page_bytes(original, page_bytes);
    CHECK(probe(file) == FileKind::kLmdb);
    CHECK(walk(file).ok);
    for (const std::size_t meta : {std::size_t{0}, std::size_t{page_bytes}}) {
      File damaged = file;
      set(damaged, meta + 16, std::uint32_t{0});
      CHECK(probe(damaged) == FileKind::kLmdb);
      const WalkReport report = walk(damaged);
      CHECK_FALSE(report.ok);
      CHECK(report.meta_usable);
      CHECK(report.page_bytes == page_bytes);
    }
  }
}

TEST_CASE("probe: other versions of the format") {
  const Store store;
  File file = store.file();
  for (const std::size_t meta : {std::size_t{0}, std::size_t{4096}}) set(file, meta + 20, std::uint32_t{999});
  CHECK(probe(file) == FileKind::kOtherVersion);
  CHECK_FALSE(walk(file).meta_usable);
  // LMDB 1.0 has a page header that is 8 bytes longer.
  File newer(8192);
  set(newer, 18, std::uint16_t{8});
  set(newer, 24, std::uint32_t{0xBEEFC0DE});
  set(newer, 28, std::uint32_t{2});
  CHECK(probe(newer) == FileKind::kOtherVersion);
}
