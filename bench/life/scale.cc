// What a cache of many entries costs: a put at the cap, a get, an open, and the depth of the tree; beside the
// puts the same through LMDB alone. Short entries, so that five million fit. See bench/README.md.
#include <lmdb.h>

#include <optional>

#include <fmt/ranges.h>
#include <tokcask/dataset.h>

#include "../native/mapped_file.h"
#include "lmdb_alone.h"
#include "support.h"

namespace {

using namespace bench;
using tokcask::CacheKey;
using tokcask::TokenizedCache;

constexpr int kRounds = 7;
constexpr std::uint64_t kNoCap = std::uint64_t{1} << 40;
constexpr std::size_t kGets = 20'000;
constexpr std::size_t kPreparedGets = 200'000;

std::size_t length_of(std::uint64_t number) { return 64 + mixed(number) % 193; }

std::vector<Item> items_from(std::uint64_t first, std::uint64_t count) {
  std::vector<Item> items;
  for (std::uint64_t number = first; number < first + count; ++number)
    items.push_back({number, length_of(number)});
  return items;
}

struct Result {
  std::uint64_t entries = 0;
  std::uint64_t file_bytes = 0;
  double fill_seconds = 0.0;
  std::vector<double> put_us;
  std::vector<double> lmdb_put_us;
  std::vector<double> get_us;
  std::vector<double> prepared_ns;
  std::vector<double> floor_ns;
  std::vector<double> open_ms;
  std::uint64_t evicted = 0;
  std::uint64_t declined = 0;
  unsigned depth = 0;
};

TokenizedCache open(const std::filesystem::path& root, std::uint64_t max_bytes) {
  tokcask::Options options;
  options.max_bytes = max_bytes;
  options.on_message = [](tokcask::Severity, std::string_view) {};
  return TokenizedCache::open(root, std::move(options));
}

void put(TokenizedCache& cache, const Ids& ids, std::uint64_t first, std::uint64_t count) {
  for (std::uint64_t number = first; number < first + count; ++number)
    cache.put(key_of(number), {.input_ids = ids.take(number, length_of(number))});
  cache.flush();
}

// Levels of the tree that the records are in, as `mdb_stat -s records` tells. Nobody has the store open.
unsigned depth_of(const std::filesystem::path& root) {
  MDB_env* env = nullptr;
  MDB_txn* txn = nullptr;
  MDB_dbi dbi = 0;
  MDB_stat stat = {};
  const auto check = [](int code) {
    if (code != MDB_SUCCESS) throw std::runtime_error(fmt::format("LMDB: {}", mdb_strerror(code)));
  };
  check(mdb_env_create(&env));
  check(mdb_env_set_maxdbs(env, 2));
  check(mdb_env_open(env, root.c_str(), MDB_RDONLY, 0));
  check(mdb_txn_begin(env, nullptr, MDB_RDONLY, &txn));
  check(mdb_dbi_open(txn, "records", 0, &dbi));
  check(mdb_stat(txn, dbi, &stat));
  mdb_txn_abort(txn);
  mdb_env_close(env);
  return stat.ms_depth;
}

// Random keys that are there; the first round, which checks records and brings pages in, does not count.
void measure_gets(TokenizedCache& cache, std::uint64_t entries, std::mt19937_64& random, Result& result) {
  for (int round = 0; round <= kRounds; ++round) {
    std::vector<CacheKey> keys;
    for (std::size_t i = 0; i < kGets; ++i) keys.push_back(key_of(random() % entries));
    std::int64_t sum = 0;
    std::size_t found = 0;
    const auto begin = Clock::now();
    for (const CacheKey& key : keys) {
      if (const auto view = cache.get(key)) {
        ++found;
        sum += view->input_ids().front();
      }
    }
    const double seconds = seconds_since(begin);
    if (found != kGets || sum == 0) throw std::runtime_error("an entry is not there");
    if (round > 0) result.get_us.push_back(seconds * 1e6 / static_cast<double>(kGets));
  }
}

// Nanoseconds of act(i) for random i; the round before does not count.
template <typename Act>
std::vector<double> time_random(std::uint64_t entries, std::mt19937_64& random, Act act) {
  std::vector<double> nanoseconds;
  std::int64_t sum = 0;
  for (int round = 0; round <= kRounds; ++round) {
    std::vector<std::size_t> indices(kPreparedGets);
    for (std::size_t& index : indices) index = random() % entries;
    const auto begin = Clock::now();
    for (const std::size_t index : indices) sum += act(index);
    const double seconds = seconds_since(begin);
    if (round > 0) nanoseconds.push_back(seconds * 1e9 / static_cast<double>(kPreparedGets));
  }
  if (sum == 0) throw std::runtime_error("nothing was read");
  return nanoseconds;
}

// Gets by index from a data set, and beside them their floor: a table of 16 bytes per entry is read at
// random, and then the file at the place that it names.
void measure_prepared(const std::filesystem::path& root, std::uint64_t entries, std::mt19937_64& random,
                      Result& result) {
  {
    std::vector<CacheKey> keys;
    keys.reserve(entries);
    for (std::uint64_t number = 0; number < entries; ++number) keys.push_back(key_of(number));
    auto dataset = tokcask::TokenDataset::open(root, keys);
    keys = {};
    for (std::size_t i = 0; i < entries; ++i) {
      if (!dataset.get(i)) throw std::runtime_error("an item is not there");  // checked now, and no more
    }
    result.prepared_ns = time_random(entries, random, [&](std::size_t i) {
      const auto item = dataset.get(i);
      return std::int64_t{item->input_ids().front()};
    });
  }
  const MappedFile file(root / "data.mdb");
  struct Place {
    std::uint64_t offset;
    std::uint64_t unused;
  };
  std::vector<Place> table(entries);
  for (Place& place : table) place = {.offset = random() % (file.bytes().size() / 8) * 8, .unused = 0};
  std::size_t zeros = 0;  // all pages get into the page table
  for (std::size_t offset = 0; offset < file.bytes().size(); offset += kPage)
    zeros += file.bytes()[offset] == 0;
  if (zeros == 0) throw std::runtime_error("no page begins with a zero");
  result.floor_ns = time_random(
      entries, random, [&](std::size_t i) { return std::int64_t{file.bytes()[table[i].offset]} + 1; });
}

// Puts at the cap, and the same through LMDB alone; opens on the way.
void measure_at_cap(const Directory& directory, std::uint64_t entries, const Ids& ids, Result& result) {
  const std::filesystem::path root = directory / "store";
  LmdbAlone lmdb(directory / "lmdb", result.file_bytes);
  lmdb.put(items_from(0, entries), kNoCap, ids);
  // To the cap: a file that is a sixteenth larger. Its leaves are filled then as sorted batches fill them,
  // more than random puts and evictions leave them; until they are, more than one entry goes for each that
  // comes. What a run puts is little beside the store, so that nothing is declined because it is protected.
  const std::uint64_t cap = std::max(result.file_bytes / 16 * 17, tokcask::Options::kMinMaxBytes);
  const std::uint64_t puts = std::min<std::uint64_t>(10'000, std::max<std::uint64_t>(entries / 20, 1));
  std::uint64_t next = entries;
  int measured = 0;
  for (bool steady = false; measured < kRounds;) {
    auto begin = Clock::now();
    TokenizedCache cache = open(root, cap);
    const double open_seconds = seconds_since(begin);
    begin = Clock::now();
    put(cache, ids, next, puts);
    const double our_seconds = seconds_since(begin);
    const tokcask::Stats stats = cache.stats();
    begin = Clock::now();
    lmdb.put(items_from(next, puts), stats.total_bytes, ids);
    const double lmdb_seconds = seconds_since(begin);
    next += puts;
    result.declined += stats.run.declined;
    if (steady) {
      ++measured;
      result.evicted += stats.run.evicted;
      result.open_ms.push_back(open_seconds * 1e3);
      result.put_us.push_back(our_seconds * 1e6 / static_cast<double>(puts));
      result.lmdb_put_us.push_back(lmdb_seconds * 1e6 / static_cast<double>(puts));
    } else {
      steady = stats.run.evicted > 0 && stats.run.evicted < puts * 3 / 2;
      if (next > 4 * entries) throw std::runtime_error("nothing is evicted at the cap");
    }
  }
}

Result measure(std::uint64_t entries, std::uint64_t seed, bool puts) {
  const Directory directory;
  const std::filesystem::path root = directory / "store";
  const Ids ids(seed);
  std::mt19937_64 random(seed);
  Result result;
  result.entries = entries;
  {
    TokenizedCache cache = open(root, kNoCap);
    const auto begin = Clock::now();
    put(cache, ids, 0, entries);
    result.fill_seconds = seconds_since(begin);
    measure_gets(cache, entries, random, result);
    result.file_bytes = cache.stats().file_bytes;
  }
  measure_prepared(root, entries, random, result);
  if (puts) measure_at_cap(directory, entries, ids, result);
  while (result.open_ms.size() < kRounds) {
    const auto begin = Clock::now();
    const TokenizedCache cache = open(root, kNoCap);
    result.open_ms.push_back(seconds_since(begin) * 1e3);
  }
  result.file_bytes = std::filesystem::file_size(root / "data.mdb");
  result.depth = depth_of(root);
  return result;
}

void print_json(const Result& r, std::uint64_t seed) {
  const auto list = [](const std::vector<double>& values) {
    return fmt::format("{:.3f}", fmt::join(values, ", "));
  };
  fmt::print(
      "{{\"entries\": {}, \"seed\": {}, \"file_bytes\": {}, \"fill_seconds\": {:.3f}, \"put_us\": [{}], "
      "\"lmdb_put_us\": [{}], "
      "\"get_us\": [{}], \"prepared_ns\": [{}], \"floor_ns\": [{}], \"open_ms\": [{}], \"evicted\": {}, "
      "\"declined\": {}, \"depth\": {}}}\n",
      r.entries, seed, r.file_bytes, r.fill_seconds, list(r.put_us), list(r.lmdb_put_us), list(r.get_us),
      list(r.prepared_ns), list(r.floor_ns), list(r.open_ms), r.evicted, r.declined, r.depth);
  std::fflush(stdout);
}

void print_table(std::span<const Result> results) {
  fmt::print(
      "\n| entries | file MiB | put at the cap µs | LMDB µs | get µs | prepared ns | floor ns | open ms | "
      "tree depth | evicted | "
      "declined |\n"
      "|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n");
  for (const Result& r : results) {
    fmt::print("| {} | {:.0f} | {:.1f} | {:.1f} | {:.2f} | {:.0f} | {:.0f} | {:.1f} | {} | {} | {} |\n",
               r.entries, static_cast<double>(r.file_bytes) / (1 << 20), median(r.put_us),
               median(r.lmdb_put_us), median(r.get_us), median(r.prepared_ns), median(r.floor_ns),
               median(r.open_ms), r.depth, r.evicted, r.declined);
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const auto arguments = arguments_of(
        argc, argv, {{"--entries", "10000,100000,1000000,5000000"}, {"--seed", "1"}, {"--puts", "yes"}});
    const std::uint64_t seed = std::stoull(arguments.at("--seed"));
    std::vector<Result> results;
    for (const std::string& entries : words_of(arguments.at("--entries"))) {
      results.push_back(measure(std::stoull(entries), seed, arguments.at("--puts") == "yes"));
      print_json(results.back(), seed);
    }
    print_table(results);
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "scale: {}\n", error.what());
    return 1;
  }
}
