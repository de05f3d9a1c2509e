// A cache at its cap: how large the file gets, and how fast puts are, beside the same puts and deletes
// through LMDB alone. See bench/README.md.
#include <sys/stat.h>

#include <atomic>
#include <deque>
#include <mutex>
#include <optional>
#include <thread>
#include <type_traits>

#include "lmdb_alone.h"
#include "support.h"

namespace {

using namespace bench;
using namespace std::chrono_literals;
using tokcask::TokenizedCache;

// Entries that a run puts or reads are protected, and one that put more than fits would be declined; so a
// turnover is several runs.
constexpr int kRunsPerTurnover = 4;

// ---- What is put ----

enum class Case { kFixed, kUniform, kMixed, kFragmentation };

Case case_of(const std::string& name) {
  if (name == "fixed") return Case::kFixed;
  if (name == "uniform") return Case::kUniform;
  if (name == "mixed") return Case::kMixed;
  if (name == "fragmentation") return Case::kFragmentation;
  throw std::invalid_argument(name + " is no case: fixed, uniform, mixed, fragmentation");
}

constexpr std::size_t kOnePage = kPage - kPageHeader - kRecordHeader;
constexpr std::size_t k33Pages = 33 * kPage - kPageHeader - kRecordHeader;

class Source {
 public:
  Source(Case what, std::uint64_t seed) : case_(what), random_(seed) {}

  // New items of about `bytes`.
  std::vector<Item> take(std::uint64_t bytes) {
    return take_sized(bytes, [&] { return payload(); }, false);
  }
  // One-page items, each of them doomed with probability 1/2.
  std::vector<Item> take_small(std::uint64_t bytes) {
    return take_sized(bytes, [] { return kOnePage; }, true);
  }

 private:
  template <typename Size>
  std::vector<Item> take_sized(std::uint64_t bytes, Size size, bool doom) {
    std::vector<Item> items;
    for (std::uint64_t taken = 0; taken < bytes; taken += items.back().payload())
      items.push_back({next_++, size() / sizeof(std::int32_t), doom && random_() % 2 == 0});
    return items;
  }
  std::size_t between(std::size_t least, std::size_t most) {
    return std::uniform_int_distribution<std::size_t>(least, most)(random_);
  }
  std::size_t payload() {
    switch (case_) {
      case Case::kFixed:
        return 8192;
      case Case::kUniform:
        return between(512, 32768);
      case Case::kMixed:
        return random_() % 10 == 0 ? 131072 : between(512, 4096);
      case Case::kFragmentation:
        return k33Pages;
    }
    return 0;
  }

  const Case case_;
  std::mt19937_64 random_;
  std::uint64_t next_ = 0;
};

// ---- Ours ----

// Declines are counted; a line each would be in the way.
void silence(tokcask::Severity /*severity*/, std::string_view /*text*/) {}

// Holds each view that `get` gives, until stopped, for a while: about 64 at a time.
class Reader {
 public:
  // `begin` is called in the reader's thread and returns what gets a view, or nothing.
  template <typename Begin>
  Reader(std::chrono::milliseconds held, Begin begin)
      : thread_([this, held, begin = std::move(begin)] { read(begin(), held); }) {}
  ~Reader() {
    stop_ = true;
    thread_.join();
  }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

 private:
  template <typename Get>
  void read(Get get, std::chrono::milliseconds held) {
    constexpr int kViews = 64;
    std::deque<std::pair<Clock::time_point, typename std::invoke_result_t<Get>::value_type>> views;
    while (!stop_) {
      const auto now = Clock::now();
      // By age and not by number: a view that no new one replaces would hold all pages freed since.
      while (!views.empty() && now - views.front().first >= held) views.pop_front();
      if (auto view = get()) views.emplace_back(now, *std::move(view));
      std::this_thread::sleep_for(std::chrono::microseconds(held) / kViews);
    }
  }

  std::atomic<bool> stop_{false};
  std::thread thread_;
};

class Ours {
 public:
  Ours(std::filesystem::path root, std::uint64_t budget, std::chrono::milliseconds held)
      : root_(std::move(root)), budget_(budget), held_(held) {
    open();
  }

  void begin_run(std::uint64_t seed) {
    reader_.reset();
    close();
    open();
    if (held_ == 0ms) return;
    // Of the keys that there are now. Its handle is a run too.
    reader_.emplace(held_, [root = root_, keys = cache_->keys(), seed] {
      tokcask::Options options;
      options.read_only = true;
      options.on_message = silence;
      return [cache = TokenizedCache::open(root, std::move(options)), keys,
              random = std::mt19937_64(seed)]() mutable {
        return keys.empty() ? std::nullopt : cache.get(keys[random() % keys.size()]);
      };
    });
  }

  // Puts all and commits.
  void put(std::span<const Item> items, const Ids& ids) {
    for (const Item& item : items) {
      tokcask::PutOptions options;
      if (item.doomed) options.last_access_ns = kLongAgo;
      cache_->put(key_of(item.number), {.input_ids = ids.take(item.number, item.length)}, options);
    }
    cache_->flush();
  }

