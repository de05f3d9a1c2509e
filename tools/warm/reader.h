// Reading the files of a corpus: all unknown ones at once on several threads, and later those to tokenize, in
// batches, one batch ahead of the tokenizer.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "warm/monitor.h"
#include "warm/sources.h"

namespace tokcask::warm {

// Contents that were read to be hashed and may be tokenized soon; so that a small corpus is read once, and a
// large one does not fill the memory. Thread-safe.
class KeptContents {
 public:
  explicit KeptContents(std::uint64_t max_bytes) : left_(max_bytes) {}

  void keep(std::uint32_t index, std::string text);
  [[nodiscard]] std::optional<std::string> take(std::uint32_t index);
  // Drops all but those in `wanted`, which is sorted.
  void retain(const std::vector<std::uint32_t>& wanted);

 private:
  std::mutex mutex_;
  std::uint64_t left_;
  std::unordered_map<std::uint32_t, std::string> texts_;
};

// Examines all files in `indices` on up to `jobs` threads, keeping contents while there is room. Returns
// early when the monitor says so. Rethrows what a thread threw.
void examine_all(Sources& sources, const std::vector<std::uint32_t>& indices, unsigned jobs,
                 corpus::SettleBudget& budget, KeptContents& kept, Monitor& monitor);

struct Batch {
  std::vector<std::uint32_t> files;
  std::vector<std::string> texts;      // beside files
  std::vector<std::uint32_t> dropped;  // turned out not to be sections any more
};

// Prepares batches on a thread of its own, at most one ahead of what was asked for. The files of a batch
// belong to the reader until next() returns it.
class BatchReader {
 public:
  static constexpr std::uint64_t kMaxBatchBytes = std::uint64_t{4} << 20;
  static constexpr std::size_t kMaxBatchFiles = 1024;

  BatchReader(Sources& sources, std::vector<std::uint32_t> work, corpus::SettleBudget& budget,
              KeptContents& kept);
  ~BatchReader();
  BatchReader(const BatchReader&) = delete;
  BatchReader& operator=(const BatchReader&) = delete;

  // The next batch, or nothing after the last. Rethrows what the thread threw.
  [[nodiscard]] std::optional<Batch> next();

 private:
  void read_all();
  [[nodiscard]] Batch read_batch(std::size_t& at);

  Sources& sources_;
  const std::vector<std::uint32_t> work_;
  corpus::SettleBudget& budget_;
  KeptContents& kept_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<Batch> ready_;  // guarded by mutex_, as are the following
  bool finished_ = false;
  bool cancelled_ = false;
  std::exception_ptr failure_;
  std::thread thread_;  // last: starts when all else is there
};

}  // namespace tokcask::warm
