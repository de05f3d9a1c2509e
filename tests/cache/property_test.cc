// Random acts beside a plain model: a map, and the order of last access. After each batch both must hold the
// same entries, what went must be what was used least lately, and the totals must be those of what is there.
//
// 60,000 acts by default; TOKCASK_TEST_ACTS=1000000 for the long form (a minute).
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <optional>
#include <set>

#include "support.h"

namespace tokcask {

using namespace test;

namespace {

struct Expected {
  std::uint64_t seed = 0;
  std::size_t length = 0;
  bool masked = false;
  std::uint64_t used = 0;    // number of the act that used it last
  std::uint64_t put_in = 0;  // number of the batch
};

class Property {
 public:
  explicit Property(std::uint64_t seed) : random_(seed) { open(); }

  void run(std::uint64_t acts) {
    while (act_ < acts) {
      const std::uint64_t end = act_ + 50 + random_() % 400;
      while (act_ < end) step();
      flush();
      occasion();
    }
    MESSAGE(act_ << " acts, " << evicted_ << " evicted, " << declined_ << " declined, " << pruned_
                 << " pruned, " << cleared_ << " cleared, " << runs_ << " runs, " << children_
                 << " forked readers, " << lowered_ << " budgets lowered");
    CHECK(evicted_ > 0);
    CHECK(declined_ > 0);
  }

 private:
  using Model = std::map<CacheKey, Expected>;

