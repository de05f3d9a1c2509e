// What the walker lets pass, LMDB must be able to read to the end, in this process.
#include <lmdb.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "../lmdb/support.h"
#include "lmdb/walker.h"
#include "target.h"

namespace tokcask::fuzz {
namespace {

using namespace lmdb::layout;

constexpr std::size_t kPageBytes = 4096;

std::string text_of(const lmdb::test::File& file) {
  return {reinterpret_cast<const char*>(file.data()), file.size()};
}

std::vector<std::string> seeds() {
  std::vector<std::string> seeds;
  Random random(1);
  for (const auto& [transactions, keys] : {std::pair(0U, 1U), {1U, 4U}, {4U, 30U}, {12U, 60U}, {8U, 400U}}) {
    const lmdb::test::Store store;
    lmdb::test::churn(store.env(), random,
                      {.transactions = transactions, .operations = 12, .keys = keys, .largest = 5000});
    seeds.push_back(text_of(store.file()));
  }
  return seeds;
}

void check(int code) { require(code == MDB_SUCCESS, mdb_strerror(code)); }

// Reads each entry both ways; returns how many there are.
std::size_t read_all(MDB_txn* txn, MDB_dbi database) {
  std::size_t entries = 0;
  unsigned sum = 0;
  MDB_cursor* cursor = nullptr;
  check(mdb_cursor_open(txn, database, &cursor));
  MDB_val key;
  MDB_val value;
  int code = MDB_SUCCESS;
  for (; (code = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == MDB_SUCCESS; ++entries) {
    for (const MDB_val& part : {key, value}) {
      for (std::size_t i = 0; i < part.mv_size; ++i)
        sum += static_cast<const unsigned char*>(part.mv_data)[i];
    }
    MDB_val found;
    check(mdb_get(txn, database, &key, &found));
    require(found.mv_data == value.mv_data, "LMDB finds a value by its key");
  }
  require(code == MDB_NOTFOUND, "LMDB reads to the end");
  std::size_t back = 0;
  for (code = mdb_cursor_get(cursor, &key, &value, MDB_LAST); code == MDB_SUCCESS; ++back) {
    code = mdb_cursor_get(cursor, &key, &value, MDB_PREV);
  }
  require(code == MDB_NOTFOUND && back == entries, "LMDB reads as many on the way back");
  mdb_cursor_close(cursor);
  volatile unsigned keep = sum;
  static_cast<void>(keep);
  return entries;
}

// Of all named databases. One with a zero byte in its name cannot be opened; then it is not read.
void read_with_lmdb(std::string_view bytes, std::uint64_t entries) {
  const int fd = memfd_create("walked", MFD_CLOEXEC);
  require(fd >= 0 && write(fd, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()), "a file");
  MDB_env* env = nullptr;
  MDB_txn* txn = nullptr;
  MDB_dbi main = 0;
  MDB_cursor* cursor = nullptr;
  check(mdb_env_create(&env));
  check(mdb_env_set_mapsize(env, std::size_t{1} << 30));
  check(mdb_env_set_maxdbs(env, 64));
  const std::string path = "/proc/self/fd/" + std::to_string(fd);
  check(mdb_env_open(env, path.c_str(), MDB_NOSUBDIR | MDB_NOLOCK | MDB_RDONLY, 0));
  check(mdb_txn_begin(env, nullptr, MDB_RDONLY, &txn));
  check(mdb_dbi_open(txn, nullptr, 0, &main));
  check(mdb_cursor_open(txn, main, &cursor));
  MDB_val key;
  MDB_val value;
  std::size_t read = 0;
  bool whole = true;
  while (mdb_cursor_get(cursor, &key, &value, MDB_NEXT) == MDB_SUCCESS) {
    const std::string name(static_cast<const char*>(key.mv_data), key.mv_size);
    MDB_dbi database = 0;
    const int code = mdb_dbi_open(txn, name.c_str(), 0, &database);
    whole = whole && code == MDB_SUCCESS;
    if (code == MDB_SUCCESS) read += read_all(txn, database);
  }
  require(!whole || read == entries, "LMDB finds as many entries as the walker");
  mdb_cursor_close(cursor);
  mdb_txn_abort(txn);
  mdb_env_close(env);
  close(fd);
}

void run(std::string_view input) {
  const std::vector<std::byte> file = exact_copy(input);
  const lmdb::FileKind kind = lmdb::probe(file);
  const lmdb::WalkReport report = lmdb::walk(file);
  require(report.meta_usable == (kind == lmdb::FileKind::kLmdb), "a file is LMDB's if it has a meta page");
  require(report.ok == (report.meta_usable && report.finding_count == 0),
          "a file is good if nothing is found");
  require(
      report.findings.size() == std::min<std::size_t>(report.finding_count, lmdb::WalkReport::kMaxFindings),
      "findings are told");
  if (report.ok && report.page_bytes == kPageBytes) read_with_lmdb(input, report.entries);
}

template <class T>
void nudge(std::string& bytes, std::size_t at, Random& random) {
  if (at + sizeof(T) > bytes.size()) return;
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  value = below(random, 3) == 0 ? static_cast<T>(random()) : static_cast<T>(value + below(random, 9) - 4);
  std::memcpy(bytes.data() + at, &value, sizeof value);
}

// A page's header, one of its offsets, the header of one of its nodes, or a page number in it.
void mutate_page(std::string& bytes, std::size_t page, Random& random) {
  const std::size_t start = page * kPageBytes;
  PageHeader header;
  std::memcpy(&header, bytes.data() + start, sizeof header);
  constexpr std::size_t kMostNodes = (kPageBytes - sizeof header) / 2 - 1;
  const std::size_t nodes =
      header.lower < sizeof header ? 0 : std::min((header.lower - sizeof header) / 2, kMostNodes);
  const std::size_t slot = start + sizeof header + 2 * below(random, nodes + 1);
  std::uint16_t node = 0;
  std::memcpy(&node, bytes.data() + slot, sizeof node);
  switch (below(random, 5)) {
    case 0:
      return nudge<std::uint16_t>(bytes, start + 2 * below(random, sizeof header / 2), random);
    case 1:
      return nudge<std::uint16_t>(bytes, slot, random);
    case 2:
      return nudge<std::uint16_t>(bytes, start + node + 2 * below(random, sizeof(NodeHeader) / 2), random);
    case 3:
      return nudge<std::uint64_t>(bytes, start + node + 8 * below(random, 16), random);
    default:
      return nudge<unsigned char>(bytes, start + below(random, kPageBytes), random);
  }
}

void mutate(std::string& bytes, std::size_t most, Random& random) {
  const std::size_t pages = bytes.size() / kPageBytes;
  if (pages == 0) return mutate_bytes(bytes, most, random);
  const std::size_t page = below(random, pages);
  const std::size_t other = below(random, pages);
  switch (below(random, 8)) {
    case 0:
      bytes.replace(page * kPageBytes, kPageBytes, bytes.substr(other * kPageBytes, kPageBytes));
      // With the right number it is an old page that came back.
      if (below(random, 2) == 0) {
        const std::uint64_t number = page;
        std::memcpy(bytes.data() + page * kPageBytes, &number, sizeof number);
      }
      return;
    case 1:
      bytes.resize(std::min(most, below(random, bytes.size() + kPageBytes)));
      return;
    case 2:  // a meta page
      return nudge<std::uint64_t>(
          bytes, below(random, 2) * kPageBytes + 8 * below(random, (sizeof(PageHeader) + sizeof(Meta)) / 8),
          random);
    default:
      for (std::size_t changes = 1 + below(random, 2); changes > 0; --changes)
        mutate_page(bytes, page, random);
  }
}

}  // namespace

const Target walker_target{.name = "walker", .seeds = seeds, .run = run, .mutate = mutate, .rounds = 3000};

}  // namespace tokcask::fuzz
