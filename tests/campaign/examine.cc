#include "examine.h"

#include <lmdb.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <span>
#include <unordered_map>

#include <fmt/format.h>

#include <tokcask/dataset.h>

namespace tokcask::campaign {

namespace {

enum class Verdict { kRight, kBack, kOlder, kWrong };

class Judge {
 public:
  Judge(const Sample& sample, Report& report) : sample_(sample), report_(report) {}

  void step(std::string_view name) const { note(report_.step, name); }

  // `is` tells whether what was found is some content.
  template <class Is>
  void judge(const Known& known, const Is& is) const {
    switch (verdict(known, is)) {
      case Verdict::kRight:
        return;
      case Verdict::kBack:
        ++report_.back;
        return;
      case Verdict::kOlder:
        ++report_.older;
        return tell("an older value of", known);
      case Verdict::kWrong:
        ++report_.wrong;
        return tell("a wrong value of", known);
    }
  }

  void tell(std::string_view what, const Known& known) const {
    if (report_.note[0] == '\0')
      note(report_.note, fmt::format("{} {} ({})", what, known.key.canonical(), report_.step));
  }

 private:
  template <class Is>
  static Verdict verdict(const Known& known, const Is& is) {
    if (known.stored.empty()) return Verdict::kWrong;
    const std::span<const Content> last = std::span(known.stored).last(1 + known.not_flushed);
    if (std::ranges::any_of(last, is)) return known.present ? Verdict::kRight : Verdict::kBack;
    if (known.stored.size() > known.damaged + known.not_flushed) return Verdict::kWrong;
    return std::ranges::any_of(known.stored, is) ? Verdict::kOlder : Verdict::kWrong;
  }

  const Sample& sample_;
  Report& report_;
};

void wait_for_damage(const DamagedStore& damage, Report& report) {
  if (damage.later.file.empty()) return;
  report.stage = 1;
  while (report.stage != 2) usleep(50);
}

// ---- tokcask ----

class Examination {
 public:
  Examination(const std::filesystem::path& root, const Sample& sample, const DamagedStore& damage,
              bool read_only, Report& report)
      : root_(root),
        sample_(sample),
        damage_(damage),
        read_only_(read_only),
        report_(report),
        judge_(sample, report),
        known_(sample.known) {
    for (const Known& known : known_) {
      index_.emplace(known.key.canonical(), keys_.size());
      keys_.push_back(known.key);
    }
  }

  void run() {
    try {
      judge_.step("open");
      std::optional<TokenDataset> early;  // has the key table mapped
      if (damage_.later.file == sample_.keys_name) early = data_set();
      if (early && damage_.later.after_use) read(*early);
      std::optional<TokenizedCache> cache(open());
      if (!damage_.later.file.empty()) static_cast<void>(cache->get(keys_[0]));
      wait_for_damage(damage_, report_);
      look(*cache);
      if (early) read(*early);
      observe(*cache);
      if (read_only_) return;
      change(*cache);
      judge_.step("compact");
      allow([&] { cache->compact(); });
      look_again(*cache, "get after compact");
      verify(*cache);
      judge_.step("close");
      cache.reset();
      judge_.step("reopen");
      cache.emplace(open());
      look_again(*cache, "get after reopen");
      judge_.step("clear");
      allow([&] { cache->clear(); });
      for (Known& known : known_) known.present = false;
      promised_.assign(known_.size(), false);
      put(*cache, 0, 10);
      look_again(*cache, "get after clear");
    } catch (const Error& error) {
      const bool opening = std::strcmp(report_.step, "open") == 0;
      if (opening && error.code() == Errc::kDamaged && read_only_) {
        report_.refused = true;
        report_.looked = true;
        report_.misses = static_cast<std::uint32_t>(present());
        note(report_.message, error.what());
        return;
      }
      threw(error);
    } catch (const std::exception& error) {
      threw(error);
    }
  }

 private:
  void threw(const std::exception& error) {
    report_.threw = true;
    note(report_.note, fmt::format("{}: {}", report_.step, error.what()));
  }

