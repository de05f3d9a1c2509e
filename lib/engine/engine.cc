#include "engine/engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <new>
#include <utility>

#include "engine/message.h"
#include "os/clock.h"

namespace tokcask {

Engine::Engine(std::filesystem::path root, FileId file_id, std::unique_ptr<lmdb::Environment> environment)
    : root_(std::move(root)),
      file_id_(std::move(file_id)),
      environment_(std::move(environment)),
      access_([this] {
        const rows::StoreRow store = read_store_row(lmdb::ReadTransaction(*environment_));
        file_uuid_ = store.uuid;
        for (std::size_t i = 0; i < sizeof store.rewrites; ++i)
          file_uuid_[i] ^= static_cast<std::uint8_t>(store.rewrites >> (8 * i));
        auto table = shm::AccessTable::open(root_, store.uuid);
        table->grow(store.slot_count);
        table->runs().raise_last_run(store.last_run_id);
        if (store.clock_ns < os::now_ns() + os::kMostAheadNs) table->raise_clock(store.clock_ns);
        return table;
      }()),
      readers_(*environment_),
      populator_(*environment_),
      committer_(*environment_, *access_, root_,
                 {.limits = [this] { return limits(); },
                  .warn = [this](std::string_view text) { message(Severity::kWarning, text); },
                  .is_stored =
                      [this](const CacheKey& key) {
                        const Reading reading = read();
                        return reading.records().find(record::PaddedKey(key.canonical()).bytes()).has_value();
                      }}) {}

Engine::~Engine() = default;

// ---- Handles ----

std::shared_ptr<Session> Engine::begin_session(const Options& options, const RunChoice& choice) {
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
  std::shared_ptr<Session> session;
  try {
    session = std::make_shared<Session>(options, stamp, access_, member);
    adopt(session);
  } catch (const std::bad_alloc&) {
    // A member that nobody knows of would protect entries for as long as the process lives.
    if (member) table.leave(*member, os::now_ns());
    throw;
  }
  welcome(*session, member.has_value());
  return session;
}

void Engine::adopt(const std::shared_ptr<Session>& session) {
  const std::lock_guard lock(runs_mutex_);
  sessions_.push_back(session);
}

void Engine::forget(const std::shared_ptr<Session>& session) {
  const std::lock_guard lock(runs_mutex_);
  std::erase(sessions_, session);
}

void Engine::require_at_most(std::size_t handles) {
  const std::lock_guard lock(runs_mutex_);
  if (sessions_.size() <= handles) return;
  throw Error(Errc::kBusy,
              fmt::format("{}: another handle or data set of this process has it open, and this needs the "
                          "store alone; close the other one first",
                          root_.string()));
}

// What is told, and begun, for a new handle. None of it is worth failing for.
void Engine::welcome(const Session& session, bool is_member) noexcept try {
  if (const std::string what = access_->shortcoming(); !what.empty() && !private_told_.exchange(true))
    message(Severity::kWarning, fmt::format("{}: {}", (root_ / "access.shm").string(), what));
  if (session.options.populate) populator_.read_all();
  if (!is_member && !session.options.observe) {
    message(Severity::kWarning,
            fmt::format("{}: {} runs, or {} handles of them, have the store open, so this one's entries are "
                        "not protected from eviction, and what it does is not told in the runs",
                        root_.string(), shm::kMaxRuns, shm::kMaxMembers));
  }
} catch (const std::exception&) {
  // No memory to report it.
}

void Engine::end_session(const std::shared_ptr<Session>& session) {
  std::exception_ptr failure;
  session->end_if_last();
  if (!session->options.read_only) {
    try {
      committer_.flush(Committer::Save::kAllRuns);
    } catch (const std::exception&) {
      failure = std::current_exception();
    }
  }
  try {
    if (const std::string summary = miss_summary(*session); !session->options.observe && !summary.empty())
      message(Severity::kWarning, summary);
  } catch (const std::exception&) {
    // What cannot be read was told of before.
  }
  leave(session);
  if (failure) std::rethrow_exception(failure);
}

void Engine::leave(const std::shared_ptr<Session>& session) {
  committer_.leave(*session);
  forget(session);
}

void Engine::message(Severity severity, std::string_view text) {
  std::vector<std::shared_ptr<Session>> runs;
  {
    const std::lock_guard lock(runs_mutex_);
    runs = sessions_;
  }
  bool to_stderr = runs.empty();
  for (const std::shared_ptr<Session>& session : runs) {
    if (session->options.on_message) {
      deliver(session->options.on_message, severity, text);
    } else {
      to_stderr = true;  // once, however many handles have no sink
    }
  }
  if (to_stderr) deliver({}, severity, text);
}

// Of all handles that write: the smallest budget, the shortest patience.
WriteLimits Engine::limits() {
  WriteLimits limits{{}, std::chrono::milliseconds::max()};
  const std::lock_guard lock(runs_mutex_);
  for (const std::shared_ptr<Session>& session : sessions_) {
    if (session->options.read_only) continue;
    if (const auto given = session->options.max_bytes)
      limits.max_bytes = std::min(limits.max_bytes.value_or(*given), *given);
    limits.lock_timeout = std::min(limits.lock_timeout, session->options.lock_timeout);
  }
  return limits;
}

}  // namespace tokcask
