#include "cache/handle.h"

#include <fmt/format.h>

#include <utility>

#include "cache/say.h"

namespace tokcask {

Handle::Handle(std::filesystem::path root, Options options, bool of_process)
    : root_(std::move(root)), options_(std::move(options)), of_process_(of_process) {
  open_ = start(nullptr).release();
}

Handle::~Handle() {
  Open* const open = open_;
  if (open->generation != fork_generation()) return;  // a parent's
  try {
    close();
  } catch (const Error& error) {
    say(options_.on_message, Severity::kWarning, error.what());
  }
  delete open;
}

Handle::Lease Handle::lease() {
  Open* open = open_.load(std::memory_order_acquire);
  if (open->generation != fork_generation() && !open->closed) open = reopen(open);
  // One that a parent had closed is not locked by anybody any more, or for ever by a thread that is not here.
  if (open->closed) throw closed_error();
  Lease lease(std::shared_lock(open->mutex), open);
  if (!open->engine) throw closed_error();
  return lease;
}

Error Handle::closed_error() const {
  return {Errc::kClosed, fmt::format("{}: the cache is closed", root_.string())};
}

Handle::Lease Handle::writing_lease() {
  if (options_.read_only) {
    throw Error(Errc::kReadOnly, fmt::format("{}: opened read-only", root_.string()));
  }
  return lease();
}

void Handle::close() {
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
  if (engine) engine->end_run(run);
}

std::unique_ptr<Handle::Open> Handle::start(const Open* inherited) const {
  auto open = std::make_unique<Open>();
  open->engine = Engine::open(root_, options_, inherited == nullptr ? nullptr : &inherited->file);
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
  fresh->engine->end_run(fresh->run);
  return expected;
}

}  // namespace tokcask
