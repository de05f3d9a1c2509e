// What the tests of the walker share: data files made by LMDB itself, where things lie in them, and LMDB's
// own reading of a file, in a process that may crash. LMDB's errors are thrown as std::runtime_error.
#pragma once

#include <lmdb.h>

#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lmdb/page_layout.h"

namespace tokcask::lmdb::test {

using Random = std::mt19937_64;
using File = std::vector<std::byte>;

// The seed of a randomized test: TOKCASK_TEST_SEED, or a new one each time. The test prints it when it fails.
[[nodiscard]] std::uint64_t test_seed();

// A number from 0 to `end` - 1.
[[nodiscard]] std::uint64_t below(Random& random, std::uint64_t end);

// Throws for any code but MDB_SUCCESS.
void check(int code);

// A fresh directory, removed with all that is in it.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  ~TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  [[nodiscard]] const std::string& path() const noexcept { return path_; }

 private:
  std::string path_;
};

// An LMDB environment in a directory of its own, without durability.
class Store {
 public:
  Store();
  ~Store();
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;

  [[nodiscard]] MDB_env* env() const noexcept { return env_; }
  [[nodiscard]] std::string data_path() const { return directory_.path() + "/data.mdb"; }
  [[nodiscard]] File file() const;

 private:
  TemporaryDirectory directory_;
  MDB_env* env_;
};

// A write transaction. Aborts unless commit() was called.
class Writer {
 public:
  explicit Writer(MDB_env* env);
  ~Writer();
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;

  [[nodiscard]] MDB_txn* get() const noexcept { return txn_; }
  // Creates what is not there.
  MDB_dbi database(const char* name);
  void put(MDB_dbi database, std::string_view key, std::string_view value);
  void remove(MDB_dbi database, std::string_view key);  // does nothing when it is not there
  void commit();

 private:
  MDB_txn* txn_ = nullptr;
};

// What LMDB says of the newest snapshot, in the walker's terms.
struct Totals {
  std::uint64_t tree_pages = 0;
  std::uint64_t overflow_pages = 0;
  std::uint64_t free_pages = 0;
  std::uint64_t entries = 0;
  std::uint64_t txnid = 0;
  std::uint64_t last_page = 0;
  unsigned depth = 0;  // of the deepest tree
};
[[nodiscard]] Totals totals(MDB_env* env);

// The key of record `i`: 88 bytes, a canonical key padded with zero bytes.
[[nodiscard]] std::string record_key(std::uint64_t i);

// Gives a store a random history, as tokcask would: records of up to `largest` bytes, some in overflow pages,
// a second database of small entries, pages freed by several transactions.
struct History {
  unsigned transactions = 12;
  unsigned operations = 20;  // in each
  unsigned keys = 150;
  unsigned largest = 9000;
  bool readers = true;  // hold freed pages back for some transactions
};
void churn(MDB_env* env, Random& random, const History& history);

// Where the parts of a good file lie, as offsets into it.
struct Anatomy {
  std::size_t page_bytes = 0;
  std::size_t meta = 0;                // layout::Meta, the newest
  std::size_t older_meta = 0;          // layout::Meta
  std::vector<std::size_t> databases;  // layout::Database of the named ones, in the order of their names
  std::vector<std::size_t> branches, leaves, main_leaves, free_leaves;  // pages
  std::vector<std::size_t> overflows;                                   // first pages
  std::vector<std::size_t> children;                                    // branch NodeHeaders
  std::vector<std::size_t> entries;                                     // leaf NodeHeaders of named databases
  std::vector<std::size_t> overflow_nodes;  // those of `entries` with their value in overflow pages
  std::vector<std::size_t> free_lists;      // counts (u64), each followed by page numbers

  // Branches and all leaves.
  [[nodiscard]] std::vector<std::size_t> tree_pages() const;
};
[[nodiscard]] Anatomy dissect(std::span<const std::byte> file);

// Where LMDB finds an entry, as offsets into the file.
struct Entry {
  std::size_t key, key_bytes, value, value_bytes;
  bool operator==(const Entry&) const = default;
};
// The entries of the main database, then those of each named one.
using Listing = std::vector<std::vector<Entry>>;
[[nodiscard]] Listing list(MDB_env* env);
// Of a file that is written to `path` for this.
[[nodiscard]] Listing list(const std::string& path, std::span<const std::byte> file);

// Writes `file` to `path` and has LMDB read all of it in a child process: each database from end to end and
// back, and each key by itself. Then has it write, and walks the result. Returns what went wrong: a crash, a
// hang, an error, an entry in another place than `expected` says; or an empty string. Values in overflow
// pages may be other values.
[[nodiscard]] std::string read_with_lmdb(const std::string& path, std::span<const std::byte> file,
                                         const Listing& expected);

}  // namespace tokcask::lmdb::test
