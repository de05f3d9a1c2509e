// A handle on a store: the engine and the run of one process, and in a forked child new ones on first use.
//
// What TokenizedCache and TokenDataset are made of. The child never touches what it inherited, not even to
// release it: LMDB's reader table and its mutexes are shared with the parent, and threads of the parent that
// the child does not have may have held locks at the moment of the fork. So it is left as it is, for ever.
#pragma once

#include <atomic>
#include <filesystem>
#include <memory>
#include <optional>
#include <shared_mutex>

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
    std::shared_ptr<Engine> engine;  // empty once closed
    std::shared_ptr<Run> run;
    // What a child may read of its parent's.
    FileId file{};                   // not changed after the open
    std::optional<shm::RunRef> ref;  // of the run; not changed after the open
    std::atomic<bool> closed{false};
  };

 public:
  // An open engine that close() waits for.
  class Lease {
   public:
    Engine* operator->() const { return open_->engine.get(); }
    Engine& operator*() const { return *open_->engine; }
    [[nodiscard]] const std::shared_ptr<Run>& run() const { return open_->run; }
    [[nodiscard]] std::shared_ptr<Engine> engine() const { return open_->engine; }

   private:
    friend class Handle;
    Lease(std::shared_lock<std::shared_mutex> lock, Open* open) : lock_(std::move(lock)), open_(open) {}
    std::shared_lock<std::shared_mutex> lock_;
    Open* open_;
  };

  // Opens the store; see Engine::open() for what it throws. `of_process`: it joins a run of this process, if
  // there is one.
  Handle(std::filesystem::path root, Options options, bool of_process = false);
  // Closes; a failing last commit becomes a warning.
  ~Handle();
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;

  // Throws Error(kClosed) after close(), and in a child what opening the store throws.
  [[nodiscard]] Lease lease();
  // Throws Error(kReadOnly) too.
  [[nodiscard]] Lease writing_lease();

  // Waits for the leases of other threads. Idempotent. Throws what the last commit throws, when all is
  // closed.
  void close();

  [[nodiscard]] const std::filesystem::path& root() const noexcept { return root_; }
  [[nodiscard]] const Options& options() const noexcept { return options_; }

 private:
  [[nodiscard]] std::unique_ptr<Open> start(const Open* inherited) const;
  Open* reopen(Open* inherited);
  [[nodiscard]] Error closed_error() const;

  const std::filesystem::path root_;
  const Options options_;
  const bool of_process_;
  std::atomic<Open*> open_{nullptr};
};

}  // namespace tokcask
