#include "cache/handle.h"

#include <fmt/format.h>

#include <chrono>
#include <exception>
#include <new>
#include <utility>

#include <tokcask/impl_ptr.h>

#include "cache/patience.h"
#include "cache/say.h"

namespace tokcask {

void detail::throw_moved_from() {
  throw Error(Errc::kClosed, "this handle was moved from; use the one that it was moved to");
}

Handle::Handle(std::filesystem::path root, Options options, bool of_process)
    : root_(std::move(root)), options_(std::move(options)), of_process_(of_process) {
  open_ = start(nullptr).release();
}

Handle::~Handle() {
  Open* const open = open_;
  if (open->generation != fork_generation()) return;  // a parent's
  try {
    close();
  } catch (const std::exception& error) {
    warn(error);
  }
  delete open;
}

void Handle::warn(const std::exception& error) const noexcept {
  const bool out_of_memory = dynamic_cast<const std::bad_alloc*>(&error) != nullptr;
  try {
    say(options_.on_message, Severity::kWarning,
        out_of_memory ? "out of memory: what was put last may not be stored" : error.what());
  } catch (const std::exception&) {
    // There is nobody left to tell.
  }
}

Handle::Lease Handle::lease(Use use) {
  Open* open = open_.load(std::memory_order_acquire);
  if (open->generation != fork_generation() && !open->closed) open = reopen(open);
  // One that a parent had closed is not locked by anybody any more, or for ever by a thread that is not here.
  if (open->closed) throw closed_error();
  Lease lease(std::shared_lock(open->mutex), open);
  {
    const std::lock_guard lock(open->engine_mutex);
    lease.engine_ = open->engine;
  }
  if (!lease.engine_) throw closed_error();
  if (lease->replaced()) {
    lease.engine_ = move_on(*open, std::move(lease.engine_), use);
  }
  return lease;
}

Error Handle::closed_error() const {
  return {Errc::kClosed, fmt::format("{}: the cache is closed", root_.string())};
}

Error Handle::moving_error() const {
  return {Errc::kIo,
          fmt::format("{}: other processes replace its file as fast as it is opened", root_.string())};
}

void Handle::require_writable() const {
  if (options_.read_only) throw Error(Errc::kReadOnly, fmt::format("{}: opened read-only", root_.string()));
}

Handle::Lease Handle::writing_lease(bool to_new) {
  require_writable();
  return lease(to_new ? Use::kWriteToNew : Use::kWrite);
}

std::shared_ptr<Engine> Handle::move_on(Open& open, std::shared_ptr<Engine> engine, Use use) const {
  const bool wait = use != Use::kRead || engine->outdated();
  constexpr std::chrono::seconds kRetry{1};
  const auto now = [] { return std::chrono::steady_clock::now().time_since_epoch(); };
  std::unique_lock moving(open.moving, std::defer_lock);
  if (wait) {
    moving = lock_patiently(open.moving);
  } else if (!moving.try_lock()) {
    return engine;
  }
  {
    const std::lock_guard lock(open.engine_mutex);
    if (open.engine != engine) return open.engine;  // another call was faster
  }
  const bool must = use == Use::kWriteToNew || engine->handed_over();
  if (now().count() < open.retry && !must) return engine;
  for (int attempt = 0; attempt < kMostMoves; ++attempt) {
    std::shared_ptr<Engine> next;
    try {
      next = Engine::open(root_, options_, engine->made());
    } catch (const std::exception&) {
      // What is there cannot be used now. The old file still serves, unless it has what was removed, and
      // commits say what is wrong.
      if (must) throw;
      open.retry = std::chrono::nanoseconds(now() + kRetry).count();
      return engine;
    }
    if (next == engine) return engine;
    if (engine->hand_over(*next, open.run, wait)) {
      const std::lock_guard lock(open.engine_mutex);
      return open.engine = std::move(next);
    }
    if (!wait) return engine;
  }
  throw moving_error();
}

void Handle::close() {
  const InterruptScope none(nullptr);  // what is pending would be lost
  Open* const open = open_.load(std::memory_order_acquire);
  if (open->generation != fork_generation()) {
    // In a child that has not used it: nothing here is the child's to close.
    auto closed = std::make_unique<Open>();
    closed->closed = true;
    Open* expected = open;
    if (open_.compare_exchange_strong(expected, closed.get())) static_cast<void>(closed.release());
    return;
  }
  std::shared_ptr<Engine> engine;
  std::shared_ptr<Run> run;
  {
    const std::unique_lock lock(open->mutex);
    engine = std::move(open->engine);
    run = std::move(open->run);
    open->closed = true;
  }
  if (engine) end_run(std::move(engine), run);
}

void Handle::end_run(std::shared_ptr<Engine> engine, const std::shared_ptr<Run>& run) const {
  try {
    for (int attempt = 0; attempt < kMostMoves; ++attempt) {
      try {
        return engine->end_run(run);
      } catch (const Replaced&) {
        std::shared_ptr<Engine> next = Engine::open(root_, options_, engine->made());
        if (engine->hand_over(*next, run, true)) engine = std::move(next);
      }
    }
    throw moving_error();
  } catch (const std::exception&) {
    engine->leave(run);
    throw;
  }
}

// A file that is larger than a budget that was given is made to fit it, or is an error. Not for who joins a
// run: others may have made the file larger since that was opened, and none of its members is worth less for
// it.
std::shared_ptr<Engine> Handle::open_within_budget() const {
  std::shared_ptr<Engine> engine = Engine::open(root_, options_);
  if (options_.read_only || !options_.max_bytes) return engine;
  if (const std::uint64_t least = room::least_budget(engine->page_bytes()); *options_.max_bytes < least) {
    throw Error(Errc::kInvalidArgument,
                fmt::format("{}: max_bytes is {}; it must be at least {}, because this store has pages of {} "
                            "bytes",
                            root_.string(), *options_.max_bytes, least, engine->page_bytes()));
  }
  if (options_.run_id != 0) return engine;
  for (int attempt = 0; attempt < kMostMoves && engine->file_bytes() > *options_.max_bytes; ++attempt) {
    Writer::Lowered lowered;
    try {
      lowered = engine->lower(*options_.max_bytes, options_.shrink, options_.lock_timeout);
    } catch (const Replaced&) {
    }
    if (lowered.bytes_after < lowered.bytes_before) {
      say(options_.on_message, Severity::kWarning,
          fmt::format("{}: made smaller for a budget of {} bytes: from {} to {} bytes, {} entries removed{}",
                      (root_ / "data.mdb").string(), *options_.max_bytes, lowered.bytes_before,
                      lowered.bytes_after, lowered.removed,
                      lowered.fits ? "" : "; what is left besides entries is larger than that"));
    }
    engine = Engine::open(root_, options_, engine->made());
    if (!lowered.fits) break;
  }
  return engine;
}

std::unique_ptr<Handle::Open> Handle::start(const Open* inherited) const {
  auto open = std::make_unique<Open>();
  open->engine =
      inherited == nullptr ? open_within_budget() : Engine::open(root_, options_, &inherited->file);
  Engine::RunChoice choice{.run = std::nullopt, .of_process = of_process_};
  if (inherited != nullptr) choice.run = inherited->ref;
  open->run = open->engine->begin_run(options_, choice);
  open->file = open->engine->file_id();
  open->ref = open->run->ref();
  return open;
}

// In the child, by the first of its threads to come here. The parent has walked the pages of the file and
// goes on trusting them, so the child need not walk the same file again: that takes 150 ms for a million
// records. The child belongs to the parent's run.
Handle::Open* Handle::reopen(Open* inherited) {
  auto fresh = start(inherited);
  Open* expected = inherited;
  if (open_.compare_exchange_strong(expected, fresh.get())) return fresh.release();
  end_run(fresh->engine, fresh->run);
  return expected;
}

}  // namespace tokcask
