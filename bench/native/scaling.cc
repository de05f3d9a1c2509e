// How look-ups and puts scale with threads, beside LMDB alone: a hit, a miss and a put by key, with 1, 2, 4
// and 8 threads.
//
//   scaling SCRATCH [ENTRIES [ROUNDS]]
//
// Makes a store of ENTRIES (20,000) entries of 1,000 tokens in SCRATCH, and a copy of its file for LMDB
// alone. There each thread has a read transaction of its own, which it renews and resets for each look-up, as
// one that holds no page must. Rounds (5) of both alternate; prints a row for each: ns of wall time per
// look-up and thread, medians, and look-ups a second of all threads.
#include <lmdb.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <random>
#include <thread>
#include <vector>

#include <fmt/format.h>
#include <tokcask/cache.h>

#include "lmdb_reader.h"

namespace {

using namespace bench;
using tokcask::CacheKey;
using tokcask::TokenizedCache;
using Clock = std::chrono::steady_clock;

constexpr std::size_t kTokens = 1000;
constexpr std::uint64_t kSeed = 20261130;
constexpr int kThreads[] = {1, 2, 4, 8};
constexpr std::size_t kLookUps = 60'000;  // of each thread
constexpr std::size_t kPuts = 4'000;      // of all threads

CacheKey key_of(std::uint64_t i) {
  return {tokcask::section_id(std::to_string(i)), std::string(64, 'a'), 4096};
}

std::string padded(const CacheKey& key) {
  std::string text = key.canonical();
  text.resize((text.size() + 7) / 8 * 8);
  return text;
}

// Seconds that `work(thread, i)` takes for i = 0 .. each - 1 in each of `threads` threads.
double timed(int threads, std::size_t each, const std::function<void(int, std::size_t)>& work) {
  std::atomic<int> ready{0};
  std::atomic<bool> go{false};
  std::vector<std::thread> running;
  for (int t = 0; t < threads; ++t) {
    running.emplace_back([&, t] {
      ++ready;
      while (!go) std::this_thread::yield();
      for (std::size_t i = 0; i < each; ++i) work(t, i);
    });
  }
  while (ready < threads) std::this_thread::yield();
  const auto began = Clock::now();
  go = true;
  for (std::thread& thread : running) thread.join();
  return std::chrono::duration<double>(Clock::now() - began).count();
}

// LMDB alone, written and read by many threads.
class Lmdb {
 public:
  explicit Lmdb(const std::filesystem::path& directory) {
    check_lmdb(mdb_env_create(&env_));
    check_lmdb(mdb_env_set_maxdbs(env_, 4));
    check_lmdb(mdb_env_set_mapsize(env_, std::size_t{1} << 40));
    check_lmdb(mdb_env_open(env_, directory.c_str(), MDB_NOTLS, 0600));
    MDB_txn* txn = nullptr;
    check_lmdb(mdb_txn_begin(env_, nullptr, 0, &txn));
    check_lmdb(mdb_dbi_open(txn, "records", MDB_CREATE, &dbi_));
    check_lmdb(mdb_txn_commit(txn));
  }
  ~Lmdb() {
    for (MDB_txn* txn : readers_) mdb_txn_abort(txn);
    mdb_env_close(env_);
  }
  Lmdb(const Lmdb&) = delete;
  Lmdb& operator=(const Lmdb&) = delete;

  void make_readers(int threads) {
    while (readers_.size() < static_cast<std::size_t>(threads)) {
      check_lmdb(mdb_txn_begin(env_, nullptr, MDB_RDONLY, &readers_.emplace_back()));
      mdb_txn_reset(readers_.back());
    }
  }
  // The first id behind the record's header, or 0.
  [[nodiscard]] std::int32_t get(int thread, const std::string& key) const {
    MDB_txn* const txn = readers_[static_cast<std::size_t>(thread)];
    check_lmdb(mdb_txn_renew(txn));
    MDB_val k{key.size(), const_cast<char*>(key.data())};
    MDB_val v;
    std::int32_t first = 0;
    if (mdb_get(txn, dbi_, &k, &v) == MDB_SUCCESS) std::memcpy(&first, static_cast<char*>(v.mv_data) + 48, 4);
    mdb_txn_reset(txn);
    return first;
  }
  void put(const std::vector<std::string>& keys, std::size_t from, std::size_t count,
           const std::vector<char>& value) {
    MDB_txn* txn = nullptr;
    check_lmdb(mdb_txn_begin(env_, nullptr, 0, &txn));
    for (std::size_t i = from; i < from + count; ++i) {
      MDB_val k{keys[i].size(), const_cast<char*>(keys[i].data())};
      MDB_val v{value.size(), const_cast<char*>(value.data())};
      check_lmdb(mdb_put(txn, dbi_, &k, &v, 0));
    }
    check_lmdb(mdb_txn_commit(txn));
  }