  TokenizedCache open() {
    return TokenizedCache::open(root_, {.max_bytes = std::uint64_t{1} << 30,
                                        .read_only = read_only_,
                                        .batch_age = std::chrono::hours(1),
                                        .lock_timeout = std::chrono::seconds(5),
                                        .derive_lengths = false,
                                        .on_message = sink()});
  }
  MessageSink sink() {
    return [this](Severity, std::string_view text) {
      const std::lock_guard lock(message_mutex_);
      if (report_.message[0] == '\0') note(report_.message, text);
    };
  }
  [[nodiscard]] std::size_t present() const {
    return static_cast<std::size_t>(
        std::ranges::count_if(known_, [](const Known& known) { return known.present; }));
  }

  // For what may fail with an Error.
  template <class Act>
  void allow(const Act& act) {
    try {
      act();
    } catch (const Error& error) {
      ++report_.errors;
      if (report_.message[0] == '\0') note(report_.message, error.what());
    }
  }

  void judge(const Known& known, const TokenView& view) const {
    judge_.judge(known, [&](const Content& content) { return content.is(view); });
  }

  // The first look, one by one; then all at once.
  void look(TokenizedCache& cache) {
    judge_.step("get");
    for (const Known& known : known_) {
      const auto view = cache.get(known.key);
      if (view) judge(known, *view);
      if (view) ++report_.hits;
      if (!view && known.present) ++report_.misses;
    }
    report_.looked = true;
    judge_.step("get_many");
    const auto views = cache.get_many(keys_);
    for (std::size_t i = 0; i < views.size(); ++i)
      if (views[i]) judge(known_[i], *views[i]);
    judge_.step("contains_many");
    static_cast<void>(cache.contains_many(keys_));
  }

  // What was put and flushed since must be there.
  void look_again(TokenizedCache& cache, const char* step) {
    judge_.step(step);
    const auto views = cache.get_many(keys_);
    for (std::size_t i = 0; i < views.size(); ++i) {
      if (views[i]) judge(known_[i], *views[i]);
      if (views[i] || !promised_[i]) continue;
      ++report_.lost;
      judge_.tell("lost:", known_[i]);
    }
  }

  std::optional<TokenDataset> data_set() {
    std::vector<CacheKey> keys;
    for (const Known& known : known_)
      if (known.present) keys.push_back(known.key);
    std::optional<TokenDataset> dataset;
    allow([&] {
      dataset = TokenDataset::open(root_, keys, {.missing = MissingKeys::kKeep, .on_message = sink()});
    });
    return dataset;
  }

  void read(TokenDataset& dataset) {
    judge_.step("items");
    std::size_t index = 0;
    for (const Known& known : known_) {
      if (!known.present) continue;
      const auto view = dataset.get(index++);
      if (view) judge(known, *view);
    }
    static_cast<void>(dataset.lengths());
  }

  // All other ways to read.
  void observe(TokenizedCache& cache) {
    judge_.step("dataset");
    if (auto dataset = data_set()) read(*dataset);
    judge_.step("entries");
    allow([&] {
      for (EntryPosition at;;) {
        const EntryChunk chunk = cache.entries(at);
        for (const Entry& entry : chunk.entries) {
          const auto found = index_.find(entry.info.key.canonical());
          if (found != index_.end()) {
            judge(known_[found->second], entry.view);
          } else {
            ++report_.wrong;
            note(report_.note, "a key that never was: " + entry.info.key.canonical());
          }
        }
        if (chunk.end) break;
      }
    });
    judge_.step("keys");
    allow([&] { static_cast<void>(cache.keys()); });
    judge_.step("survey");
    allow([&] { static_cast<void>(cache.survey()); });
    judge_.step("stats");
    allow([&] { static_cast<void>(cache.stats()); });
    judge_.step("runs");
    allow([&] { static_cast<void>(cache.runs()); });
    judge_.step("explain");
    for (std::size_t i = 0; i < keys_.size(); i += keys_.size() / 7 + 1)
      allow([&] { static_cast<void>(cache.explain(keys_[i])); });
    judge_.step("directories");
    for (int i = 0; i < 6; ++i)
      allow([&] { static_cast<void>(cache.source_directory(fmt::format("/corpus/directory-{}", i))); });
    allow([&] { static_cast<void>(cache.tokenizer_of_file("/tokenizer.json", {.size = 7, .inode = 1})); });
    verify(cache);
  }

