// Keeps the newest snapshot of an engine from one look-up to the next.
//
// Taking a snapshot, and giving it up, is a quarter of what it costs to find a record of which the place is
// known, and look-ups come in streams. So the last one taken is kept while look-ups go on, and let go of by a
// thread of the keeper's own 20 to 40 ms after the last: a handle that is idle pins no pages, and nobody else
// has to ask it to. The thread sleeps when nothing is kept.
#pragma once

#include <cstdint>
#include <memory>
#include <thread>

namespace tokcask {

class Snapshot;

// Threads: all members may be called concurrently, but for the destructor. Not used after fork() in the
// child.
class Keeper {
 private:
  struct State;

 public:
  Keeper();
  // Nothing may be kept any more: what is kept keeps the engine, which this belongs to.
  ~Keeper();
  Keeper(const Keeper&) = delete;
  Keeper& operator=(const Keeper&) = delete;

  // The snapshot that is kept if it is of this transaction, else null.
  [[nodiscard]] std::shared_ptr<Snapshot> find(std::uint64_t txnid);
  // Keeps this one instead of what is kept. Keeps nothing when there can be no thread.
  void keep(std::shared_ptr<Snapshot> snapshot) noexcept;
  void let_go() noexcept;

  // While one lives, nothing is kept: what is freed by a write shall not be pinned by its own process.
  class Pause {
   public:
    explicit Pause(Keeper& keeper) noexcept;
    ~Pause();
    Pause(const Pause&) = delete;
    Pause& operator=(const Pause&) = delete;

   private:
    State* state_;
  };

 private:
  // The thread owns a share: letting go of a snapshot may end the engine, and this with it.
  const std::shared_ptr<State> state_;
  std::thread thread_;
};

}  // namespace tokcask
