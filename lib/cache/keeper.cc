#include "cache/keeper.h"

#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <utility>

#include "cache/engine.h"

namespace tokcask {

namespace {

constexpr std::chrono::milliseconds kIdle{20};

}  // namespace

struct Keeper::State {
  std::mutex mutex;
  std::condition_variable changed;
  std::shared_ptr<Snapshot> kept;
  bool used = false;  // since the thread looked last
  bool stop = false;
  unsigned pauses = 0;

  void loop() {
    std::unique_lock lock(mutex);
    for (;;) {
      changed.wait(lock, [&] { return stop || kept; });
      used = false;
      if (changed.wait_for(lock, kIdle, [&] { return stop; })) return;
      if (used) continue;
      std::shared_ptr<Snapshot> idle = std::exchange(kept, nullptr);
      lock.unlock();
      idle.reset();  // this may be the engine's end
      lock.lock();
    }
  }
};

Keeper::Keeper() : state_(std::make_shared<State>()) {}

Keeper::~Keeper() {
  {
    const std::lock_guard lock(state_->mutex);
    state_->stop = true;
  }
  state_->changed.notify_one();
  if (thread_.get_id() == std::this_thread::get_id()) {
    thread_.detach();
  } else if (thread_.joinable()) {
    thread_.join();
  }
}

std::shared_ptr<Snapshot> Keeper::find(std::uint64_t txnid) {
  const std::lock_guard lock(state_->mutex);
  if (!state_->kept || state_->kept->transaction().id() != txnid) return nullptr;
  state_->used = true;
  return state_->kept;
}

void Keeper::keep(std::shared_ptr<Snapshot> snapshot) noexcept {
  bool is_first = false;
  {
    const std::lock_guard lock(state_->mutex);
    if (state_->pauses > 0) return;
    if (!thread_.joinable()) {
      try {
        thread_ = std::thread([state = state_] { state->loop(); });
      } catch (const std::exception&) {
        return;
      }
    }
    std::swap(state_->kept, snapshot);
    state_->used = true;
    is_first = !snapshot;
  }
  if (is_first) state_->changed.notify_one();
}

void Keeper::let_go() noexcept {
  std::shared_ptr<Snapshot> idle;
  const std::lock_guard lock(state_->mutex);
  std::swap(state_->kept, idle);
}

Keeper::Pause::Pause(Keeper& keeper) noexcept : state_(keeper.state_.get()) {
  std::shared_ptr<Snapshot> kept;
  const std::lock_guard lock(state_->mutex);
  ++state_->pauses;
  std::swap(state_->kept, kept);
}

Keeper::Pause::~Pause() {
  const std::lock_guard lock(state_->mutex);
  --state_->pauses;
}

}  // namespace tokcask
