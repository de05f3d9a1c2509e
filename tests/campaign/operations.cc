#include "operations.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <functional>
#include <stdexcept>

#include <fmt/format.h>

#include <tokcask/dataset.h>
#include <tokcask/merge.h>

#include "../tools/zip_bytes.h"

namespace tokcask::campaign {

namespace fs = std::filesystem;

namespace {

constexpr std::uint64_t kMiB = 1 << 20;
constexpr std::uint64_t kMoved = 60;  // entries that are merged or imported

void put(TokenizedCache& cache, const Name& name) { cache.put(key_of(name), content_of(name, 1).tokens()); }

void put_row(TokenizedCache& cache, std::uint64_t row, std::uint64_t entries) {
  for (std::uint64_t i = 0; i < entries; ++i) put(cache, {row, i});
}

void flush(TokenizedCache& cache, const Round& round, std::uint64_t entries) {
  cache.flush();
  round.board->victim().flushed = entries;
}

void create(const Round& round) {
  round.begin();
  auto cache = TokenizedCache::open(round.root(), options_of(round.rules));
  put_row(cache, round.row(), 3);
  flush(cache, round, 3);
}

// The commit thread does the work.
void put_many(const Round& round) {
  Options options = options_of(round.rules);
  options.batch_age = std::chrono::milliseconds(1);
  auto cache = TokenizedCache::open(round.root(), options);
  round.begin();
  for (std::uint64_t i = 0; i < 60; ++i) {
    put(cache, {round.row(), i});
    if (i % 10 == 9) usleep(500);
  }
  flush(cache, round, 60);
}

void flush_many(const Round& round) {
  auto cache = TokenizedCache::open(round.root(), options_of(round.rules));
  put_row(cache, round.row(), 40);
  round.begin();
  flush(cache, round, 40);
}

void evict(const Round& round) {
  auto cache = TokenizedCache::open(round.root(), options_of(round.rules));
  put_row(cache, round.row(), 150);
  round.begin();
  cache.flush();
}

void prune(const Round& round) {
  auto cache = TokenizedCache::open(round.root(), options_of(round.rules));
  put_row(cache, kOtherRow, kOtherEntries);
  cache.flush();
  PruneOptions others;
  const CacheKey other = key_of({kOtherRow, 0});
  others.tokenizer_sha = other.tokenizer_sha();
  round.begin();
  cache.prune(others);
}

void clear(const Round& round) {
  auto cache = TokenizedCache::open(round.root(), options_of(round.rules));
  put_row(cache, kBaseRow, kBaseEntries);
  cache.flush();
  round.begin();
  cache.clear();
}

// What wants the store alone is refused while the crowd has it open.
void where_alone(const std::function<void()>& act) {
  try {
    act();
  } catch (const Error& error) {
    if (error.code() != Errc::kBusy) throw;
  }
}

void compact(const Round& round) {
  auto cache = TokenizedCache::open(round.root(), options_of(round.rules));
  round.begin();
  where_alone([&] { cache.compact(); });
}

fs::path input_of(const Round& round) { return round.directory / fmt::format("input-{}", round.number); }

void make_input(const Round& round) {
  auto cache = TokenizedCache::open(input_of(round), {.on_message = silence()});
  put_row(cache, round.row(), kMoved);
}

void merge_input(const Round& round) {
  auto cache = TokenizedCache::open(round.root(), options_of(round.rules));
  std::vector<TokenizedCache> inputs;
  inputs.push_back(TokenizedCache::open(input_of(round), {.read_only = true, .on_message = silence()}));
  round.begin();
  static_cast<void>(merge(cache, inputs));
  round.board->victim().flushed = kMoved;
}

void write(const fs::path& file, std::string_view text) {
  fs::create_directories(file.parent_path());
  std::ofstream stream(file, std::ios::binary);
  stream << text;
  if (!stream.flush()) throw std::runtime_error("cannot write " + file.string());
}

void make_npz(const Round& round) {
  std::string entries;
  for (std::uint64_t i = 0; i < kMoved; ++i) {
    const Name name{round.row(), i};
    const Content content = content_of(name, 1);
    const std::vector<std::int64_t> ids(content.ids.begin(), content.ids.end());
    const std::string npz = test::npz_of(ids, std::vector<std::int64_t>(ids.size(), 1));
    write(input_of(round) / "entries/aa" / fmt::format("{}.npz", i), npz);
    const CacheKey key = key_of(name);
    entries += fmt::format(
        R"({}"{}": {{"size": {}, "last_access_ts": 1700000000.5, "shard": "aa", "filename": "{}.npz", "tokenizer_sha": "{}"}})",
        i == 0 ? "" : ",", key.canonical(), npz.size(), i, key.tokenizer_sha());
  }
  write(input_of(round) / "manifest.json",
        fmt::format(R"({{"version": 1, "tokenizer_sha256": "a", "total_bytes": 0, "entries": {{{}}}}})",
                    entries));
}

void import_npz(const Round& round) {
  const int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
  dup2(nowhere, STDOUT_FILENO);
  dup2(nowhere, STDERR_FILENO);
  round.begin();
  execl(round.program.c_str(), "tokcask", "import-npz", input_of(round).c_str(), round.root().c_str(),
        nullptr);
  _exit(kThrew);
}

// A quarter less each time, as far as that is allowed.
void lower(const Round& round) {
  const std::uint64_t bytes = fs::file_size(round.root() / "data.mdb");
  Options options = options_of(round.rules);
  options.max_bytes = std::max(bytes * 3 / 4, Options::kMinMaxBytes);
  options.shrink = true;
  round.begin();
  where_alone([&] { TokenizedCache::open(round.root(), options).close(); });
}

void run(const Round& round) {
  round.begin();
  for (std::uint64_t i = 0; i < 4; ++i) {
    Options options = options_of(round.rules);
    options.read_only = i % 2 == 1;
    auto cache = TokenizedCache::open(round.root(), options);
    static_cast<void>(cache.get(key_of({kBaseRow, i})));
    if (options.read_only) continue;
    put(cache, {round.row(), i / 2});
    cache.close();
    round.board->victim().flushed = i / 2 + 1;
  }
}

void lose_access_table(const Round& round) { fs::remove(round.root() / "access.shm"); }

void make_access_table(const Round& round) {
  round.begin();
  auto cache = TokenizedCache::open(round.root(), options_of(round.rules));
  for (std::uint64_t i = 0; i < kBaseEntries; ++i) static_cast<void>(cache.get(key_of({kBaseRow, i})));
}

void make_key_tables(const Round& round) {
  Random random(round.seed);
  round.begin();
  for (int i = 0; i < 5; ++i) {
    std::vector<CacheKey> keys;
    for (std::uint64_t n = 20 + below(random, 200); n > 0; --n)
      keys.push_back(key_of({kBaseRow, below(random, kBaseEntries)}));
    auto dataset =
        TokenDataset::open(round.root(), keys, {.missing = MissingKeys::kKeep, .on_message = silence()});
    for (std::size_t k = 0; k < keys.size(); ++k) static_cast<void>(dataset.get(k));
  }
}

void damage_store(const Round& round) {
  Random random(round.seed);
  const fs::path data = round.root() / "data.mdb";
  const std::uint64_t size = fs::file_size(data);
  std::fstream file(data, std::ios::binary | std::ios::in | std::ios::out);
  // Pages in the middle, or a meta page: more often than not it cannot be opened then.
  for (int i = 0; i < 4; ++i) {
    const std::string noise(4096, static_cast<char>(random()));
    file.seekp(
        static_cast<std::streamoff>(i == 0 ? 4096 * below(random, 2) : 4096 * below(random, size / 4096)));
    file.write(noise.data(), static_cast<std::streamsize>(noise.size()));
  }
  if (!file.flush()) throw std::runtime_error("cannot damage " + data.string());
}

void salvage(const Round& round) {
  round.begin();
  auto cache = TokenizedCache::open(round.root(), options_of(round.rules));
}

}  // namespace

void put_base(TokenizedCache& cache) {
  put_row(cache, kBaseRow, kBaseEntries);
  put_row(cache, kOtherRow, kOtherEntries);
}

const std::vector<Operation>& operations() {
  static const Rules kAll{};
  static const Rules kNothing{.has_base = false, .max_bytes = {}};
  static const Rules kPruned{.other_row_stays = false, .max_bytes = {}};
  static const Rules kCleared{.promise = Promise::kBaseOnce, .max_bytes = {}};
  static const Rules kLess{.promise = Promise::kRight, .max_bytes = {}};
  static const Rules kCapped{.promise = Promise::kRight, .max_bytes = kMiB};
  static const Rules kImpatient{.max_bytes = {}, .lock_timeout = std::chrono::milliseconds(150)};
  static const std::vector<Operation> all = {
      {.name = "create",
       .what = "creating a store",
       .rules = kNothing,
       .rounds = 1,
       .makes = true,
       .act = create},
      {.name = "put", .what = "put", .rules = kAll, .act = put_many},
      {.name = "flush", .what = "flush", .rules = kAll, .act = flush_many},
      {.name = "evict", .what = "eviction at the cap", .rules = kCapped, .act = evict},
      {.name = "prune", .what = "prune", .rules = kPruned, .act = prune},
      {.name = "clear", .what = "clear", .rules = kCleared, .act = clear},
      {.name = "compact", .what = "compact", .rules = kAll, .act = compact},
      {.name = "merge", .what = "merge", .rules = kAll, .prepare = make_input, .act = merge_input},
      {.name = "import", .what = "import-npz", .rules = kAll, .prepare = make_npz, .act = import_npz},
      {.name = "lower", .what = "lowering the budget", .rules = kLess, .rounds = 3, .act = lower},
      {.name = "run", .what = "beginning and ending runs", .rules = kAll, .act = run},
      {.name = "access",
       .what = "making access.shm",
       .rules = kAll,
       .rounds = 1,
       .makes = true,
       .prepare = lose_access_table,
       .act = make_access_table},
      {.name = "keys", .what = "making key tables", .rules = kAll, .act = make_key_tables},
      {.name = "salvage",
       .what = "opening a damaged store",
       .rules = kLess,
       .rounds = 1,
       .makes = true,
       .prepare = damage_store,
       .act = salvage},
      {.name = "writer", .what = "a writer among two", .rules = kAll, .who = Who::kWriter},
      {.name = "reader", .what = "a reader among four", .rules = kAll, .who = Who::kReader},
      {.name = "stop", .what = "a writer stopped, not killed", .rules = kImpatient, .who = Who::kStopped},
  };
  return all;
}

}  // namespace tokcask::campaign
