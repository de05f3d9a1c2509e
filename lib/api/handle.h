// A handle on a store: the engine and the run of one process, and in a forked child new ones on first use.
//
// What TokenizedCache and TokenDataset are made of. The child never touches what it inherited, not even to
// release it: LMDB's reader table and its mutexes are shared with the parent, and threads of the parent that
// the child does not have may have held locks at the moment of the fork. So it is left as it is, for ever.
//
// Calls do not wait for each other. What closes a handle, or has the store alone, waits until no call is
// under way, and new calls wait until it is done.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string_view>
#include <utility>

#include <tokcask/error.h>
#include <tokcask/options.h>

#include "engine/engine.h"
#include "os/fork.h"

namespace tokcask {

// Threads: all members may be called concurrently, but for the destructor.
class Handle {
 private:
  // What a process has open.
  struct Open {
    // Calls under way, by thread, so that threads do not share a cache line. A call counts itself before it
    // looks at `stopped`, and who stops calls sets that before it looks at the counts: one sees the other.
    struct alignas(64) Calls {
      std::atomic<std::uint32_t> count{0};
    };
    static constexpr std::size_t kPlaces = 64;
    std::array<Calls, kPlaces> calls;
    std::atomic<bool> stopped{false};
    std::mutex stopping;  // held while `stopped` is set
    const unsigned generation = fork_generation();
    std::shared_ptr<Engine> engine;  // changes while calls are stopped alone; empty once closed
    std::shared_ptr<Session> session;
    // What a child may read of its parent's.
    FileId file{};
    std::optional<shm::RunRef> ref;  // of the run
    std::atomic<bool> closed{false};
  };

 public:
  // One call, which keeps the engine open. Lives on the stack of the thread that calls.
  class Lease {
   public:
    // Throws Error(kClosed) after close(), and in a child what opening the store throws.
    explicit Lease(Handle& handle);
    ~Lease();
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    Engine* operator->() const { return open_->engine.get(); }
    Engine& operator*() const { return *open_->engine; }
    [[nodiscard]] const std::shared_ptr<Session>& session() const { return open_->session; }

   private:
    [[nodiscard]] bool is_nested() const noexcept;
    static thread_local const Lease* newest_;

    Open* open_;
    std::atomic<std::uint32_t>* count_;
    const Lease* outer_;  // of the same thread: somebody who is told a message makes a call
  };

  // Opens the store; see Engine::open() for what it throws. `of_process`: it joins a run of this process, if
  // there is one.
  Handle(std::filesystem::path root, Options options, bool of_process = false);
  // Closes; a failing last commit becomes a warning.
  ~Handle();
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;

  [[nodiscard]] Lease lease() { return Lease(*this); }
  // For a call that writes. Throws Error(kReadOnly) too.
  [[nodiscard]] Lease writing_lease() {
    require_writable();
    return Lease(*this);
  }
  // Has `act` run while no other call of this handle is under way and nobody else has the store open. When
  // `act` has put a new data file in place, the handle goes on with that; views of the old one stay. Throws
  // Error(kBusy) that names who has it open; `doing` is what it is to be: "compacted".
  void alone(std::string_view doing, const std::function<void(Engine&)>& act);

  // Waits for the calls of other threads. Idempotent. Throws what the last commit throws, when all is closed.
  void close();

  [[nodiscard]] const std::filesystem::path& root() const noexcept { return root_; }
  [[nodiscard]] const Options& options() const noexcept { return options_; }

 private:
  class Stop;

  [[nodiscard]] std::unique_ptr<Open> start(const Open* inherited) const;
  [[nodiscard]] std::shared_ptr<Engine> open_within_budget() const;
  // What this process has open.
  [[nodiscard]] Open* own();
  Open* reopen(Open* inherited);
  void require_writable() const;
  static void end_session(Engine& engine, const std::shared_ptr<Session>& session);
  void warn(const std::exception& error) const noexcept;
  [[nodiscard]] Error closed_error() const;

  const std::filesystem::path root_;
  const Options options_;
  const bool of_process_;
  std::atomic<Open*> open_{nullptr};
};

}  // namespace tokcask