 private:
  MDB_env* env_ = nullptr;
  MDB_dbi dbi_ = 0;
  std::vector<MDB_txn*> readers_;
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

struct Keys {
  std::vector<CacheKey> keys;
  std::vector<std::string> padded_keys;
  void add(CacheKey key) {
    padded_keys.push_back(padded(key));
    keys.push_back(std::move(key));
  }
};

Keys keys_of(std::uint64_t from, std::size_t count) {
  Keys made;
  for (std::uint64_t i = from; i < from + count; ++i) made.add(key_of(i));
  return made;
}

std::atomic<std::int64_t> sink{0};

void compare(const char* what, const Keys& keys, TokenizedCache& cache, Lmdb& lmdb, int rounds) {
  double alone = 0;
  for (const int threads : kThreads) {
    lmdb.make_readers(threads);
    std::vector<double> ours;
    std::vector<double> theirs;
    // Each thread begins elsewhere.
    const auto at = [&](int t, std::size_t i) {
      return (i + static_cast<std::size_t>(t) * 7919) % keys.keys.size();
    };
    for (int round = 0; round < rounds; ++round) {
      ours.push_back(timed(threads, kLookUps, [&](int t, std::size_t i) {
        const auto view = cache.get(keys.keys[at(t, i)]);
        if (view) sink.store(view->input_ids()[0], std::memory_order_relaxed);
      }));
      theirs.push_back(timed(threads, kLookUps, [&](int t, std::size_t i) {
        sink.store(lmdb.get(t, keys.padded_keys[at(t, i)]), std::memory_order_relaxed);
      }));
    }
    const double ns = median(ours) / kLookUps * 1e9;
    const double lmdb_ns = median(theirs) / kLookUps * 1e9;
    const double rate = threads / ns * 1e3;
    if (threads == 1) alone = rate;
    fmt::print(
        "{:5} {} threads: {:6.0f} ns, LMDB {:6.0f} ns, ratio {:.2f}; {:5.2f} million/s, LMDB {:5.2f}; {:.2f} "
        "x one\n",
        what, threads, ns, lmdb_ns, ns / lmdb_ns, rate, threads / lmdb_ns * 1e3, rate / alone);
  }
}

void compare_puts(std::uint64_t from, TokenizedCache& cache, Lmdb& lmdb, int rounds) {
  const std::vector<std::int32_t> ids(kTokens, 7);
  const std::vector<char> value(48 + 4 * kTokens, 7);
  std::vector<double> ours;
  std::vector<double> theirs;
  for (int round = 0; round < rounds; ++round) {
    const Keys keys = keys_of(from + static_cast<std::uint64_t>(round) * kPuts, kPuts);
    ours.push_back(timed(1, 1, [&](int, std::size_t) {
      for (std::size_t i = 0; i < kPuts; ++i) {
        cache.put(keys.keys[i], {.input_ids = ids});
        if (i % 1000 == 999) cache.flush();
      }
    }));
    theirs.push_back(timed(1, 1, [&](int, std::size_t) {
      for (std::size_t i = 0; i < kPuts; i += 1000) lmdb.put(keys.padded_keys, i, 1000, value);
    }));
  }
  const double ns = median(ours) / kPuts * 1e9;
  const double lmdb_ns = median(theirs) / kPuts * 1e9;
  fmt::print("put, 1,000 at a time: {:6.0f} ns, LMDB {:6.0f} ns, ratio {:.2f}\n", ns, lmdb_ns, ns / lmdb_ns);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    fmt::print(stderr, "usage: scaling SCRATCH [ENTRIES [ROUNDS]]\n");
    return 2;
  }
  const std::filesystem::path scratch = argv[1];
  const std::size_t entries = argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 20'000;
  const int rounds = argc > 3 ? std::atoi(argv[3]) : 5;
  Keys hits = keys_of(0, entries);
  {
    auto cache = TokenizedCache::open(scratch / "store");
    for (std::size_t i = 0; i < entries; ++i)
      cache.put(hits.keys[i],
                {.input_ids = std::vector<std::int32_t>(kTokens, static_cast<std::int32_t>(i + 1))});
  }
  std::filesystem::create_directories(scratch / "copy");
  std::filesystem::copy_file(scratch / "store" / "data.mdb", scratch / "copy" / "data.mdb",
                             std::filesystem::copy_options::overwrite_existing);
  std::mt19937_64 random(kSeed);
  std::vector<std::size_t> order(entries);
  for (std::size_t i = 0; i < entries; ++i) order[i] = i;
  std::shuffle(order.begin(), order.end(), random);
  Keys shuffled;
  for (const std::size_t i : order) shuffled.add(hits.keys[i]);

  auto cache = TokenizedCache::open(scratch / "store");
  Lmdb lmdb(scratch / "copy");
  for (const CacheKey& key : shuffled.keys) static_cast<void>(cache.get(key));  // checked once
  compare("hit", shuffled, cache, lmdb, rounds);
  compare("miss", keys_of(10'000'000, entries), cache, lmdb, rounds);
  compare_puts(20'000'000, cache, lmdb, rounds);
}
