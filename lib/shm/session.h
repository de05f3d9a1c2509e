// What one handle does: its options, its counters, and its membership of a run.
//
// The counters are words of its row in the run table (shm/run_table.h), so that they add up with those of the
// run's other members and outlive the process. A handle without a row, because it only observes or because
// the table is full, counts in words of its own. Keeps the table mapped.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <tokcask/explain.h>
#include <tokcask/key.h>
#include <tokcask/options.h>
#include <tokcask/stats.h>

#include "shm/access_table.h"

namespace tokcask {

// Threads: all members may be called concurrently, but for move_to().
class Counter {
 public:
  explicit Counter(std::atomic<std::uint64_t>& word) noexcept : word_(&word) {}
  Counter(const Counter&) = delete;
  Counter& operator=(const Counter&) = delete;
  void move_to(std::atomic<std::uint64_t>& word) noexcept { word_ = &word; }

  void operator+=(std::uint64_t n) noexcept { word_->fetch_add(n, std::memory_order_relaxed); }
  void operator-=(std::uint64_t n) noexcept { word_->fetch_sub(n, std::memory_order_relaxed); }
  void operator++() noexcept { *this += 1; }
  void operator--() noexcept { *this -= 1; }
  [[nodiscard]] std::uint64_t value() const noexcept { return word_->load(std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t>* word_;
};

// A look-up that found nothing.
struct Miss {
  std::uint64_t key_hash = 0;
  std::uint64_t when_ns = 0;
  MissReason reason = MissReason::kNeverStored;  // as far as the records tell
};

// Why look-ups of a handle found nothing. What the store's history says of them is looked up later, for many
// at once. Threads: all members may be called concurrently.
class Missed {
 public:
  // `other_tokenizer`: for kOtherTokenizer, one that the section is stored under. Returns whether there are
  // so many that they should be explained now.
  bool add(MissReason reason, const CacheKey& key, std::uint64_t when_ns, std::string_view other_tokenizer);
  // Settles the reason of each miss by what `explain` says of it.
  void settle(const std::function<MissReason(const Miss&)>& explain);

  // By reason, of those that are settled.
  [[nodiscard]] std::array<std::uint64_t, kMissReasons> counts() const;
  // One of them, if its key is known: those of the first misses are.
  struct Example {
    std::string other_tokenizer;  // empty for another reason than kOtherTokenizer
    CacheKey key;
  };
  [[nodiscard]] std::optional<Example> example(MissReason reason) const;

 private:
  static constexpr std::size_t kMostUnsettled = std::size_t{1} << 18;
  static constexpr std::size_t kMostSamples = 32;  // of each reason

  mutable std::mutex mutex_;
  std::vector<Miss> unsettled_;
  std::array<std::uint64_t, kMissReasons> sampled_{};
  std::map<std::uint64_t, Example> samples_;  // by key hash
  std::array<std::uint64_t, kMissReasons> counts_{};
  std::array<std::optional<Example>, kMissReasons> examples_;
};

// Threads: all members may be called concurrently, but for leave(). In a forked child only its options and
// ref() may be read.
class Session {
 private:
  // Before the counters, which refer to them.
  const std::shared_ptr<shm::AccessTable> table_;
  std::optional<shm::RunTable::Member> member_;
  shm::Counters own_;
  shm::Counters* counters_;

 public:
  Session(Options options, std::uint64_t stamp, std::shared_ptr<shm::AccessTable> table,
          std::optional<shm::RunTable::Member> member);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  const Options options;
  const std::uint64_t start;  // access stamp of when the handle was opened
  Counter hits;
  Counter misses;
  Counter derived;  // of the hits, those from an entry of another sequence length
  Counter puts;
  Counter declined;
  Counter evicted;
  Counter tokenize_ns;
  std::atomic<std::uint64_t> not_taken{0};  // puts, of this handle
  std::atomic<bool> told_declined{false};
  Missed missed;

  // The last look-up or put was at `stamp`.
  void used(std::uint64_t stamp) noexcept { counters_->last_active.store(stamp, std::memory_order_relaxed); }
  // A key of this tokenizer and length was looked up or put.
  void note(std::string_view tokenizer_sha, std::int32_t sequence_len);
  void note(const CacheKey& key) { note(key.tokenizer_sha(), key.sequence_len()); }

  // The run it belongs to, if it does.
  [[nodiscard]] const std::optional<shm::RunRef>& ref() const noexcept { return ref_; }
  [[nodiscard]] std::uint64_t run_id() const;
  // What this handle did. Id, state, tokenizer and length are the run's.
  [[nodiscard]] RunFigures figures() const;

  // See RunTable. After leave() it counts for itself; no look-up may be going on.
  void end_if_last();
  void leave();

 private:
  struct Kind {
    std::string tokenizer_sha;
    std::int32_t sequence_len;
  };
  void note_other(std::string_view tokenizer_sha, std::int32_t sequence_len);

  const std::optional<shm::RunRef> ref_;
  std::atomic<const Kind*> first_kind_{nullptr};
  std::atomic<bool> told_several_{false};
};

}  // namespace tokcask
