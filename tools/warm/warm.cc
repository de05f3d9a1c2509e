#include "warm/warm.h"

#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <deque>
#include <exception>
#include <filesystem>
#include <future>
#include <memory>
#include <optional>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "warm/reader.h"
#include "warm/sources.h"
#include "warm/tokenizer_source.h"

namespace tokcask::warm {
namespace {

using Clock = std::chrono::steady_clock;

// Adds the time from its making to its end to a sum.
class Stopwatch {
 public:
  explicit Stopwatch(double& sum) : sum_(sum) {}
  ~Stopwatch() { sum_ += std::chrono::duration<double>(Clock::now() - start_).count(); }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

 private:
  double& sum_;
  Clock::time_point start_ = Clock::now();
};

constexpr std::uint64_t kKeptContentBytes = std::uint64_t{256} << 20;
constexpr std::size_t kKeysPerLookup = std::size_t{1} << 16;

unsigned resolve_jobs(unsigned jobs) {
  return jobs != 0 ? jobs : std::max(1U, std::thread::hardware_concurrency());
}

// Adds the store's directory and all that is in it to what the walk must not touch. A store may lie inside
// its corpus, and reading the lock file would be worse than useless: closing any descriptor of it drops the
// locks that this process holds through another (fcntl(2), "record locks").
void keep_out(const std::filesystem::path& store, corpus::WalkOptions& walk) {
  struct stat status;
  if (::stat(store.c_str(), &status) == 0) walk.never.emplace_back(status.st_dev, status.st_ino);
  std::error_code error;
  std::filesystem::directory_iterator entry(store, error);
  for (; !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
    if (::lstat(entry->path().c_str(), &status) == 0) {
      walk.never.emplace_back(status.st_dev, status.st_ino);
    }
  }
}

class Run {
 public:
  Run(TokenizedCache& cache, const WarmOptions& options, const cli::TokenizerLoader& load, Monitor& monitor)
      : cache_(cache),
        options_(options),
        monitor_(monitor),
        jobs_(resolve_jobs(options.jobs)),
        tokenizer_(options.tokenizer, load, jobs_) {}

  WarmFigures run() {
    {
      const Stopwatch total(figures_.seconds.total);
      if (find_work() && !misses_.empty()) tokenize_misses();
      if (!monitor_.stopped()) look_up_repeats();
      finish();
    }
    return std::move(figures_);
  }

 private:
  // Everything up to knowing which sections are missing. False when stopped on the way.
  bool find_work() {
    identify_tokenizer();
    {
      const Stopwatch scan(figures_.seconds.scan);
      if (!scan_corpus()) return false;
      look_up();
    }
    if (!misses_.empty() && load_tokenizer()) {
      // The file is not what its remembered identity says: the keys were another tokenizer's.
      const Stopwatch scan(figures_.seconds.scan);
      look_up();
    }
    start_directories();
    return true;
  }

  void identify_tokenizer() {
    const Stopwatch loading(figures_.seconds.tokenize);
    figures_.tokenizer_sha = tokenizer_.sha256(cache_, budget_);
  }

  // Returns whether the tokenizer turned out to be another than expected.
  bool load_tokenizer() {
    const Stopwatch loading(figures_.seconds.tokenize);
    tokenizer_.load(cache_, budget_);
    const std::string& sha = tokenizer_.sha256(cache_, budget_);
    return std::exchange(figures_.tokenizer_sha, sha) != sha;
  }

  bool scan_corpus() {
    monitor_.begin("scanning", 0);
    corpus::WalkOptions walk = options_.walk;
    walk.stop = [this] { return monitor_.stopped(); };
    keep_out(cache_.root(), walk);
    sources_.emplace(corpus::walk(options_.corpus, walk));
    if (monitor_.stopped()) return false;
    if (!options_.rehash) sources_->recall(cache_);
    std::vector<std::uint32_t> unknown;
    for (std::uint32_t i = 0; i < sources_->files().size(); ++i) {
      if (sources_->files()[i].state == SourceState::kUnknown) unknown.push_back(i);
    }
    monitor_.begin("reading", unknown.size());
    examine_all(*sources_, unknown, jobs_, budget_, kept_, monitor_);
    return !monitor_.stopped();
  }