  CacheKey random_key() {
    const std::uint64_t i = random_() % 500;
    if (i % 9 == 0) return CacheKey("a section of no hex digits, " + std::to_string(i), sha(), 900'000);
    return key(i, static_cast<int>(i % 3), static_cast<std::int64_t>(i % 2 + 900'000));
  }

  std::size_t random_length() {
    switch (random_() % 20) {
      case 0:
        return 20'000 + random_() % 20'000;
      case 1:
      case 2:
      case 3:
        return random_() % 300;
      default:
        return 400 + random_() % 3600;
    }
  }

  static Ids mask_of(const Expected& e) {
    Ids mask(e.length, 1);
    for (std::size_t i = 0; i < mask.size(); i += 3) mask[i] = 0;
    return mask;
  }

  static bool is_right(const TokenView& view, const Expected& e) {
    return copy_of(view.input_ids()) == ids(e.seed, e.length) &&
           (e.masked && e.length > 0 ? copy_of(view.attention_mask()) == mask_of(e)
                                     : view.mask_is_all_ones());
  }

  void open() {
    cache_.reset();
    const std::uint64_t budget = (1 + random_() % 8) << 19;
    // Nothing is committed but by flush(), so that which put is in which commit is known.
    Options options;
    options.max_bytes = budget;
    options.shrink = true;
    options.batch_bytes = std::uint64_t{1} << 30;
    options.batch_age = std::chrono::hours(1);
    const std::uint64_t before = std::filesystem::exists(f_.data()) ? f_.file_bytes() : 0;
    run_start_ = ++act_;
    cache_.emplace(f_.open(std::move(options)));
    ++runs_;
    budget_ = budget;
    evicted_told_ = declined_told_ = 0;
    if (before > budget) ++lowered_;
    reconcile(true);
  }

  void step() {
    ++act_;
    const std::uint64_t what = random_() % 100;
    if (what < 30) {
      put();
    } else if (what < 85) {
      get();
    } else {
      get_many();
    }
  }

  void put() {
    const CacheKey k = random_key();
    Expected e{random_(), random_length(), random_() % 5 == 0, act_, batch_};
    const Ids tokens = ids(e.seed, e.length);
    if (e.masked) {
      cache_->put(k, {.input_ids = tokens, .attention_mask = mask_of(e)});
    } else {
      cache_->put(k, {.input_ids = tokens});
    }
    if (const auto old = model_.find(k); old != model_.end() && old->second.put_in != batch_) ++replaced_;
    model_.insert_or_assign(k, e);
  }

  void get() {
    const CacheKey k = random_key();
    const auto view = cache_->get(k);
    const auto found = model_.find(k);
    REQUIRE(view.has_value() == (found != model_.end()));
    if (!view) return;
    REQUIRE(is_right(*view, found->second));
    found->second.used = act_;
    if (random_() % 64 == 0) held_.push_back({*view, found->second});
  }

  void get_many() {
    std::vector<CacheKey> keys;
    for (std::uint64_t i = 0; i < 1 + random_() % 10; ++i) keys.push_back(random_key());
    const auto views = cache_->get_many(keys);
    for (std::size_t i = 0; i < keys.size(); ++i) {
      const auto found = model_.find(keys[i]);
      REQUIRE(views[i].has_value() == (found != model_.end()));
      if (!views[i]) continue;
      REQUIRE(is_right(*views[i], found->second));
      found->second.used = act_;
    }
  }

  void flush() {
    // Views pin pages; what was held for a batch is looked at once more, then let go.
    for (const auto& [view, e] : held_) REQUIRE(is_right(view, e));
    held_.clear();
    cache_->flush();
    reconcile(false);
    ++batch_;
  }

  // Takes over what the store has given up, if it may have.
  void reconcile(bool opened) {
    std::set<CacheKey> stored;
    std::uint64_t bytes = 0;
    EntryPosition at;
    for (bool end = false; !end;) {
      const EntryChunk chunk = cache_->entries(at);
      CHECK(chunk.damaged == 0);
      for (const Entry& entry : chunk.entries) {
        stored.insert(entry.info.key);
        bytes += entry.info.bytes;
        const auto found = model_.find(entry.info.key);
        REQUIRE(found != model_.end());
        REQUIRE(is_right(entry.view, found->second));
      }
      end = chunk.end;
    }
    const Stats stats = cache_->stats();
    REQUIRE(stats.entry_count == stored.size());
    REQUIRE(stats.total_bytes == bytes);
    REQUIRE(f_.file_bytes() <= budget_);

    const std::uint64_t protected_from = opened ? act_ + 1 : run_start_;
    std::uint64_t newest_gone = 0;
    std::uint64_t evicted = 0;
    std::uint64_t declined = 0;
    std::uint64_t oldest_left = ~std::uint64_t{0};
    for (auto entry = model_.begin(); entry != model_.end();) {
      Expected& e = entry->second;
      const bool of_this_batch = !opened && e.put_in == batch_;
      if (stored.contains(entry->first)) {
        if (e.used < protected_from) oldest_left = std::min(oldest_left, e.used);
        ++entry;
        continue;
      }
      if (of_this_batch) {
        ++declined;
      } else {
        REQUIRE(e.used < protected_from);
        newest_gone = std::max(newest_gone, e.used);
        ++evicted;
      }
      entry = model_.erase(entry);
    }
    // Equal where one call of get_many used several.
    REQUIRE(newest_gone <= oldest_left);
    if (!opened) {
      // What a put was to replace may have been evicted before the put was its turn.
      const std::uint64_t told = stats.run.evicted - std::exchange(evicted_told_, stats.run.evicted);
      REQUIRE(told >= evicted);
      REQUIRE(told <= evicted + std::exchange(replaced_, 0));
      REQUIRE(stats.run.declined - std::exchange(declined_told_, stats.run.declined) == declined);
    }
    evicted_ += evicted;
    declined_ += declined;
  }

  void occasion() {
    switch (random_() % 16) {
      case 0:
      case 1:
        if (random_() % 2 == 0) cache_->close();
        open();
        break;
      case 2:
        prune();
        break;
      case 3:
        if (random_() % 4 == 0) {
          REQUIRE(cache_->clear() == model_.size());
          cleared_ += model_.size();
          model_.clear();
        }
        break;
      case 4:
        forked_reader();
        break;
      case 5:
        REQUIRE(cache_->verify().damaged == 0);
        break;
      default:
        break;
    }
  }

  // Removes what was not used since some moment, which lies between two uses.
  void prune() {
    std::vector<std::pair<std::uint64_t, CacheKey>> used;
    EntryPosition at;
    for (bool end = false; !end;) {
      const EntryChunk chunk = cache_->entries(at);
      for (const Entry& entry : chunk.entries) used.emplace_back(entry.info.last_access_ns, entry.info.key);
      end = chunk.end;
    }
    if (used.empty()) return;
    std::sort(used.begin(), used.end());
    const std::uint64_t moment = used[random_() % used.size()].first;
    const auto now = [] {
      return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                            std::chrono::system_clock::now().time_since_epoch())
                                            .count());
    };
    const std::uint64_t asked = now();
    const std::uint64_t removed =
        cache_->prune(std::chrono::nanoseconds(static_cast<std::int64_t>(asked - moment)));
    const std::uint64_t latest = moment + (now() - asked);
    // The cut lies somewhere between these two moments.
    const auto before = [&](std::uint64_t limit) {
      return static_cast<std::uint64_t>(
          std::count_if(used.begin(), used.end(), [&](const auto& entry) { return entry.first < limit; }));
    };
    REQUIRE(removed >= before(moment));
    REQUIRE(removed <= before(latest));
    for (std::uint64_t i = 0; i < removed; ++i) model_.erase(used[i].second);
    pruned_ += removed;
    REQUIRE(cache_->stats().entry_count == model_.size());
  }

  // A child that uses what it inherited sees what its parent has committed.
  void forked_reader() {
    ++children_;
    const std::vector<CacheKey> keys{random_key(), random_key(), random_key(), random_key()};
    ++act_;
    const pid_t child = fork();
    if (child == 0) {
      bool right = true;
      for (const CacheKey& k : keys) {
        const auto view = cache_->get(k);
        const auto found = model_.find(k);
        right =
            right && view.has_value() == (found != model_.end()) && (!view || is_right(*view, found->second));
      }
      _exit(right ? 0 : 1);
    }
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    REQUIRE(WIFEXITED(status));
    REQUIRE(WEXITSTATUS(status) == 0);
    for (const CacheKey& k : keys) {
      if (const auto found = model_.find(k); found != model_.end()) found->second.used = act_;
    }
  }

  std::mt19937_64 random_;
  Fixture f_;
  std::optional<TokenizedCache> cache_;
  Model model_;
  std::vector<std::pair<TokenView, Expected>> held_;
  std::uint64_t act_ = 0;
  std::uint64_t batch_ = 1;
  std::uint64_t run_start_ = 0;
  std::uint64_t budget_ = 0;
  std::uint64_t evicted_told_ = 0;
  std::uint64_t declined_told_ = 0;
  std::uint64_t replaced_ = 0;  // puts of this batch over what was stored
  std::uint64_t evicted_ = 0;
  std::uint64_t declined_ = 0;
  std::uint64_t pruned_ = 0;
  std::uint64_t cleared_ = 0;
  std::uint64_t runs_ = 0;
  std::uint64_t children_ = 0;
  std::uint64_t lowered_ = 0;
};

}  // namespace

TEST_CASE("random acts beside a plain model") {
  const std::uint64_t seed = test_seed();
  INFO("TOKCASK_TEST_SEED=" << seed);
  const char* const given = std::getenv("TOKCASK_TEST_ACTS");
  Property(seed).run(given == nullptr ? 60'000 : std::strtoull(given, nullptr, 10));
}

}  // namespace tokcask