  void verify(TokenizedCache& cache) {
    judge_.step("verify");
    allow([&] { static_cast<void>(cache.verify()); });
  }

  // Puts known_[from] to known_[to - 1] once more, with other tokens, and flushes.
  void put(TokenizedCache& cache, std::size_t from, std::size_t to) {
    judge_.step("put");
    allow([&] {
      for (std::size_t i = from; i < to; ++i) {
        Known& known = known_[i];
        known.stored.push_back(content_of(i, 100 + known.stored.size(), 50 + i * 37 % 3'000));
        ++known.not_flushed;
        known.present = true;
        cache.put(known.key, known.stored.back().tokens());
      }
      judge_.step("flush");
      cache.flush();
      for (std::size_t i = from; i < to; ++i) known_[i].not_flushed = 0;
      std::fill(promised_.begin() + static_cast<std::ptrdiff_t>(from),
                promised_.begin() + static_cast<std::ptrdiff_t>(to), true);
    });
  }

  void change(TokenizedCache& cache) {
    put(cache, 0, known_.size() / 4);
    look_again(cache, "get after flush");
    judge_.step("prune");
    PruneOptions some;
    some.sequence_len = 16'384;
    allow([&] { cache.prune(some); });
    for (std::size_t i = 0; i < known_.size(); ++i)
      if (keys_[i].sequence_len() == 16'384) promised_[i] = false;
    put(cache, known_.size() / 4, known_.size() / 3);
    allow([&] { cache.put_source_directory("/corpus/directory-1", {{.name = "x", .identity = {}}}); });
    look_again(cache, "get after prune");
    verify(cache);
  }

  const std::filesystem::path& root_;
  const Sample& sample_;
  const DamagedStore& damage_;
  bool read_only_;
  Report& report_;
  Judge judge_;
  std::vector<Known> known_;
  std::vector<CacheKey> keys_;
  std::unordered_map<std::string, std::size_t> index_;  // of keys_, by the key's text
  std::vector<bool> promised_ = std::vector<bool>(known_.size());
  std::mutex message_mutex_;
};

// ---- LMDB ----

struct Environment {
  MDB_env* env = nullptr;
  ~Environment() {
    if (env != nullptr) mdb_env_close(env);
  }
};

class LmdbExamination {
 public:
  LmdbExamination(const std::filesystem::path& root, const Sample& sample, const DamagedStore& damage,
                  bool read_only, Report& report)
      : root_(root),
        sample_(sample),
        damage_(damage),
        read_only_(read_only),
        report_(report),
        judge_(sample, report) {
    for (std::size_t i = 0; i < sample.known.size(); ++i) index_.emplace(padded(sample.known[i].key), i);
  }

  void run() {
    judge_.step("open");
    Environment environment;
    constexpr std::size_t kMapBytes = std::size_t{1} << 32;
    if (failed(mdb_env_create(&environment.env)) || failed(mdb_env_set_maxdbs(environment.env, 2)) ||
        failed(mdb_env_set_mapsize(environment.env, kMapBytes)) ||
        failed(mdb_env_open(environment.env, root_.c_str(), read_only_ ? MDB_RDONLY : 0, 0600)))
      return;
    MDB_txn* txn = nullptr;
    MDB_dbi dbi = 0;
    if (failed(mdb_txn_begin(environment.env, nullptr, MDB_RDONLY, &txn))) return;
    if (failed(mdb_dbi_open(txn, "records", 0, &dbi))) return mdb_txn_abort(txn);
    wait_for_damage(damage_, report_);
    look(txn, dbi);
    walk(txn, dbi);
    mdb_txn_commit(txn);
    if (read_only_) return;
    change(environment.env, dbi);
  }

 private:
  bool failed(int code) {
    if (code == MDB_SUCCESS) return false;
    report_.refused = true;
    note(report_.message, mdb_strerror(code));
    return true;
  }

  // Compares as a program would that knows how long its values are.
  [[nodiscard]] static bool is(const Content& content, const MDB_val& value) {
    constexpr std::size_t kHeader = 48;
    const std::size_t bytes = content.ids.size() * sizeof(std::int32_t);
    const std::size_t mask_at = kHeader + (content.mask.empty() ? 0 : (bytes + 63) / 64 * 64);
    const std::size_t end = content.mask.empty() ? kHeader + bytes : mask_at + bytes;
    const auto* const at = static_cast<const char*>(value.mv_data);
    if (value.mv_size != (end + 7) / 8 * 8) return false;
    return (bytes == 0 || std::memcmp(at + kHeader, content.ids.data(), bytes) == 0) &&
           (content.mask.empty() || std::memcmp(at + mask_at, content.mask.data(), bytes) == 0);
  }
  void judge(const Known& known, const MDB_val& value) const {
    judge_.judge(known, [&](const Content& content) { return is(content, value); });
  }
  static std::string padded(const CacheKey& key) {
    std::string text = key.canonical();
    text.resize((text.size() + 7) / 8 * 8);
    return text;
  }

  void look(MDB_txn* txn, MDB_dbi dbi) {
    judge_.step("get");
    for (const Known& known : sample_.known) {
      std::string text = padded(known.key);
      MDB_val key{text.size(), text.data()};
      MDB_val value;
      const int code = mdb_get(txn, dbi, &key, &value);
      if (code == MDB_SUCCESS) {
        judge(known, value);
        ++report_.hits;
      } else if (known.present) {
        ++report_.misses;
        if (code != MDB_NOTFOUND) ++report_.errors;
      }
    }
    report_.looked = true;
  }

  void walk(MDB_txn* txn, MDB_dbi dbi) {
    judge_.step("walk");
    MDB_cursor* cursor = nullptr;
    if (failed(mdb_cursor_open(txn, dbi, &cursor))) return;
    MDB_val key;
    MDB_val value;
    // A tree with a cycle has no end.
    for (std::size_t n = 0;
         n < 4 * sample_.known.size() && mdb_cursor_get(cursor, &key, &value, MDB_NEXT) == 0; ++n) {
      const std::string_view text(static_cast<const char*>(key.mv_data), key.mv_size);
      const auto found = index_.find(std::string(text));
      if (found != index_.end()) {
        judge(sample_.known[found->second], value);
      } else {
        ++report_.wrong;
      }
    }
    mdb_cursor_close(cursor);
  }

  void change(MDB_env* env, MDB_dbi dbi) {
    judge_.step("put");
    MDB_txn* txn = nullptr;
    if (failed(mdb_txn_begin(env, nullptr, 0, &txn))) return;
    for (std::size_t i = 0; i < sample_.known.size() / 4; ++i) {
      std::string text = padded(sample_.known[i].key);
      std::string bytes(50 + i * 37 % 3'000 * 4, 'x');
      MDB_val key{text.size(), text.data()};
      MDB_val value{bytes.size(), bytes.data()};
      if (failed(mdb_put(txn, dbi, &key, &value, 0))) return mdb_txn_abort(txn);
    }
    judge_.step("commit");
    failed(mdb_txn_commit(txn));
  }

  const std::filesystem::path& root_;
  const Sample& sample_;
  const DamagedStore& damage_;
  bool read_only_;
  Report& report_;
  Judge judge_;
  std::unordered_map<std::string, std::size_t> index_;  // of the sample's keys, padded
};

}  // namespace

void examine(const std::filesystem::path& root, const Sample& sample, const DamagedStore& damage,
             bool read_only, Report& report) {
  Examination(root, sample, damage, read_only, report).run();
}

void examine_lmdb(const std::filesystem::path& root, const Sample& sample, const DamagedStore& damage,
                  bool read_only, Report& report) {
  LmdbExamination(root, sample, damage, read_only, report).run();
}

}  // namespace tokcask::campaign