  // Sorts the sections into those present, those missing, and repeats of either.
  void look_up() {
    std::vector<std::uint32_t> order;
    const auto files = sources_->files();
    for (std::uint32_t i = 0; i < files.size(); ++i) {
      files[i].pending = false;
      if (files[i].state == SourceState::kSection) order.push_back(i);
    }
    // Sorted keys make one pass over the tree. The order of the bytes is that of their hex digits.
    std::stable_sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) {
      return std::memcmp(files[a].section.data(), files[b].section.data(), sizeof(SectionBytes)) < 0;
    });
    repeats_.clear();
    std::vector<std::uint32_t> unique;
    for (const std::uint32_t index : order) {
      const bool repeat = !unique.empty() && files[unique.back()].section == files[index].section;
      (repeat ? repeats_ : unique).push_back(index);
    }
    misses_ = missing_of(unique);
    figures_.hits = unique.size() - misses_.size();
    figures_.misses = misses_.size();
    std::sort(misses_.begin(), misses_.end());
    for (const std::uint32_t index : misses_) files[index].pending = true;
    kept_.retain(misses_);
  }

  [[nodiscard]] std::vector<std::uint32_t> missing_of(const std::vector<std::uint32_t>& indices) {
    std::vector<std::uint32_t> missing;
    std::vector<CacheKey> keys;
    for (std::size_t start = 0; start < indices.size(); start += kKeysPerLookup) {
      const std::size_t end = std::min(indices.size(), start + kKeysPerLookup);
      keys.clear();
      keys.reserve(end - start);
      for (std::size_t i = start; i < end; ++i) keys.push_back(key_of(indices[i]));
      const std::vector<bool> present = are_there(keys);
      for (std::size_t i = start; i < end; ++i) {
        if (!present[i - start]) missing.push_back(indices[i]);
      }
    }
    return missing;
  }

  // Who rehashes believes no record unread either.
  [[nodiscard]] std::vector<bool> are_there(const std::vector<CacheKey>& keys) {
    if (!options_.rehash) return cache_.contains_many(keys);
    std::vector<bool> there;
    for (const auto& view : cache_.get_many(keys)) there.push_back(view.has_value());
    return there;
  }

  [[nodiscard]] CacheKey key_of(std::uint32_t index) const {
    return {section_hex(sources_->files()[index].section), figures_.tokenizer_sha, options_.sequence_len};
  }

  // Directories without missing sections have all that their index speaks of.
  void start_directories() {
    const std::size_t count = sources_->corpus().directories.size();
    missing_in_.assign(count, 0);
    for (const std::uint32_t index : misses_) ++missing_in_[sources_->directory_of(index)];
    const Stopwatch storing(figures_.seconds.store);
    for (std::uint32_t i = 0; i < count; ++i) {
      if (missing_in_[i] == 0) sources_->remember(cache_, i);
    }
  }

  using Results = std::vector<std::vector<std::int32_t>>;
  struct Tokenizing {
    std::unique_ptr<const Batch> batch;
    std::future<Results> results;  // waits when it is dropped
  };

  // Some batches at once: at the end of one most cores have nothing to do, while the longest texts of it are
  // tokenized, and after that, while its results are taken over.
  void tokenize_misses() {
    cli::Tokenizer& tokenizer = tokenizer_.load(cache_, budget_);
    monitor_.begin("tokenizing", misses_.size());
    const std::size_t at_once = jobs_ == 1 ? 1 : std::max(2U, jobs_ / 4);
    std::uint64_t done = 0;
    std::exception_ptr failure;  // what else was tokenized is kept
    {
      BatchReader reader(*sources_, misses_, budget_, kept_);
      std::deque<Tokenizing> begun;
      bool more = true;
      const auto succeeds = [&](const auto& act) {
        try {
          act();
          return true;
        } catch (...) {
          if (!failure) failure = std::current_exception();
          more = false;
          return false;
        }
      };
      for (;;) {
        while (more && !monitor_.stopped() && begun.size() < at_once) {
          succeeds([&] {
            std::optional<Batch> batch = reader.next();
            more = batch.has_value();
            if (more) begun.push_back(begin(tokenizer, *std::move(batch)));
          });
        }
        if (begun.empty()) break;
        Tokenizing first = std::move(begun.front());
        begun.pop_front();
        const Batch& batch = *first.batch;
        Results results;
        if (!succeeds([&] { results = results_of(first); })) continue;
        store_batch(batch, results);
        for (const std::uint32_t index : batch.files) settle_file(index);
        for (const std::uint32_t index : batch.dropped) settle_file(index);
        done += batch.files.size() + batch.dropped.size();
        monitor_.advance(done);
      }
    }
    if (failure) std::rethrow_exception(failure);
    // Only now does no other thread touch the files of unfinished directories.
    if (monitor_.stopped()) remember_unfinished();
  }

  [[nodiscard]] std::size_t max_length() const { return static_cast<std::size_t>(options_.sequence_len); }

