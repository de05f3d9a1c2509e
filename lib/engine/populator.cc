#include "engine/populator.h"

#include <algorithm>
#include <exception>
#include <utility>

namespace tokcask {

namespace {

// Read at once, so that closing a store never waits for more.
constexpr std::uint64_t kPieceBytes = 4 << 20;

}  // namespace

Populator::~Populator() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Populator::read(std::vector<Range> ranges) {
  std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) { return a.offset < b.offset; });
  const std::lock_guard lock(mutex_);
  Range joined{0, 0};
  const auto add = [&] {
    if (joined.bytes > 0 && waiting_.size() < kMostWaiting) waiting_.push_back(joined);
  };
  for (const Range& range : ranges) {
    if (joined.bytes > 0 && range.offset <= joined.offset + joined.bytes + kGapBytes) {
      joined.bytes = std::max(joined.offset + joined.bytes, range.offset + range.bytes) - joined.offset;
    } else {
      add();
      joined = range;
    }
  }
  add();
  start();
}

void Populator::read_all() {
  const std::lock_guard lock(mutex_);
  all_ = true;
  start();
}

void Populator::wait() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return waiting_.empty() && !all_ && !busy_; });
}

void Populator::start() {
  try {
    if (!thread_.joinable()) thread_ = std::thread([this] { loop(); });
  } catch (const std::exception&) {
    // A hint that nobody takes.
    waiting_.clear();
    all_ = false;
  }
  changed_.notify_all();
}

void Populator::loop() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return stop_ || !waiting_.empty() || all_; });
    if (stop_) return;
    if (waiting_.empty()) {
      all_ = false;
      const std::uint64_t size = environment_->page_count() * environment_->page_bytes();
      for (std::uint64_t at = 0; at < size; at += kPieceBytes)
        waiting_.push_back({at, std::min(kPieceBytes, size - at)});
      continue;
    }
    Range& first = waiting_.front();
    const Range piece{first.offset, std::min(first.bytes, kPieceBytes)};
    first.offset += piece.bytes;
    first.bytes -= piece.bytes;
    if (first.bytes == 0) waiting_.pop_front();
    busy_ = true;
    lock.unlock();
    environment_->read_ahead(piece.offset, piece.bytes);
    lock.lock();
    busy_ = false;
    if (waiting_.empty()) changed_.notify_all();
  }
}

}  // namespace tokcask
