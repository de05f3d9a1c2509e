#include "support.h"

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <memory>
#include <stdexcept>
#include <utility>

#include "lmdb/walker.h"

namespace tokcask::lmdb::test {

using namespace layout;

namespace {

constexpr std::size_t kMapBytes = std::size_t{4} << 30;
constexpr unsigned kDatabases = 8;
constexpr MDB_dbi kFreeDatabase = 0;

File read_file(const std::string& path) {
  File bytes(std::filesystem::file_size(path));
  std::ifstream stream(path, std::ios::binary);
  stream.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  if (!stream) throw std::runtime_error("cannot read " + path);
  return bytes;
}

void write_file(const std::string& path, std::span<const std::byte> bytes) {
  std::ofstream stream(path, std::ios::binary | std::ios::trunc);
  stream.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  if (!stream.flush()) throw std::runtime_error("cannot write " + path);
}

MDB_env* open_environment(const std::string& path, unsigned flags) {
  MDB_env* env = nullptr;
  check(mdb_env_create(&env));
  check(mdb_env_set_mapsize(env, kMapBytes));
  check(mdb_env_set_maxdbs(env, kDatabases));
  check(mdb_env_open(env, path.c_str(), flags | MDB_NOSUBDIR | MDB_NOSYNC | MDB_NOTLS, 0600));
  return env;
}

class Reader {
 public:
  explicit Reader(MDB_env* env) { check(mdb_txn_begin(env, nullptr, MDB_RDONLY, &txn_)); }
  ~Reader() { mdb_txn_abort(txn_); }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;
  [[nodiscard]] MDB_txn* get() const noexcept { return txn_; }

