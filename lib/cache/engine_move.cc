// The engine of a file that was replaced: how it notices, and how its handles and its pending puts move on.
#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <optional>
#include <utility>

#include "cache/engine.h"
#include "cache/patience.h"
#include "os/clock.h"

namespace tokcask {

namespace {

constexpr std::int64_t kNsPerLook = 4'000'000;

}  // namespace

bool Engine::replaced() noexcept {
  if (replaced_.load(std::memory_order_relaxed)) return true;
  const std::int64_t now = os::coarse_now_ns();
  if (now < look_again_ns_.load(std::memory_order_relaxed)) return false;
  look_again_ns_.store(now + kNsPerLook, std::memory_order_relaxed);
  std::optional<FileId> current;
  try {
    current = files::id_of(data_);
  } catch (const std::exception&) {
    return false;  // looked at again soon
  }
  if (!current || *current == file_id_) return false;
  replaced_.store(true, std::memory_order_relaxed);
  return true;
}

void Engine::note_new_file(Content content) {
  if (!writer_->new_file() || has_made_) return;
  if (content == Content::kLess) outdated_.store(true, std::memory_order_release);
  made_ = *writer_->new_file();
  has_made_.store(true, std::memory_order_release);
  note_replaced();
}

bool Engine::handed_over() {
  const std::lock_guard lock(pending_mutex_);
  return handed_over_;
}

void Engine::require_here() const {
  if (handed_over_) throw Replaced{};
}

bool Engine::hand_over(Engine& next, const std::shared_ptr<Run>& run, bool wait) {
  // No commit may be going on: it has taken puts out of the batch.
  std::unique_lock commit(commit_mutex_, std::defer_lock);
  if (wait) {
    commit = lock_patiently(commit_mutex_);
  } else if (!commit.try_lock()) {
    return false;
  }
  DeclaredTraits declared;
  {
    const std::lock_guard lock(read_mutex_);
    declared = declared_;
  }
  {
    const std::scoped_lock lock(pending_mutex_, next.pending_mutex_, next.runs_mutex_);
    if (next.handed_over_) return false;
    // All that needs memory comes before anything is given away.
    next.runs_.reserve(next.runs_.size() + 1);
    const std::size_t page_bytes = environment_->page_bytes();
    Batch shown = active_;
    shown.absorb(moved_, page_bytes);
    moved_ = std::move(shown);
    if (!active_.empty()) {
      const auto oldest =
          next.active_.empty() ? oldest_pending_ : std::min(oldest_pending_, next.oldest_pending_);
      next.active_.absorb(active_, page_bytes);
      next.oldest_pending_ = oldest;
      next.batch_age_ = batch_age_;
      next.batch_bytes_ = batch_bytes_;
      next.start_committer();  // without one, the next put starts it, and flush() needs none
    }
    // The run stays a member in the table that it has mapped, which is that of the new file too, unless that
    // is of another store: then it protects nothing there.
    next.runs_.push_back(run);
    handed_over_ = true;
  }
  {
    const std::lock_guard lock(next.read_mutex_);
    next.declared_.merge(declared);
  }
  pending_changed_.notify_all();
  room_made_.notify_all();
  next.pending_changed_.notify_all();

  if (raised_.exchange(false)) next.raised_ = true;
  keeper_.let_go();
  const std::lock_guard lock(runs_mutex_);
  std::erase(runs_, run);
  return true;
}

void Engine::leave(const std::shared_ptr<Run>& run) {
  {
    // With the lock, because a commit counts puts.
    const std::lock_guard lock(commit_mutex_);
    run->leave();
  }
  keeper_.let_go();
  const std::lock_guard lock(runs_mutex_);
  std::erase(runs_, run);
}

void Engine::commit_elsewhere() {
  Options options;
  options.allow_network_filesystem = true;  // as when this engine was opened
  {
    const std::lock_guard lock(runs_mutex_);
    const auto writing = std::find_if(
        runs_.begin(), runs_.end(), [](const std::shared_ptr<Run>& run) { return !run->options.read_only; });
    if (writing != runs_.end()) options = (*writing)->options;
  }
  const std::shared_ptr<Engine> next = open(root_, options);
  if (next.get() == this) return commit_pending(false, SaveRuns::kOwn);
  commit_pending(false, SaveRuns::kOwn, [&](const Write& write) {
    const std::lock_guard lock(next->commit_mutex_);
    next->with_own_writer(write);
  });
}

}  // namespace tokcask
