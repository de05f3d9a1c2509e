// A handle on a store: the engine and the run of one process, and in a forked child new ones on first use.
//
// What TokenizedCache and TokenDataset are made of. The child never touches what it inherited, not even to
// release it: LMDB's reader table and its mutexes are shared with the parent, and threads of the parent that
// the child does not have may have held locks at the moment of the fork. So it is left as it is, for ever.
//
// When the store's file was replaced by a new one, the next call moves to the engine of that: the run goes
// along, and so do pending puts. A call that reads does not wait for that; it goes on with the old file while
// a commit or another call is at it, unless this process has removed entries by making the new file.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <utility>

#include <tokcask/error.h>
#include <tokcask/options.h>

#include "cache/engine.h"
#include "cache/fork.h"

namespace tokcask {

// Threads: all members may be called concurrently, but for the destructor.
class Handle {
 private:
  // What a process has open. Calls hold the mutex shared, close() holds it alone.
  struct Open {
    std::shared_mutex mutex;
    const unsigned generation = fork_generation();
    std::mutex engine_mutex;         // held for the time of copying the pointer
    std::shared_ptr<Engine> engine;  // empty once closed
    std::shared_ptr<Run> run;
    std::mutex moving;                   // held by the one call that moves to another engine
    std::atomic<std::int64_t> retry{0};  // not before, on the steady clock, after that failed
    // What a child may read of its parent's.
    FileId file{};                   // not changed after the open
    std::optional<shm::RunRef> ref;  // of the run; not changed after the open
    std::atomic<bool> closed{false};
  };

 public:
  // An open engine that close() waits for.
  class Lease {
   public:
    Engine* operator->() const { return engine_.get(); }
    Engine& operator*() const { return *engine_; }
    [[nodiscard]] const std::shared_ptr<Run>& run() const { return open_->run; }

   private:
    friend class Handle;
    Lease(std::shared_lock<std::shared_mutex> lock, Open* open) : lock_(std::move(lock)), open_(open) {}
    std::shared_lock<std::shared_mutex> lock_;
    Open* open_;
    std::shared_ptr<Engine> engine_;
  };

  // Opens the store; see Engine::open() for what it throws. `of_process`: it joins a run of this process, if
  // there is one.
  Handle(std::filesystem::path root, Options options, bool of_process = false);
  // Closes; a failing last commit becomes a warning.
  ~Handle();
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;

  // Throws Error(kClosed) after close(), and in a child what opening the store throws.
  [[nodiscard]] Lease lease() { return lease(Use::kRead); }
  // Has `act` write, given an engine and the run: in the engine of the file that data.mdb is. It is tried
  // again when it throws Replaced. Throws Error(kReadOnly) too.
  template <typename Act>
  auto write(const Act& act) {
    const auto began = std::chrono::steady_clock::now();
    for (int attempt = 0;
         attempt < kMostMoves || std::chrono::steady_clock::now() - began < options_.lock_timeout;
         ++attempt) {
      // Once it is known that the old file is no place to write to, the new one must open.
      const Lease lease = writing_lease(attempt > 0);
      try {
        return act(*lease, lease.run());
      } catch (const Replaced&) {
        lease->note_replaced();
      }
    }
    throw moving_error();
  }

  // As lease(), for an act that writes but must not wait for a commit.
  [[nodiscard]] Lease try_lease() {
    require_writable();
    return lease(Use::kRead);
  }

  // Waits for the leases of other threads. Idempotent. Throws what the last commit throws, when all is
  // closed.
  void close();

  [[nodiscard]] const std::filesystem::path& root() const noexcept { return root_; }
  [[nodiscard]] const Options& options() const noexcept { return options_; }

 private:
  static constexpr int kMostMoves = 64;

  [[nodiscard]] std::unique_ptr<Open> start(const Open* inherited) const;
  [[nodiscard]] std::shared_ptr<Engine> open_within_budget() const;
  Open* reopen(Open* inherited);
  enum class Use { kRead, kWrite, kWriteToNew };
  [[nodiscard]] Lease lease(Use use);
  void require_writable() const;
  [[nodiscard]] Lease writing_lease(bool to_new);
  // The engine to use instead of one that is replaced: that of the new file, or the same one for now.
  [[nodiscard]] std::shared_ptr<Engine> move_on(Open& open, std::shared_ptr<Engine> engine, Use use) const;
  void end_run(std::shared_ptr<Engine> engine, const std::shared_ptr<Run>& run) const;
  void warn(const std::exception& error) const noexcept;
  [[nodiscard]] Error closed_error() const;
  [[nodiscard]] Error moving_error() const;

  const std::filesystem::path root_;
  const Options options_;
  const bool of_process_;
  std::atomic<Open*> open_{nullptr};
};

}  // namespace tokcask