 private:
  MDB_txn* txn_ = nullptr;
};

MDB_val to_val(std::string_view text) { return {text.size(), const_cast<char*>(text.data())}; }
std::string_view to_view(MDB_val value) { return {static_cast<const char*>(value.mv_data), value.mv_size}; }

template <class Visit>
void for_each(MDB_txn* txn, MDB_dbi database, MDB_cursor_op step, Visit&& visit) {
  MDB_cursor* cursor = nullptr;
  check(mdb_cursor_open(txn, database, &cursor));
  MDB_val key{};
  MDB_val value{};
  int code = MDB_SUCCESS;
  while ((code = mdb_cursor_get(cursor, &key, &value, step)) == MDB_SUCCESS) visit(key, value);
  mdb_cursor_close(cursor);
  if (code != MDB_NOTFOUND) check(code);
}

MDB_dbi open_database(MDB_txn* txn, const char* name) {
  MDB_dbi database = 0;
  check(mdb_dbi_open(txn, name, 0, &database));
  return database;
}

std::vector<std::string> database_names(MDB_txn* txn) {
  std::vector<std::string> names;
  for_each(txn, open_database(txn, nullptr), MDB_NEXT,
           [&](MDB_val key, MDB_val) { names.emplace_back(to_view(key)); });
  return names;
}

// The offset in the file of what lies at `address`, which must be in the first page of an extent.
std::size_t offset_in_file(const void* address, std::size_t page_bytes) {
  const auto number = reinterpret_cast<std::uintptr_t>(address);
  const std::size_t in_page = number % page_bytes;
  return load<PageHeader>(static_cast<const std::byte*>(address) - in_page).number * page_bytes + in_page;
}

std::vector<Entry> list(MDB_txn* txn, MDB_dbi database, MDB_cursor_op step) {
  MDB_stat stat;
  check(mdb_stat(txn, database, &stat));
  std::vector<Entry> entries;
  for_each(txn, database, step, [&](MDB_val key, MDB_val value) {
    entries.push_back({offset_in_file(key.mv_data, stat.ms_psize), key.mv_size,
                       offset_in_file(value.mv_data, stat.ms_psize), value.mv_size});
  });
  return entries;
}

Listing list(MDB_txn* txn) {
  Listing listing{list(txn, open_database(txn, nullptr), MDB_NEXT)};
  for (const std::string& name : database_names(txn)) {
    listing.push_back(list(txn, open_database(txn, name.c_str()), MDB_NEXT));
  }
  return listing;
}

void require(bool condition, const char* what) {
  if (!condition) throw std::runtime_error(what);
}

// A value in overflow pages may be another one: which it is, its checksum tells.
bool same_entry(const Entry& a, const Entry& b, std::size_t page_bytes) {
  if (a.key != b.key || a.key_bytes != b.key_bytes) return false;
  const auto is_inline = [&](const Entry& e) { return e.key / page_bytes == e.value / page_bytes; };
  if (is_inline(a) != is_inline(b)) return false;
  return !is_inline(a) || a == b;
}

void read_database(MDB_txn* txn, MDB_dbi database, const std::vector<Entry>& expected) {
  MDB_stat stat;
  check(mdb_stat(txn, database, &stat));
  std::vector<Entry> entries = list(txn, database, MDB_NEXT);
  require(entries.size() == expected.size(), "LMDB finds another number of entries");
  for (std::size_t i = 0; i < entries.size(); ++i) {
    require(same_entry(entries[i], expected[i], stat.ms_psize), "LMDB finds an entry in another place");
  }
  std::vector<Entry> backwards = list(txn, database, MDB_PREV);
  std::reverse(backwards.begin(), backwards.end());
  require(backwards == entries, "LMDB finds other entries on the way back");
  unsigned sum = 0;
  for_each(txn, database, MDB_NEXT, [&](MDB_val key, MDB_val value) {
    for (const char c : to_view(value)) sum += static_cast<unsigned char>(c);
    MDB_val found{};
    check(mdb_get(txn, database, &key, &found));
    require(found.mv_data == value.mv_data, "LMDB finds another value by the key");
  });
  volatile unsigned keep = sum;
  static_cast<void>(keep);
}

void read_all(MDB_env* env, const Listing& expected) {
  const Reader reader(env);
  read_database(reader.get(), open_database(reader.get(), nullptr), expected.at(0));
  const auto names = database_names(reader.get());
  for (std::size_t i = 0; i < names.size(); ++i) {
    // Damage may have put a zero byte into the name; nobody can open that database.
    if (names[i].find('\0') != std::string::npos) continue;
    read_database(reader.get(), open_database(reader.get(), names[i].c_str()), expected.at(i + 1));
  }
}

// Removes every third entry, and puts others, until free pages have been used again.
void write_some(MDB_env* env) {
  std::vector<std::string> names;
  {
    const Reader reader(env);
    names = database_names(reader.get());
  }
  for (unsigned round = 0; round < 3; ++round) {
    for (const std::string& name : names) {
      if (name.find('\0') != std::string::npos) continue;
      Writer writer(env);
      const MDB_dbi database = writer.database(name.c_str());
      std::vector<std::string> keys;
      for_each(writer.get(), database, MDB_NEXT,
               [&](MDB_val key, MDB_val) { keys.emplace_back(to_view(key)); });
      for (std::size_t i = round; i < keys.size(); i += 3) writer.remove(database, keys[i]);
      for (unsigned i = 0; i < 30; ++i) {
        writer.put(database, record_key(1000 + round * 100 + i), std::string(i % 5 == 0 ? 9000 : 8 * i, 'w'));
      }
      writer.commit();
    }
  }
}

void dissect_tree(std::span<const std::byte> file, const Database& tree, unsigned level, std::uint64_t number,
                  bool free_list, Anatomy& anatomy) {
  if (tree.depth == 0) return;
  const std::size_t page = number * anatomy.page_bytes;
  const auto header = load<PageHeader>(file.data() + page);
  const bool leaf = level == tree.depth;
  std::vector<std::size_t> databases;
  for (std::size_t at = sizeof header; at < header.lower; at += 2) {
    const std::size_t offset = page + load<std::uint16_t>(file.data() + page + at);
    const auto node = load<NodeHeader>(file.data() + offset);
    std::size_t value = offset + sizeof node + node.key_bytes;
    if (!leaf) {
      anatomy.children.push_back(offset);
      dissect_tree(file, tree, level + 1, node.child(), free_list, anatomy);
      continue;
    }
    if (node.flags == kNodeDatabase) {
      databases.push_back(value);
      continue;
    }
    if (!free_list) anatomy.entries.push_back(offset);
    if (node.flags == kNodeOverflow) {
      const std::size_t extent = load<std::uint64_t>(file.data() + value) * anatomy.page_bytes;
      anatomy.overflows.push_back(extent);
      if (!free_list) anatomy.overflow_nodes.push_back(offset);
      value = extent + sizeof header;
    }
    if (free_list) anatomy.free_lists.push_back(value);
  }
  (!leaf               ? anatomy.branches
   : free_list         ? anatomy.free_leaves
   : databases.empty() ? anatomy.leaves
                       : anatomy.main_leaves)
      .push_back(page);
  for (const std::size_t at : databases) {
    anatomy.databases.push_back(at);
    const auto record = load<Database>(file.data() + at);
    dissect_tree(file, record, 1, record.root, false, anatomy);
  }
}

}  // namespace

std::uint64_t test_seed() {
  const char* const text = std::getenv("TOKCASK_TEST_SEED");
  return text != nullptr ? std::strtoull(text, nullptr, 0) : std::random_device{}();
}

std::uint64_t below(Random& random, std::uint64_t end) {
  return std::uniform_int_distribution<std::uint64_t>(0, end - 1)(random);
}

void check(int code) {
  if (code != MDB_SUCCESS) throw std::runtime_error(std::string("LMDB: ") + mdb_strerror(code));
}

TemporaryDirectory::TemporaryDirectory()
    : path_((std::filesystem::temp_directory_path() / "tokcask-walker-XXXXXX").string()) {
  if (mkdtemp(path_.data()) == nullptr) throw std::runtime_error("mkdtemp " + path_);
}
TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

Store::Store() : env_(open_environment(data_path(), 0)) {}
Store::~Store() { mdb_env_close(env_); }
File Store::file() const { return read_file(data_path()); }

Writer::Writer(MDB_env* env) { check(mdb_txn_begin(env, nullptr, 0, &txn_)); }
Writer::~Writer() { mdb_txn_abort(txn_); }
void Writer::commit() { check(mdb_txn_commit(std::exchange(txn_, nullptr))); }

MDB_dbi Writer::database(const char* name) {
  MDB_dbi database = 0;
  check(mdb_dbi_open(txn_, name, MDB_CREATE, &database));
  return database;
}

void Writer::put(MDB_dbi database, std::string_view key, std::string_view value) {
  MDB_val k = to_val(key);
  MDB_val v = to_val(value);
  check(mdb_put(txn_, database, &k, &v, 0));
}

void Writer::remove(MDB_dbi database, std::string_view key) {
  MDB_val k = to_val(key);
  const int code = mdb_del(txn_, database, &k, nullptr);
  if (code != MDB_NOTFOUND) check(code);
}

Totals totals(MDB_env* env) {
  Totals totals;
  const Reader reader(env);
  MDB_envinfo info;
  check(mdb_env_info(env, &info));
  totals.txnid = info.me_last_txnid;
  totals.last_page = info.me_last_pgno;
  const auto add = [&](MDB_dbi database) {
    MDB_stat stat;
    check(mdb_stat(reader.get(), database, &stat));
    totals.tree_pages += stat.ms_branch_pages + stat.ms_leaf_pages;
    totals.overflow_pages += stat.ms_overflow_pages;
    totals.depth = std::max(totals.depth, stat.ms_depth);
    return stat.ms_entries;
  };
  add(kFreeDatabase);
  for_each(reader.get(), kFreeDatabase, MDB_NEXT, [&](MDB_val, MDB_val value) {
    totals.free_pages += load<std::uint64_t>(static_cast<const std::byte*>(value.mv_data));
  });
  add(open_database(reader.get(), nullptr));
  for (const std::string& name : database_names(reader.get())) {
    totals.entries += add(open_database(reader.get(), name.c_str()));
  }
  return totals;
}

std::string record_key(std::uint64_t i) {
  // Spread, so that neighbours in number are none in the tree.
  std::string key =
      std::to_string(i * 0x9E3779B97F4A7C15U % 1000003) + "|5f3a|" + std::to_string(i) + "|2048";
  key.resize(88, '\0');
  return key;
}

void churn(MDB_env* env, Random& random, const History& history) {
  std::vector<std::unique_ptr<Reader>> readers;
  for (unsigned t = 0; t < history.transactions; ++t) {
    Writer writer(env);
    const MDB_dbi records = writer.database("records");
    const MDB_dbi meta = writer.database("meta");
    const bool shrinking = below(random, 4) == 0;
    for (unsigned i = 0; i < history.operations; ++i) {
      const std::string key = record_key(below(random, history.keys));
      if (below(random, shrinking ? 5 : 15) < 4) {
        writer.remove(records, key);
      } else {
        const std::uint64_t largest = below(random, 3) == 0 ? history.largest : 1500;
        writer.put(records, key, std::string(48 + below(random, largest) / 8 * 8, 'v'));
        // A smaller value over one that is not committed keeps its overflow pages.
        if (below(random, 8) == 0)
          writer.put(records, key, std::string(48 + below(random, 3000) / 8 * 8, 's'));
      }
      std::string small = std::to_string(below(random, history.keys));
      small.resize(below(random, 2) == 0 ? 8 : 16, '\0');
      writer.put(meta, small, std::string(below(random, 16) == 0 ? 4080 : 32, 'm'));
    }
    writer.commit();
    if (!history.readers) continue;
    if (below(random, 3) == 0) readers.push_back(std::make_unique<Reader>(env));
    if (readers.size() > 2) readers.erase(readers.begin());
  }
}

std::vector<std::size_t> Anatomy::tree_pages() const {
  std::vector<std::size_t> pages;
  for (const auto* some : {&branches, &leaves, &free_leaves, &main_leaves}) {
    pages.insert(pages.end(), some->begin(), some->end());
  }
  return pages;
}

Anatomy dissect(std::span<const std::byte> file) {
  Anatomy anatomy;
  anatomy.meta = sizeof(PageHeader);
  auto meta = load<Meta>(file.data() + anatomy.meta);
  anatomy.page_bytes = meta.free.pad;
  anatomy.older_meta = anatomy.page_bytes + sizeof(PageHeader);
  const auto second = load<Meta>(file.data() + anatomy.older_meta);
  if (second.txnid > meta.txnid) {
    std::swap(anatomy.meta, anatomy.older_meta);
    meta = second;
  }
  dissect_tree(file, meta.free, 1, meta.free.root, true, anatomy);
  dissect_tree(file, meta.main, 1, meta.main.root, false, anatomy);
  return anatomy;
}

Listing list(MDB_env* env) {
  const Reader reader(env);
  return list(reader.get());
}

Listing list(const std::string& path, std::span<const std::byte> file) {
  write_file(path, file);
  MDB_env* const env = open_environment(path, MDB_NOLOCK | MDB_RDONLY);
  Listing listing = list(env);
  mdb_env_close(env);
  return listing;
}

std::string read_with_lmdb(const std::string& path, std::span<const std::byte> file,
                           const Listing& expected) {
  write_file(path, file);
  std::array<int, 2> ends{};
  if (pipe(ends.data()) != 0) throw std::runtime_error("pipe");
  const pid_t child = fork();
  if (child < 0) throw std::runtime_error("fork");
  if (child == 0) {
    alarm(20);
    std::string problem;
    try {
      MDB_env* const env = open_environment(path, MDB_NOLOCK);
      read_all(env, expected);
      write_some(env);
      const WalkReport report = walk(read_file(path));
      if (!report.ok) problem = "after LMDB wrote to it: " + report.findings.at(0);
    } catch (const std::exception& error) {
      problem = error.what();
    }
    const ssize_t written = write(ends[1], problem.data(), problem.size());
    _exit(written == static_cast<ssize_t>(problem.size()) ? 0 : 3);
  }
  close(ends[1]);
  std::string problem(4096, '\0');
  const ssize_t got = read(ends[0], problem.data(), problem.size());
  problem.resize(got < 0 ? 0 : static_cast<std::size_t>(got));
  close(ends[0]);
  int status = 0;
  if (waitpid(child, &status, 0) != child) throw std::runtime_error("waitpid");
  if (WIFSIGNALED(status)) return "LMDB ended by signal " + std::to_string(WTERMSIG(status));
  if (WEXITSTATUS(status) != 0)
    return "the child ended with " + std::to_string(WEXITSTATUS(status)) + ' ' + problem;
  return problem;
}

}  // namespace tokcask::lmdb::test
