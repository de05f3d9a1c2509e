#include "shm/session.h"

#include <memory>
#include <utility>

#include "os/clock.h"
#include "record/record.h"

namespace tokcask {

bool Missed::add(MissReason reason, const CacheKey& key, std::uint64_t when_ns,
                 std::string_view other_tokenizer) {
  const std::uint64_t hash = record::hash_key(key.canonical());
  const std::lock_guard lock(mutex_);
  std::uint64_t& sampled = sampled_[static_cast<std::size_t>(reason)];
  if (sampled < kMostSamples) {
    ++sampled;
    samples_.try_emplace(hash, Example{std::string(other_tokenizer), key});
  }
  unsettled_.push_back({hash, when_ns, reason});
  return unsettled_.size() >= kMostUnsettled;
}

void Missed::settle(const std::function<MissReason(const Miss&)>& explain) {
  std::vector<Miss> misses;
  {
    const std::lock_guard lock(mutex_);
    misses.swap(unsettled_);
  }
  // Explaining reads the store, and other threads go on missing meanwhile.
  for (Miss& miss : misses) miss.reason = explain(miss);
  const std::lock_guard lock(mutex_);
  for (const Miss& miss : misses) {
    const auto index = static_cast<std::size_t>(miss.reason);
    ++counts_[index];
    const auto sample = samples_.find(miss.key_hash);
    if (examples_[index] || sample == samples_.end()) continue;
    examples_[index] = sample->second;
    if (miss.reason != MissReason::kOtherTokenizer) examples_[index]->other_tokenizer.clear();
  }
}

std::array<std::uint64_t, kMissReasons> Missed::counts() const {
  const std::lock_guard lock(mutex_);
  return counts_;
}

std::optional<Missed::Example> Missed::example(MissReason reason) const {
  const std::lock_guard lock(mutex_);
  return examples_[static_cast<std::size_t>(reason)];
}

std::string_view to_string(RunState state) noexcept {
  switch (state) {
    case RunState::kAlive:
      return "alive";
    case RunState::kEnded:
      return "ended";
    case RunState::kKilled:
      break;
  }
  return "killed";
}

Session::Session(Options given, std::uint64_t stamp, std::shared_ptr<shm::AccessTable> table,
                 std::optional<shm::RunTable::Member> member)
    : table_(std::move(table)),
      member_(member),
      counters_(member_ ? member_->counters : &own_),
      options(std::move(given)),
      start(stamp),
      hits(counters_->hits),
      misses(counters_->misses),
      derived(counters_->derived),
      puts(counters_->puts),
      declined(counters_->declined),
      evicted(counters_->evicted),
      tokenize_ns(counters_->tokenize_ns),
      ref_(member_ ? std::optional(member_->run) : std::nullopt) {}

Session::~Session() { delete first_kind_.load(); }

void Session::note(std::string_view tokenizer_sha, std::int32_t sequence_len) {
  const Kind* const first = first_kind_.load(std::memory_order_acquire);
  if (first != nullptr && first->sequence_len == sequence_len && first->tokenizer_sha == tokenizer_sha)
    return;
  if (!told_several_.load(std::memory_order_relaxed)) note_other(tokenizer_sha, sequence_len);
}

void Session::note_other(std::string_view tokenizer_sha, std::int32_t sequence_len) {
  if (!ref_) return;
  if (!table_->runs().identify(*ref_, tokenizer_sha, static_cast<std::uint32_t>(sequence_len))) return;
  const Kind* first = nullptr;
  auto kind = std::make_unique<const Kind>(Kind{std::string(tokenizer_sha), sequence_len});
  if (first_kind_.compare_exchange_strong(first, kind.get())) {
    static_cast<void>(kind.release());
  } else if (first->sequence_len != sequence_len || first->tokenizer_sha != tokenizer_sha) {
    told_several_.store(true, std::memory_order_relaxed);
  }
}

std::uint64_t Session::run_id() const { return ref_ ? table_->runs().id_of(*ref_) : 0; }

RunFigures Session::figures() const {
  RunFigures figures;
  if (auto entry = ref_ ? table_->runs().entry(*ref_) : std::nullopt) figures = std::move(entry->figures);
  counters_->copy_to(figures);
  figures.started_ns = static_cast<std::int64_t>(start);
  return figures;
}

void Session::end_if_last() {
  if (member_) table_->runs().end_if_last(*member_, os::now_ns());
}

void Session::leave() {
  if (!member_) return;
  counters_ = &own_;
  hits.move_to(own_.hits);
  misses.move_to(own_.misses);
  derived.move_to(own_.derived);
  puts.move_to(own_.puts);
  declined.move_to(own_.declined);
  evicted.move_to(own_.evicted);
  tokenize_ns.move_to(own_.tokenize_ns);
  table_->runs().leave(*std::exchange(member_, std::nullopt), os::now_ns());
}

}  // namespace tokcask
