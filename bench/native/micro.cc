// Micro-benchmarks by Google Benchmark: a get, a collated batch, a sum over all tokens, and puts, each beside
// its floor: mdb_get, memcpy, one contiguous array, LMDB alone.
//
//   micro STORE CORPUS SCRATCH [--benchmark_...]
//
// STORE holds the corpus; SCRATCH is a directory on the disk that is measured. Page cache and page tables are
// warm, and records are checked once before (the default policy of checksums).
#include <benchmark/benchmark.h>

#include <numeric>
#include <random>

#include <fmt/format.h>
#include <tokcask/cache.h>
#include <tokcask/collate.h>
#include <tokcask/dataset.h>

#include "corpus.h"
#include "lmdb_reader.h"
#include "mapped_file.h"

namespace {

using namespace bench;
using tokcask::CacheKey;
using tokcask::TokenDataset;
using tokcask::TokenizedCache;

constexpr std::size_t kBatch = 64;
constexpr std::uint64_t kSeed = 20261125;

// All that is measured over, opened once.
struct Data {
  Data(const std::filesystem::path& root, const std::filesystem::path& directory,
       const std::filesystem::path& work)
      : store(root),
        corpus(directory),
        scratch(work),
        order(corpus.size()),
        flat(corpus.ids().begin(), corpus.ids().end()) {
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::shuffle(order.begin(), order.end(), std::mt19937_64(kSeed));
    for (const CacheKey& key : corpus.keys()) {
      padded_keys.push_back(key.canonical());
      padded_keys.back().resize((key.canonical().size() + 7) / 8 * 8);
    }
    // The very file, for LMDB alone: a copy, because an environment must not be opened twice in a process.
    std::filesystem::create_directories(scratch / "copy");
    std::filesystem::copy_file(root / "data.mdb", scratch / "copy" / "data.mdb",
                               std::filesystem::copy_options::overwrite_existing);
    read_in_order(root / "data.mdb");
    read_in_order(scratch / "copy" / "data.mdb");
  }

