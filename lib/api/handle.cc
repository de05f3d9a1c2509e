#include "api/handle.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <new>
#include <thread>
#include <utility>

#include <tokcask/impl_ptr.h>

#include "engine/message.h"
#include "os/patience.h"
#include "write/room.h"

namespace tokcask {

void detail::throw_moved_from() {
  throw Error(Errc::kClosed, "this handle was moved from; use the one that it was moved to");
}

// ---- Calls ----

thread_local const Handle::Lease* Handle::Lease::newest_ = nullptr;

Handle::Lease::Lease(Handle& handle) : open_(handle.own()), outer_(newest_) {
  count_ = &open_->calls[thread_number() % Open::kPlaces].count;
  for (Patience patience;;) {
    if (open_->closed) throw handle.closed_error();
    count_->fetch_add(1);
    // A call within another one must not wait for who waits for that.
    if ((!open_->stopped.load() && !open_->closed) || is_nested()) break;
    count_->fetch_sub(1);
    patience.check();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  newest_ = this;
}

Handle::Lease::~Lease() {
  newest_ = outer_;
  count_->fetch_sub(1);
}

bool Handle::Lease::is_nested() const noexcept {
  for (const Lease* lease = outer_; lease != nullptr; lease = lease->outer_) {
    if (lease->open_ == open_) return true;
  }
  return false;
}

// While one lives, no call is under way.
class Handle::Stop {
 public:
  explicit Stop(Open& open) : open_(&open), lock_(lock_patiently(open.stopping)) {
    open_->stopped.store(true);
    try {
      for (Patience patience; !nothing_under_way(); patience.check())
        std::this_thread::sleep_for(std::chrono::microseconds(50));
    } catch (...) {
      open_->stopped.store(false);
      throw;
    }
  }
  ~Stop() { open_->stopped.store(false); }
  Stop(const Stop&) = delete;
  Stop& operator=(const Stop&) = delete;

 private:
  [[nodiscard]] bool nothing_under_way() const noexcept {
    return std::all_of(open_->calls.begin(), open_->calls.end(),
                       [](const Open::Calls& calls) { return calls.count.load() == 0; });
  }

  Open* open_;
  std::unique_lock<std::mutex> lock_;
};

// ---- Opening and closing ----

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
    deliver(options_.on_message, Severity::kWarning,
            out_of_memory ? "out of memory: what was put last may not be stored" : error.what());
  } catch (const std::exception&) {
    // There is nobody left to tell.
  }
}

Error Handle::closed_error() const {
  return {Errc::kClosed, fmt::format("{}: the cache is closed", root_.string())};
}

void Handle::require_writable() const {
  if (options_.read_only) throw Error(Errc::kReadOnly, fmt::format("{}: opened read-only", root_.string()));
}

Handle::Open* Handle::own() {
  Open* const open = open_.load(std::memory_order_acquire);
  return open->generation == fork_generation() || open->closed ? open : reopen(open);
}

std::unique_ptr<Handle::Open> Handle::start(const Open* inherited) const {
  auto open = std::make_unique<Open>();
  open->engine =
      inherited == nullptr ? open_within_budget() : Engine::open(root_, options_, &inherited->file);
  Engine::RunChoice choice{.run = std::nullopt, .of_process = of_process_};
  if (inherited != nullptr) choice.run = inherited->ref;
  open->session = open->engine->begin_session(options_, choice);
  open->file = open->engine->file_id();
  open->ref = open->session->ref();
  return open;
}

// In the child, by the first of its threads to come here. The parent has walked the pages of the file and
// goes on trusting them, so the child need not walk the same file again. The child belongs to the parent's
// run.
Handle::Open* Handle::reopen(Open* inherited) {
  auto fresh = start(inherited);
  Open* expected = inherited;
  if (open_.compare_exchange_strong(expected, fresh.get())) return fresh.release();
  end_session(*fresh->engine, fresh->session);
  return expected;
}

// A file that is larger than a budget that was given is made to fit it, or is an error. Not for who joins a
// run: others may have made the file larger since that was opened, and none of its members is worth less for
// it.
std::shared_ptr<Engine> Handle::open_within_budget() const {
  std::shared_ptr<Engine> engine = Engine::open(root_, options_);
  const lmdb::Environment& environment = engine->environment();
  if (options_.read_only || !options_.max_bytes) return engine;
  if (const std::uint64_t least = room::least_budget(environment.page_bytes()); *options_.max_bytes < least) {
    throw Error(Errc::kInvalidArgument,
                fmt::format("{}: max_bytes is {}; it must be at least {}, because this store has pages of {} "
                            "bytes",
                            root_.string(), *options_.max_bytes, least, environment.page_bytes()));
  }
  if (options_.run_id != 0 || environment.file_bytes() <= *options_.max_bytes) return engine;
  Writer::Lowered lowered;
  {
    engine->require_at_most(0);
    const lmdb::Alone alone = environment.alone();
    if (!alone) throw environment.not_alone("made smaller");
    lowered = engine->committer().lower(*options_.max_bytes, options_.shrink, options_.lock_timeout);
  }
  if (lowered.bytes_after < lowered.bytes_before) {
    deliver(options_.on_message, Severity::kWarning,
            fmt::format(
                "{}: made smaller for a budget of {} bytes: from {} to {} bytes, {} entries removed{}",
                (root_ / "data.mdb").string(), *options_.max_bytes, lowered.bytes_before, lowered.bytes_after,
                lowered.removed, lowered.fits ? "" : "; what is left besides entries is larger than that"));
  }
  const auto made = engine->committer().new_file();
  return made ? Engine::open(root_, options_, &*made) : engine;
}

void Handle::alone(std::string_view doing, const std::function<void(Engine&)>& act) {
  require_writable();
  Open& open = *own();
  const Stop stop(open);
  if (open.closed) throw closed_error();
  std::optional<FileId> made;
  std::exception_ptr failure;
  {
    open.engine->require_at_most(1);
    const lmdb::Alone alone = open.engine->environment().alone();
    if (!alone) throw open.engine->environment().not_alone(doing);
    try {
      act(*open.engine);
    } catch (const std::exception&) {
      failure = std::current_exception();  // after the new file was put in place, perhaps
    }
    made = open.engine->committer().new_file();
  }
  if (made) {
    std::shared_ptr<Engine> next = Engine::open(root_, options_, &*made);
    next->committer().take_pending(open.engine->committer());
    next->adopt(open.session);
    open.engine->forget(open.session);
    open.file = *made;
    open.engine = std::move(next);
  }
  if (failure) std::rethrow_exception(failure);
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
  std::shared_ptr<Session> session;
  {
    const Stop stop(*open);
    engine = std::move(open->engine);
    session = std::move(open->session);
    open->closed = true;
  }
  if (engine) end_session(*engine, session);
}

void Handle::end_session(Engine& engine, const std::shared_ptr<Session>& session) {
  try {
    engine.end_session(session);
  } catch (const std::exception&) {
    engine.leave(session);
    throw;
  }
}

}  // namespace tokcask