  void prune() { cache_->prune(std::chrono::hours(24 * 365)); }

  // Of all runs so far.
  [[nodiscard]] std::uint64_t declined() { return declined_ + cache_->stats().run.declined; }
  [[nodiscard]] std::uint64_t live_bytes() { return cache_->stats().total_bytes; }
  void finish() {
    reader_.reset();
    close();
  }

 private:
  static constexpr std::uint64_t kLongAgo = 1'000'000'000;  // 1970

  void open() {
    tokcask::Options options;
    options.max_bytes = budget_;
    options.on_message = silence;
    cache_.emplace(TokenizedCache::open(root_, std::move(options)));
  }
  void close() {
    cache_->flush();
    declined_ += cache_->stats().run.declined;
    cache_.reset();
  }

  const std::filesystem::path root_;
  const std::uint64_t budget_;
  const std::chrono::milliseconds held_;  // 0: no reader
  std::optional<TokenizedCache> cache_;
  std::optional<Reader> reader_;
  std::uint64_t declined_ = 0;
};

// ---- Measuring ----

// The greatest size that a file was seen to have, looked at every 5 ms.
class Sampler {
 public:
  explicit Sampler(std::filesystem::path file) : file_(std::move(file)), thread_([this] { watch(); }) {}
  ~Sampler() {
    stop_ = true;
    thread_.join();
  }
  Sampler(const Sampler&) = delete;
  Sampler& operator=(const Sampler&) = delete;
  [[nodiscard]] std::uint64_t highest() const { return highest_; }

 private:
  void watch() {
    while (!stop_) {
      struct stat info = {};
      if (::stat(file_.c_str(), &info) == 0)
        highest_ = std::max(highest_.load(), static_cast<std::uint64_t>(info.st_size));
      std::this_thread::sleep_for(5ms);
    }
  }
  const std::filesystem::path file_;
  std::atomic<std::uint64_t> highest_{0};
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

// Payload bytes and the seconds that they took, of both.
struct Measured {
  std::uint64_t bytes = 0;
  std::uint64_t puts = 0;
  std::uint64_t declined = 0;
  double ours = 0.0;
  double raw = 0.0;
  [[nodiscard]] double raw_rate() const { return raw == 0.0 ? 0.0 : static_cast<double>(bytes) / 1e6 / raw; }
  // Of what was stored: what was declined cost next to nothing.
  [[nodiscard]] double our_rate() const {
    const double stored = puts == 0 ? 0.0 : 1.0 - static_cast<double>(declined) / static_cast<double>(puts);
    return ours == 0.0 ? 0.0 : stored * static_cast<double>(bytes) / 1e6 / ours;
  }
};

struct Result {
  std::string name;
  double highest = 0.0;  // of max_bytes
  double raw_highest = 0.0;
  double ours = 0.0;  // MB/s
  double raw = 0.0;
  double ratio = 0.0;
  std::uint64_t puts = 0;
  std::uint64_t declined = 0;
};

class Trial {
 public:
  Trial(std::string name, std::uint64_t budget, int turnovers, std::uint64_t seed,
        std::chrono::milliseconds held)
      : name_(std::move(name)),
        case_(case_of(name_)),
        budget_(budget),
        turnovers_(turnovers),
        seed_(seed),
        held_(held),
        ids_(seed),
        source_(case_, seed),
        ours_(directory_ / "ours", budget, held),
        raw_(directory_ / "raw", budget),
        our_size_(directory_ / "ours" / "data.mdb"),
        raw_size_(directory_ / "raw" / "data.mdb") {}

  Result run() {
    for (int turnover = 0; turnover < turnovers_; ++turnover) {
      Measured measured;
      const std::uint64_t before = ours_.declined();
      for (int run = 0; run < kRunsPerTurnover; ++run) {
        const std::uint64_t seed = seed_ + static_cast<std::uint64_t>(turnover * kRunsPerTurnover + run);
        ours_.begin_run(seed);
        raw_reader_.reset();
        if (held_ > 0ms) read_raw(seed);
        one_run(measured);
      }
      measured.declined = ours_.declined() - before;
      report(turnover, measured);
    }
    ours_.finish();
    raw_reader_.reset();
    return summary();
  }

 private:
  // As ours is read: the keys that there are now, each value in a snapshot of its own.
  void read_raw(std::uint64_t seed) {
    raw_reader_.emplace(held_, [this, numbers = raw_.numbers(), seed] {
      return [this, numbers, random = std::mt19937_64(seed)]() mutable -> std::optional<LmdbAlone::View> {
        if (numbers.empty()) return std::nullopt;
        LmdbAlone::View view(raw_, numbers[random() % numbers.size()]);
        return view.value().empty() ? std::nullopt : std::optional(std::move(view));
      };
    });
  }