  std::filesystem::path store;
  Corpus corpus;
  std::filesystem::path scratch;
  std::vector<std::size_t> order;  // shuffled
  std::vector<std::int32_t> flat;
  std::vector<std::string> padded_keys;
};

const Data* data = nullptr;

TokenizedCache open_cache() {
  tokcask::Options options;
  options.read_only = true;
  return TokenizedCache::open(data->store, options);
}

// Keys in random order, by copies of them in that order: what a caller has at hand.
std::vector<CacheKey> shuffled_keys() {
  std::vector<CacheKey> keys;
  for (const std::size_t index : data->order) keys.push_back(data->corpus.keys()[index]);
  return keys;
}

template <typename Get>
void run_gets(benchmark::State& state, Get get) {
  const std::size_t count = data->order.size();
  std::int64_t sum = 0;
  for (std::size_t i = 0; i < count; ++i) sum += get(i);  // warm, and checked
  std::size_t i = 0;
  for (auto _ : state) {
    sum += get(i);
    if (++i == count) i = 0;
  }
  benchmark::DoNotOptimize(sum);
}

std::int64_t first(std::span<const std::int32_t> ids) { return ids.empty() ? 0 : ids.front(); }
std::int64_t first(const FoundTokens& found) { return first(found->input_ids()); }

void get_prepared(benchmark::State& state) {
  auto dataset = TokenDataset::open(data->store, data->corpus.keys());
  run_gets(state, [&](std::size_t i) { return first(dataset.get(data->order[i])); });
}
BENCHMARK(get_prepared);

// As a batch is fetched; the time is that of one item.
void get_many_prepared(benchmark::State& state) {
  auto dataset = TokenDataset::open(data->store, data->corpus.keys());
  const std::span order(data->order);
  std::int64_t sum = 0;
  for (const std::size_t index : order) sum += first(dataset.get(index));  // warm, and checked
  std::size_t begin = 0;
  while (state.KeepRunningBatch(kBatch)) {
    for (const auto& view : dataset.get_many(order.subspan(begin, kBatch))) sum += first(view->input_ids());
    begin = begin + 2 * kBatch > order.size() ? 0 : begin + kBatch;
  }
  benchmark::DoNotOptimize(sum);
}
BENCHMARK(get_many_prepared);

void get_unprepared(benchmark::State& state) {
  TokenizedCache cache = open_cache();
  const std::vector<CacheKey> keys = shuffled_keys();
  run_gets(state, [&](std::size_t i) { return first(cache.get(keys[i])); });
}
BENCHMARK(get_unprepared);

void get_lmdb(benchmark::State& state) {
  const LmdbReader reader(data->scratch / "copy", "records");
  std::vector<std::string> keys;
  for (const std::size_t index : data->order) keys.push_back(data->padded_keys[index]);
  run_gets(state, [&](std::size_t i) {
    std::int32_t id = 0;
    std::memcpy(&id, reader.get(keys[i]).data() + 48, sizeof id);  // behind the record's header
    return std::int64_t{id};
  });
}
BENCHMARK(get_lmdb);

// The rows of a batch as collate wants them.
std::vector<tokcask::Tokens> rows_of(const std::vector<std::optional<tokcask::TokenView>>& views) {
  std::vector<tokcask::Tokens> rows;
  rows.reserve(views.size());
  for (const auto& view : views) rows.push_back({.input_ids = view->input_ids()});
  return rows;
}

// 64 random items into a padded int64 array; bytes are those written. rows_from(begin) gives those from a
// place of the random order on.
template <typename Rows>
void run_collate(benchmark::State& state, Rows rows_from) {
  const tokcask::Padding padding;
  std::vector<std::int64_t> out;
  std::size_t begin = 0;
  std::int64_t bytes = 0;
  for (auto _ : state) {
    const auto& batch = rows_from(begin);
    const std::size_t cells = batch.size() * tokcask::padded_columns(batch, padding);
    if (out.size() < cells) out.resize(cells);
    tokcask::pad_rows(batch, padding, {.input_ids = std::span(out).first(cells)});
    benchmark::ClobberMemory();
    bytes += static_cast<std::int64_t>(cells * sizeof(std::int64_t));
    begin = begin + 2 * kBatch > data->order.size() ? 0 : begin + kBatch;
  }
  state.SetBytesProcessed(bytes);
}

void collate(benchmark::State& state) {
  auto dataset = TokenDataset::open(data->store, data->corpus.keys());
  const std::span order(data->order);
  for (const std::size_t index : order) benchmark::DoNotOptimize(dataset.get(index));
  std::vector<std::optional<tokcask::TokenView>> views;
  run_collate(state, [&](std::size_t begin) {
    views = dataset.get_many(order.subspan(begin, kBatch));
    return rows_of(views);
  });
}
BENCHMARK(collate);

// The same without a store: from a list of where the ids lie in memory. What is missing are look-ups, checks,
// noted accesses, and views that own what they show.
void collate_bare(benchmark::State& state) {
  auto dataset = TokenDataset::open(data->store, data->corpus.keys());
  const auto views = dataset.get_many(data->order);  // checked, and kept
  const std::vector<tokcask::Tokens> all = rows_of(views);
  run_collate(state, [&](std::size_t begin) {
    return std::vector<tokcask::Tokens>(all.begin() + static_cast<std::ptrdiff_t>(begin),
                                        all.begin() + static_cast<std::ptrdiff_t>(begin + kBatch));
  });
}
BENCHMARK(collate_bare);

// Copies as many bytes as a typical batch has, from another place each time to the same.
void collate_memcpy(benchmark::State& state) {
  std::size_t cells = 0;
  for (std::size_t i = 0; i < kBatch; ++i) {
    cells = std::max(cells, data->corpus.row(data->order[i]).size() * kBatch);
  }
  const std::size_t bytes = cells * sizeof(std::int64_t);
  const std::vector<std::int64_t> from(std::max(cells * 2, data->flat.size()), 1);
  std::vector<std::int64_t> to(cells);
  std::mt19937_64 random(kSeed);
  for (auto _ : state) {
    std::memcpy(to.data(), from.data() + random() % (from.size() - cells), bytes);
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations() * bytes));
}
BENCHMARK(collate_memcpy);

void set_rate(benchmark::State& state) {
  state.SetBytesProcessed(
      static_cast<std::int64_t>(state.iterations() * data->flat.size() * sizeof(std::int32_t)));
}

void sum_prepared(benchmark::State& state) {
  auto dataset = TokenDataset::open(data->store, data->corpus.keys());
  for (std::size_t i = 0; i < dataset.size(); ++i) benchmark::DoNotOptimize(first(dataset.get(i)));
  for (auto _ : state) {
    std::int64_t total = 0;
    for (std::size_t i = 0; i < dataset.size(); ++i) {
      const auto item = dataset.get(i);
      total += bench::sum(item->input_ids());
    }
    benchmark::DoNotOptimize(total);
  }
  set_rate(state);
}
BENCHMARK(sum_prepared)->Unit(benchmark::kMillisecond);

