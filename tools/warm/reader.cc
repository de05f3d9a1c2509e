#include "warm/reader.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <utility>

namespace tokcask::warm {

void KeptContents::keep(std::uint32_t index, std::string text) {
  const std::lock_guard lock(mutex_);
  if (text.size() > left_) return;
  left_ -= text.size();
  texts_.insert_or_assign(index, std::move(text));
}

std::optional<std::string> KeptContents::take(std::uint32_t index) {
  const std::lock_guard lock(mutex_);
  auto node = texts_.extract(index);
  if (node.empty()) return std::nullopt;
  return std::move(node.mapped());
}

void KeptContents::retain(const std::vector<std::uint32_t>& wanted) {
  const std::lock_guard lock(mutex_);
  std::erase_if(texts_, [&](const auto& kept) {
    return !std::binary_search(wanted.begin(), wanted.end(), kept.first);
  });
}

namespace {

// The state that the threads of examine_all share.
class Examination {
 public:
  Examination(Sources& sources, const std::vector<std::uint32_t>& indices, corpus::SettleBudget& budget,
              KeptContents& kept)
      : sources_(sources), indices_(indices), budget_(budget), kept_(kept) {}

  void work() noexcept {
    try {
      std::size_t at;
      while (!cancelled_.load(std::memory_order_relaxed) &&
             (at = next_.fetch_add(1, std::memory_order_relaxed)) < indices_.size()) {
        const std::uint32_t index = indices_[at];
        std::string text = sources_.examine(index, budget_);
        if (sources_.files()[index].state == SourceState::kSection) kept_.keep(index, std::move(text));
        done_.fetch_add(1, std::memory_order_relaxed);
      }
    } catch (...) {
      cancel();
      const std::lock_guard lock(mutex_);
      if (!failure_) failure_ = std::current_exception();
    }
    const std::lock_guard lock(mutex_);
    --running_;
    ended_.notify_one();
  }

  void run(unsigned jobs, Monitor& monitor) {
    std::vector<std::thread> threads;
    running_ = jobs;
    try {
      while (threads.size() < jobs) threads.emplace_back(&Examination::work, this);
    } catch (const std::system_error&) {
      // Fewer threads than hoped for will do, but one is needed.
      if (threads.empty()) throw;
      const std::lock_guard lock(mutex_);
      running_ -= jobs - static_cast<unsigned>(threads.size());
    }
    watch(monitor);
    for (std::thread& thread : threads) thread.join();
    if (failure_) std::rethrow_exception(failure_);
  }

 private:
  void cancel() noexcept { cancelled_.store(true, std::memory_order_relaxed); }

  void watch(Monitor& monitor) {
    std::unique_lock lock(mutex_);
    while (!ended_.wait_for(lock, std::chrono::milliseconds(50), [this] { return running_ == 0; })) {
      monitor.advance(done_.load(std::memory_order_relaxed));
      if (monitor.stopped()) cancel();
    }
  }

  Sources& sources_;
  const std::vector<std::uint32_t>& indices_;
  corpus::SettleBudget& budget_;
  KeptContents& kept_;
  std::atomic<std::size_t> next_{0};
  std::atomic<std::size_t> done_{0};
  std::atomic<bool> cancelled_{false};
  std::mutex mutex_;
  std::condition_variable ended_;
  unsigned running_ = 0;
  std::exception_ptr failure_;
};

}  // namespace

void examine_all(Sources& sources, const std::vector<std::uint32_t>& indices, unsigned jobs,
                 corpus::SettleBudget& budget, KeptContents& kept, Monitor& monitor) {
  // More readers than this do not read faster, and each may hold a file of kMaxFileBytes.
  constexpr std::size_t kMaxReaders = 16;
  const std::size_t readers = std::min({std::size_t{jobs}, kMaxReaders, indices.size()});
  if (readers == 0) return;
  Examination(sources, indices, budget, kept).run(static_cast<unsigned>(readers), monitor);
}

BatchReader::BatchReader(Sources& sources, std::vector<std::uint32_t> work, corpus::SettleBudget& budget,
                         KeptContents& kept)
    : sources_(sources),
      work_(std::move(work)),
      budget_(budget),
      kept_(kept),
      thread_(&BatchReader::read_all, this) {}

BatchReader::~BatchReader() {
  {
    const std::lock_guard lock(mutex_);
    cancelled_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

std::optional<Batch> BatchReader::next() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return ready_.has_value() || finished_; });
  if (failure_) std::rethrow_exception(failure_);
  std::optional<Batch> batch = std::exchange(ready_, std::nullopt);
  changed_.notify_all();
  return batch;
}

void BatchReader::read_all() {
  try {
    for (std::size_t at = 0; at < work_.size();) {
      Batch batch = read_batch(at);
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return !ready_.has_value() || cancelled_; });
      if (cancelled_) break;
      ready_ = std::move(batch);
      changed_.notify_all();
    }
  } catch (...) {
    const std::lock_guard lock(mutex_);
    failure_ = std::current_exception();
  }
  const std::lock_guard lock(mutex_);
  finished_ = true;
  changed_.notify_all();
}

Batch BatchReader::read_batch(std::size_t& at) {
  Batch batch;
  std::uint64_t bytes = 0;
  while (at < work_.size() && bytes < kMaxBatchBytes && batch.files.size() < kMaxBatchFiles) {
    const std::uint32_t index = work_[at++];
    std::optional<std::string> text = kept_.take(index);
    if (!text) text = sources_.examine(index, budget_);
    if (sources_.files()[index].state != SourceState::kSection) {
      batch.dropped.push_back(index);
      continue;
    }
    bytes += text->size();
    batch.files.push_back(index);
    batch.texts.push_back(std::move(*text));
  }
  return batch;
}

}  // namespace tokcask::warm
