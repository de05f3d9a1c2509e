// Opens, resolves all keys, and reads the first token of each or sums all: one whole pass, as a process of
// its own. Prints a line of JSON. By `way`:
//   tokcask   a TokenDataset of all keys, 64 items at a time
//   get       TokenizedCache::get_many, 1,000 keys at a time
//   lmdb      mdb_get of raw ids under the same keys
//   flat      the corpus itself: one contiguous array, mapped
//   read      no tokens: reads the file of `store` from begin to end, a mebibyte at a time
#include <fcntl.h>
#include <unistd.h>

#include <chrono>

#include <fmt/format.h>
#include <tokcask/cache.h>
#include <tokcask/dataset.h>

#include "corpus.h"
#include "lmdb_reader.h"

namespace {

using namespace bench;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

struct Figures {
  double open_seconds = 0.0;
  double seconds = 0.0;
  std::int64_t sum = 0;
};

class Pass {
 public:
  explicit Pass(bool everything) : everything_(everything), begin_(Clock::now()) {}
  void opened() { figures_.open_seconds = seconds_since(begin_); }
  void take(std::span<const std::int32_t> ids) {
    if (everything_) {
      figures_.sum += bench::sum(ids);
    } else if (!ids.empty()) {
      figures_.sum += ids.front();
    }
  }
  Figures end() {
    figures_.seconds = seconds_since(begin_);
    return figures_;
  }

 private:
  bool everything_;
  Clock::time_point begin_;
  Figures figures_;
};

Figures by_dataset(const std::string& store, const Corpus& corpus, bool everything, bool populate) {
  Pass pass(everything);
  tokcask::DatasetOptions options;
  options.populate = populate;
  auto dataset = tokcask::TokenDataset::open(store, corpus.keys(), options);
  pass.opened();
  // As a pass over all items is made where it is to be fast.
  constexpr std::size_t kBatch = 64;
  std::vector<std::size_t> batch;
  for (std::size_t i = 0; i < dataset.size();) {
    batch.clear();
    while (i < dataset.size() && batch.size() < kBatch) batch.push_back(i++);
    for (const auto& view : dataset.get_many(batch)) pass.take(view.value().input_ids());
  }
  return pass.end();
}

Figures by_get_many(const std::string& store, const Corpus& corpus, bool everything) {
  Pass pass(everything);
  tokcask::Options options;
  options.read_only = true;
  auto cache = tokcask::TokenizedCache::open(store, options);
  pass.opened();
  const std::span keys(corpus.keys());
  for (std::size_t i = 0; i < keys.size(); i += 1000) {
    const auto views = cache.get_many(keys.subspan(i, std::min<std::size_t>(1000, keys.size() - i)));
    for (const auto& view : views) pass.take(view.value().input_ids());
  }
  return pass.end();
}

Figures by_lmdb(const std::string& store, const Corpus& corpus, bool everything) {
  Pass pass(everything);
  const LmdbReader reader(store, "");
  pass.opened();
  for (const tokcask::CacheKey& key : corpus.keys()) {
    const std::span<const char> value = reader.get(key.canonical());
    // Values may lie at odd addresses; the compiler's vector loads do not mind.
    pass.take({reinterpret_cast<const std::int32_t*>(value.data()), value.size() / sizeof(std::int32_t)});
  }
  return pass.end();
}

Figures by_flat(const std::string& directory, bool everything) {
  Pass pass(everything);
  const Array<std::int32_t> ids(std::filesystem::path(directory) / "ids.npy");
  const Array<std::int64_t> offsets(std::filesystem::path(directory) / "offsets.npy");
  pass.opened();
  if (everything) {
    pass.take(ids.values());
  } else {
    for (std::size_t i = 0; i + 1 < offsets.values().size(); ++i) {
      const auto begin = static_cast<std::size_t>(offsets.values()[i]);
      if (begin < static_cast<std::size_t>(offsets.values()[i + 1]))
        pass.take(ids.values().subspan(begin, 1));
    }
  }
  return pass.end();
}

Figures by_read(const std::string& file) {
  Pass pass(false);
  pass.opened();
  read_through(file);
  return pass.end();
}

Figures read(const std::string& way, bool everything, const std::string& store, const std::string& corpus) {
  if (way == "flat") return by_flat(corpus, everything);
  if (way == "read") return by_read(store);
  const Corpus keys(corpus);
  if (way == "tokcask" || way == "populate") return by_dataset(store, keys, everything, way == "populate");
  if (way == "get") return by_get_many(store, keys, everything);
  if (way == "lmdb") return by_lmdb(store, keys, everything);
  throw std::invalid_argument("no way " + way);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) {
    fmt::print(stderr, "usage: {} tokcask|populate|get|lmdb|flat|read first|sum STORE CORPUS\n", argv[0]);
    return 2;
  }
  try {
    const Figures figures = read(argv[1], std::string(argv[2]) == "sum", argv[3], argv[4]);
    fmt::print("{{\"open\": {:.9f}, \"seconds\": {:.9f}, \"sum\": {}}}\n", figures.open_seconds,
               figures.seconds, figures.sum);
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "reader: {}\n", error.what());
    return 1;
  }
}