// As a pass over all items is made where it is to be fast: in batches.
void sum_many_prepared(benchmark::State& state) {
  auto dataset = TokenDataset::open(data->store, data->corpus.keys());
  std::vector<std::size_t> indices(dataset.size());
  std::iota(indices.begin(), indices.end(), 0);
  const std::span all(indices);
  const auto pass = [&] {
    std::int64_t total = 0;
    for (std::size_t begin = 0; begin < all.size(); begin += kBatch) {
      for (const auto& view : dataset.get_many(all.subspan(begin, std::min(kBatch, all.size() - begin))))
        total += bench::sum(view->input_ids());
    }
    return total;
  };
  benchmark::DoNotOptimize(pass());  // warm, and checked
  for (auto _ : state) benchmark::DoNotOptimize(pass());
  set_rate(state);
}
BENCHMARK(sum_many_prepared)->Unit(benchmark::kMillisecond);

void sum_flat(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(bench::sum(data->flat));
  set_rate(state);
}
BENCHMARK(sum_flat)->Unit(benchmark::kMillisecond);

// Puts of all records into a new store, the close included; durable. Each iteration is a store.
template <typename Store>
void run_store(benchmark::State& state, const char* name, Store store) {
  const auto bytes = static_cast<std::int64_t>(data->flat.size() * sizeof(std::int32_t));
  const std::filesystem::path root = data->scratch / name;
  for (auto _ : state) {
    std::filesystem::remove_all(root);
    const auto begin = std::chrono::steady_clock::now();
    store(root, data->corpus.size());
    state.SetIterationTime(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  std::filesystem::remove_all(root);
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations()) * bytes);
}

void store_tokcask(benchmark::State& state) {
  run_store(state, "store", [](const std::filesystem::path& root, std::size_t count) {
    auto cache = TokenizedCache::open(root);
    for (std::size_t i = 0; i < count; ++i) {
      cache.put(data->corpus.keys()[i], {.input_ids = data->corpus.row(i)});
    }
    cache.close();
  });
}
BENCHMARK(store_tokcask)->UseManualTime()->Iterations(1)->Unit(benchmark::kMillisecond);

// 64 MiB per transaction, as the store's batches are.
void store_lmdb(benchmark::State& state) {
  run_store(state, "lmdb", [](const std::filesystem::path& root, std::size_t count) {
    constexpr std::size_t kBatchBytes = std::size_t{64} << 20;
    std::filesystem::create_directory(root);
    MDB_env* env = nullptr;
    check_lmdb(mdb_env_create(&env));
    check_lmdb(mdb_env_set_mapsize(env, std::size_t{1} << 36));
    check_lmdb(mdb_env_open(env, root.c_str(), 0, 0600));
    for (std::size_t i = 0; i < count;) {
      MDB_txn* txn = nullptr;
      MDB_dbi dbi = 0;
      check_lmdb(mdb_txn_begin(env, nullptr, 0, &txn));
      check_lmdb(mdb_dbi_open(txn, nullptr, 0, &dbi));
      for (std::size_t bytes = 0; i < count && bytes < kBatchBytes; ++i) {
        const std::span<const std::int32_t> row = data->corpus.row(i);
        std::string key = data->corpus.keys()[i].canonical();
        MDB_val k{key.size(), key.data()};
        MDB_val v{row.size_bytes(), const_cast<std::int32_t*>(row.data())};
        check_lmdb(mdb_put(txn, dbi, &k, &v, 0));
        bytes += row.size_bytes();
      }
      check_lmdb(mdb_txn_commit(txn));
    }
    mdb_env_close(env);
  });
}
BENCHMARK(store_lmdb)->UseManualTime()->Iterations(1)->Unit(benchmark::kMillisecond);

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (argc != 4) {
    fmt::print(stderr, "usage: {} STORE CORPUS SCRATCH [--benchmark_...]\n", argv[0]);
    return 2;
  }
  try {
    const Data all(argv[1], argv[2], argv[3]);
    data = &all;
    benchmark::RunSpecifiedBenchmarks();
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "micro: {}\n", error.what());
    return 1;
  }
}