  void one_run(Measured& measured) {
    const std::uint64_t bytes = budget_ / kRunsPerTurnover;
    if (case_ == Case::kFragmentation) {
      // One-page entries, of which a random half is pruned; then large ones, for which no gap is wide enough.
      put(measured, source_.take_small(bytes / 2));
      time(measured.ours, [&] { ours_.prune(); });
      time(measured.raw, [&] { raw_.prune(); });
      put(measured, source_.take(bytes / 2));
    } else {
      put(measured, source_.take(bytes));
    }
  }

  // In slices, ours and LMDB's in turn, so that what else the machine does meets both.
  void put(Measured& measured, const std::vector<Item>& items) {
    const std::uint64_t slice_bytes = std::max<std::uint64_t>(std::min(128 * kMiB, budget_ / 8), kMiB);
    for (std::size_t begin = 0; begin < items.size();) {
      std::size_t end = begin;
      std::uint64_t bytes = 0;
      for (; end < items.size() && bytes < slice_bytes; ++end) bytes += items[end].payload();
      const std::span slice = std::span(items).subspan(begin, end - begin);
      time(measured.ours, [&] { ours_.put(slice, ids_); });
      // It keeps as much as ours does, and so deletes as much.
      const std::uint64_t live = ours_.live_bytes();
      time(measured.raw, [&] { raw_.put(slice, live, ids_); });
      measured.bytes += bytes;
      measured.puts += slice.size();
      begin = end;
    }
  }

  template <typename Act>
  static void time(double& seconds, Act act) {
    const auto begin = Clock::now();
    act();
    seconds += seconds_since(begin);
  }

  void report(int turnover, const Measured& m) {
    fmt::print(
        "{{\"case\": \"{}\", \"turnover\": {}, \"max_bytes\": {}, \"seed\": {}, \"bytes\": {}, \"puts\": {}, "
        "\"declined\": {}, \"seconds\": {:.4f}, \"lmdb_seconds\": {:.4f}, \"highest_bytes\": {}, "
        "\"lmdb_highest_bytes\": {}}}\n",
        name_, turnover, budget_, seed_, m.bytes, m.puts, m.declined, m.ours, m.raw, our_size_.highest(),
        raw_size_.highest());
    std::fflush(stdout);
    measured_.push_back(m);
  }

  // The first turnover fills the file: its rates are not those of a cache at its cap.
  Result summary() const {
    Result result;
    result.name = name_;
    result.highest = static_cast<double>(our_size_.highest()) / static_cast<double>(budget_);
    result.raw_highest = static_cast<double>(raw_size_.highest()) / static_cast<double>(budget_);
    std::vector<double> ours;
    std::vector<double> raw;
    std::vector<double> ratio;
    for (std::size_t i = 0; i < measured_.size(); ++i) {
      const Measured& m = measured_[i];
      result.puts += m.puts;
      result.declined += m.declined;
      if (i == 0 && measured_.size() > 1) continue;
      ours.push_back(m.our_rate());
      raw.push_back(m.raw_rate());
      ratio.push_back(m.raw_rate() == 0.0 ? 0.0 : m.our_rate() / m.raw_rate());
    }
    result.ours = median(ours);
    result.raw = median(raw);
    result.ratio = median(ratio);
    return result;
  }

  const std::string name_;
  const Case case_;
  const std::uint64_t budget_;
  const int turnovers_;
  const std::uint64_t seed_;
  const std::chrono::milliseconds held_;  // 0: no readers
  const Directory directory_;
  const Ids ids_;
  Source source_;
  Ours ours_;
  LmdbAlone raw_;
  std::optional<Reader> raw_reader_;
  Sampler our_size_;
  Sampler raw_size_;
  std::vector<Measured> measured_;
};

void print_table(std::span<const Result> results) {
  fmt::print(
      "\n| case | highest size / max_bytes | MB/s | LMDB MB/s | ratio (goal 0.8) | puts | declined | LMDB's "
      "highest / max_bytes |\n|---|--:|--:|--:|--:|--:|--:|--:|\n");
  for (const Result& r : results) {
    fmt::print("| {} | {:.4f} | {:.0f} | {:.0f} | {:.2f} | {} | {} | {:.2f} |\n", r.name, r.highest, r.ours,
               r.raw, r.ratio, r.puts, r.declined, r.raw_highest);
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const auto arguments = arguments_of(argc, argv,
                                        {{"--budget", "1G"},
                                         {"--turnovers", "10"},
                                         {"--case", "fixed,uniform,mixed,fragmentation"},
                                         {"--held-ms", "50"},
                                         {"--seed", "1"}});
    std::vector<Result> results;
    for (const std::string& name : words_of(arguments.at("--case"))) {
      Trial trial(name, bytes_of(arguments.at("--budget")), std::stoi(arguments.at("--turnovers")),
                  std::stoull(arguments.at("--seed")),
                  std::chrono::milliseconds(std::stoul(arguments.at("--held-ms"))));
      results.push_back(trial.run());
    }
    print_table(results);
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "turnover: {}\n", error.what());
    return 1;
  }
}