  [[nodiscard]] Tokenizing begin(cli::Tokenizer& tokenizer, Batch read) const {
    Tokenizing begun{std::make_unique<const Batch>(std::move(read)), {}};
    begun.results = std::async(std::launch::async, [this, &tokenizer, batch = begun.batch.get()] {
      const std::vector<std::string_view> texts(batch->texts.begin(), batch->texts.end());
      return texts.empty() ? Results() : tokenizer.encode_batch(texts, max_length());
    });
    return begun;
  }

  [[nodiscard]] Results results_of(Tokenizing& begun) {
    const Stopwatch waiting(figures_.seconds.tokenize);
    Results results = begun.results.get();
    const bool cut = std::all_of(results.begin(), results.end(),
                                 [&](const auto& ids) { return ids.size() <= max_length(); });
    if (results.size() != begun.batch->texts.size() || !cut) {
      throw Error(Errc::kInvalidArgument, "the tokenizer returned too many ids or too few results");
    }
    return results;
  }

  void store_batch(const Batch& batch, const Results& results) {
    const Stopwatch storing(figures_.seconds.store);
    for (std::size_t i = 0; i < batch.files.size(); ++i) {
      Tokens tokens;
      tokens.input_ids = results[i];
      cache_.put(key_of(batch.files[i]), tokens);
      figures_.tokens += results[i].size();
      ++figures_.stored;
    }
  }

  void settle_file(std::uint32_t index) {
    sources_->files()[index].pending = false;
    const std::uint32_t directory = sources_->directory_of(index);
    if (--missing_in_[directory] != 0) return;
    const Stopwatch storing(figures_.seconds.store);
    sources_->remember(cache_, directory);
  }

  void remember_unfinished() {
    const Stopwatch storing(figures_.seconds.store);
    for (std::uint32_t i = 0; i < missing_in_.size(); ++i) {
      if (missing_in_[i] != 0) sources_->remember(cache_, i);
    }
  }

  // Files equal to another of this run: their tokens are there now, unless they were declined.
  void look_up_repeats() {
    if (repeats_.empty()) return;
    const Stopwatch scan(figures_.seconds.scan);
    const std::uint64_t missing = missing_of(repeats_).size();
    figures_.hits += repeats_.size() - missing;
    figures_.misses += missing;
  }

  void finish() {
    const double tokenized = figures_.seconds.tokenize;
    {
      const Stopwatch storing(figures_.seconds.store);
      if (tokenized > 0) cache_.add_tokenize_seconds(tokenized);
      if (cache_.stats().tokenizer_sha != figures_.tokenizer_sha) {
        cache_.save_manifest(figures_.tokenizer_sha);
      } else {
        cache_.flush();
      }
    }
    figures_.store = cache_.stats();
    figures_.declined = figures_.store.run.declined;
    figures_.derived = figures_.store.run.derived;
    figures_.miss_reasons = cache_.miss_reasons();
    figures_.interrupted = monitor_.stopped();
    figures_.tokenizer_loaded = tokenizer_.loaded();
    if (sources_) count_files();
  }

  void count_files() {
    figures_.skipped = sources_->corpus().skipped;
    figures_.files = sources_->files().size();
    for (std::uint32_t i = 0; i < sources_->files().size(); ++i) {
      const Sources::File& file = sources_->files()[i];
      if (file.read) ++figures_.files_read;
      switch (file.state) {
        case SourceState::kUnknown:
          break;
        case SourceState::kSection:
          ++figures_.sections;
          break;
        case SourceState::kBinary:
          ++figures_.binary;
          break;
        case SourceState::kNotUtf8:
          figures_.not_utf8.add(sources_->path_of(i));
          break;
        case SourceState::kTooLarge:
          ++figures_.too_large;
          break;
        case SourceState::kUnreadable:
          figures_.skipped.unreadable.add(
              sources_->path_of(i) + ": " +
              (file.error != 0 ? std::strerror(file.error) : "no longer a regular file"));
          break;
      }
    }
  }

  TokenizedCache& cache_;
  const WarmOptions& options_;
  Monitor& monitor_;
  const unsigned jobs_;
  corpus::SettleBudget budget_;
  TokenizerSource tokenizer_;
  KeptContents kept_{kKeptContentBytes};
  std::optional<Sources> sources_;
  std::vector<std::uint32_t> misses_;      // one file for each missing key, in the corpus's order
  std::vector<std::uint32_t> repeats_;     // files whose section another file has too
  std::vector<std::uint32_t> missing_in_;  // by directory: files of misses_ not settled yet
  WarmFigures figures_;
};

}  // namespace

WarmFigures warm(TokenizedCache& cache, const WarmOptions& options, const cli::TokenizerLoader& load,
                 Monitor& monitor) {
  return Run(cache, options, load, monitor).run();
}

}  // namespace tokcask::warm
