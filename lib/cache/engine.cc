#include "cache/engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <new>
#include <utility>

#include "cache/fork.h"
#include "cache/patience.h"
#include "cache/say.h"
#include "os/clock.h"

namespace tokcask {

// ---- Snapshot ----

Snapshot::Snapshot(std::shared_ptr<Engine> engine, std::unique_ptr<lmdb::ReadTransaction> transaction)
    : engine_(std::move(engine)), transaction_(std::move(transaction)) {}

Snapshot::~Snapshot() { engine_->give_back(std::move(transaction_)); }

// ---- Engine ----

Engine::Engine(std::filesystem::path root, FileId file_id, std::unique_ptr<lmdb::Environment> environment)
    : root_(std::move(root)),
      data_(root_ / "data.mdb"),
      file_id_(std::move(file_id)),
      environment_(std::move(environment)),
      generation_(fork_generation()),
      populator_(*environment_) {
  const lmdb::ReadTransaction transaction(*environment_);
  const rows::StoreRow store = read_store_row(transaction);
  uuid_ = file_uuid_ = store.uuid;
  for (std::size_t i = 0; i < sizeof store.rewrites; ++i) {
    file_uuid_[i] ^= static_cast<std::uint8_t>(store.rewrites >> (8 * i));
  }
  access_ = shm::AccessTable::open(root_, store.uuid);
  access_->grow(store.slot_count);
  access_->runs().raise_last_run(store.last_run_id);
  if (store.clock_ns < os::now_ns() + os::kMostAheadNs) access_->raise_clock(store.clock_ns);
}

Engine::~Engine() {
  {
    const std::lock_guard lock(pending_mutex_);
    stop_ = true;
  }
  pending_changed_.notify_all();
  if (committer_.joinable()) committer_.join();
}

std::shared_ptr<Run> Engine::begin_run(const Options& options, const RunChoice& choice) {
  shm::RunTable& table = access_->runs();
  const std::uint64_t stamp = access_->next_stamp();
  std::optional<shm::RunTable::Member> member;
  if (options.observe) {
    table.sweep();
  } else {
    if (choice.run) member = table.join(*choice.run);
    if (!member && options.run_id != 0) member = table.join(options.run_id);
    if (!member && choice.of_process) member = table.join_own();
    if (!member) member = table.begin(stamp);
    if (member && !options.protect_run) table.protect_nothing(*member);
  }
  std::shared_ptr<Run> run;
  try {
    run = std::make_shared<Run>(options, stamp, access_, member);
    const std::lock_guard lock(runs_mutex_);
    runs_.push_back(run);
  } catch (const std::bad_alloc&) {
    // A member that nobody knows of would protect entries for as long as the process lives.
    if (member) table.leave(*member, os::now_ns());
    throw;
  }
  welcome(*run, member.has_value());
  return run;
}

// What is told, and begun, for a new handle. None of it is worth failing for.
void Engine::welcome(const Run& run, bool is_member) noexcept try {
  if (const std::string what = access_->shortcoming(); !what.empty() && !told_private_.exchange(true))
    message(Severity::kWarning, fmt::format("{}: {}", (root_ / "access.shm").string(), what));
  if (run.options.populate) populator_.read_all();
  if (!is_member && !run.options.observe) {
    message(Severity::kWarning,
            fmt::format("{}: {} runs, or {} handles of them, have the store open, so this one's entries are "
                        "not protected from eviction, and what it does is not told in the runs",
                        root_.string(), shm::kMaxRuns, shm::kMaxMembers));
  }
} catch (const std::exception&) {
  // No memory to say it.
}

void Engine::end_run(const std::shared_ptr<Run>& run) {
  std::exception_ptr failure;
  run->end_if_last();
  if (!run->options.read_only) {
    try {
      const auto lock = lock_patiently(commit_mutex_);
      if (handed_over()) throw Replaced{};
      const lmdb::Environment::Closing closing(*environment_);
      commit_pending(true, SaveRuns::kAll);
    } catch (const Replaced&) {
      throw;
    } catch (const std::exception&) {
      failure = std::current_exception();
    }
  }
  try {
    if (const std::string summary = miss_summary(*run); !run->options.observe && !summary.empty()) {
      message(Severity::kWarning, summary);
    }
  } catch (const std::exception&) {
    // What cannot be read was told of before.
  }
  leave(run);
  if (failure) std::rethrow_exception(failure);
}

void Engine::message(Severity severity, std::string_view text) {
  std::vector<std::shared_ptr<Run>> runs;
  {
    const std::lock_guard lock(runs_mutex_);
    runs = runs_;
  }
  bool to_stderr = runs.empty();
  for (const std::shared_ptr<Run>& run : runs) {
    if (run->options.on_message) {
      say(run->options.on_message, severity, text);
    } else {
      to_stderr = true;  // once, however many handles have no sink
    }
  }
  if (to_stderr) {
    say({}, severity, text);
  }
}

WriteLimits Engine::limits() {
  WriteLimits limits{{}, std::chrono::milliseconds::max()};
  const std::lock_guard lock(runs_mutex_);
  for (const std::shared_ptr<Run>& run : runs_) {
    if (run->options.read_only) continue;
    if (const auto given = run->options.max_bytes)
      limits.max_bytes = std::min(limits.max_bytes.value_or(*given), *given);
    limits.lock_timeout = std::min(limits.lock_timeout, run->options.lock_timeout);
  }
  return limits;
}

}  // namespace tokcask
