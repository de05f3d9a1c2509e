#include "engine/readers.h"

#include "os/fork.h"

namespace tokcask {

unsigned thread_number() noexcept {
  static std::atomic<unsigned> next{0};
  thread_local const unsigned number = next.fetch_add(1, std::memory_order_relaxed);
  return number;
}

Snapshot::~Snapshot() { readers_->give_back(place_, std::move(reader_)); }

Readers::Readers(const lmdb::Environment& environment)
    : environment_(&environment), fork_generation_(fork_generation()) {
  spare_.reserve(kMostSpare);
}

Readers::~Readers() {
  for (Place& place : places_) delete place.idle.load();
}

std::pair<std::size_t, std::unique_lock<std::mutex>> Readers::take_place() {
  const std::size_t own = thread_number() % kPlaces;
  for (std::size_t i = 0; i < kPlaces; ++i) {
    const std::size_t at = (own + i) % kPlaces;
    if (std::unique_lock lock(places_[at].mutex, std::try_to_lock); lock) return {at, std::move(lock)};
  }
  return {own, std::unique_lock(places_[own].mutex)};
}

std::unique_ptr<Reader> Readers::take_reader(Place& place) {
  std::unique_ptr<Reader> reader(place.idle.exchange(nullptr, std::memory_order_acquire));
  if (!reader) {
    const std::lock_guard lock(spare_mutex_);
    if (!spare_.empty()) {
      reader = std::move(spare_.back());
      spare_.pop_back();
    }
  }
  if (!reader) return std::make_unique<Reader>(*environment_);
  reader->transaction.renew();
  reader->records.renew(reader->transaction);
  return reader;
}

void Readers::give_back(std::size_t at, std::unique_ptr<Reader> reader) noexcept {
  if (!reader) return;
  if (fork_generation_ != fork_generation()) {
    // The parent's. LMDB's reader table is shared with the parent: ending the transaction would end the
    // parent's snapshot.
    static_cast<void>(reader.release());
    return;
  }
  reader->transaction.reset();
  Reader* none = nullptr;
  if (places_[at].idle.compare_exchange_strong(none, reader.get(), std::memory_order_release)) {
    static_cast<void>(reader.release());
    return;
  }
  const std::lock_guard lock(spare_mutex_);
  if (spare_.size() < kMostSpare) spare_.push_back(std::move(reader));
}

}  // namespace tokcask
