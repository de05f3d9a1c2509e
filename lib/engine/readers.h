// Snapshots of the store for the threads of a process, each without waiting for the others.
//
// A call that reads takes a Reading: the newest snapshot, and a cursor on its records, for this thread alone.
// Each thread has a place of its own, with a read transaction that the next call of the thread uses again. A
// view that a call hands out owns a share of the snapshot. The last owner of a snapshot gives its transaction
// back, so a process that holds no view and makes no call holds no pages.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "lmdb/environment.h"

namespace tokcask {

class Readers;

// A number of this thread: the first threads of a process have 0, 1, 2 and so on.
[[nodiscard]] unsigned thread_number() noexcept;

// A read transaction and its cursor on the records, which lives as long.
struct Reader {
  explicit Reader(const lmdb::Environment& environment)
      : transaction(environment), records(transaction, lmdb::Table::kRecords) {}
  lmdb::ReadTransaction transaction;
  lmdb::Cursor records;
};

// One state of the store. While it lives, its pages are not reused.
class Snapshot {
 public:
  // `owner` is what has to live as long: the environment, and `readers`.
  Snapshot(Readers& readers, std::size_t place, std::shared_ptr<const void> owner,
           std::unique_ptr<Reader> reader) noexcept
      : readers_(&readers), place_(place), owner_(std::move(owner)), reader_(std::move(reader)) {}
  ~Snapshot();
  Snapshot(const Snapshot&) = delete;
  Snapshot& operator=(const Snapshot&) = delete;

 private:
  friend class Reading;
  friend class Readers;
  Readers* readers_;
  std::size_t place_;
  std::shared_ptr<const void> owner_;
  std::unique_ptr<Reader> reader_;
};

// What one call reads by. The thread that made it uses and destroys it. It is short: another thread that
// wants the same place takes another one.
class Reading {
 public:
  [[nodiscard]] const lmdb::ReadTransaction& transaction() const noexcept {
    return snapshot_->reader_->transaction;
  }
  [[nodiscard]] const lmdb::Cursor& records() const noexcept { return snapshot_->reader_->records; }
  // For views, which keep it.
  [[nodiscard]] const std::shared_ptr<Snapshot>& snapshot() const noexcept { return snapshot_; }

 private:
  friend class Readers;
  Reading(std::unique_lock<std::mutex> lock, std::shared_ptr<Snapshot> snapshot) noexcept
      : lock_(std::move(lock)), snapshot_(std::move(snapshot)) {}

  std::unique_lock<std::mutex> lock_;   // of the place
  std::shared_ptr<Snapshot> snapshot_;  // let go of before the lock
};

// Threads: all members may be called concurrently. Never used in a child of the process that made it.
class Readers {
 public:
  explicit Readers(const lmdb::Environment& environment);
  ~Readers();
  Readers(const Readers&) = delete;
  Readers& operator=(const Readers&) = delete;

  // The newest snapshot. `owner` has the environment, and is kept by each snapshot: it derives from
  // std::enable_shared_from_this. Throws Error.
  template <typename Owner>
  [[nodiscard]] Reading begin(Owner& owner) {
    auto [at, lock] = take_place();
    Place& place = places_[at];
    std::shared_ptr<Snapshot> snapshot = place.newest.lock();
    if (!snapshot || snapshot->reader_->transaction.id() != environment_->last_txnid()) {
      snapshot = std::make_shared<Snapshot>(*this, at, owner.shared_from_this(), take_reader(place));
      place.newest = snapshot;
    }
    return {std::move(lock), std::move(snapshot)};
  }

 private:
  friend class Snapshot;

  struct alignas(64) Place {
    std::mutex mutex;  // held by a Reading
    std::weak_ptr<Snapshot> newest;
    std::atomic<Reader*> idle{nullptr};
  };
  // More threads than this share places.
  static constexpr std::size_t kPlaces = 64;
  // Readers without a snapshot that are kept for later; each has one of LMDB's reader slots.
  static constexpr std::size_t kMostSpare = 16;

  [[nodiscard]] std::pair<std::size_t, std::unique_lock<std::mutex>> take_place();
  [[nodiscard]] std::unique_ptr<Reader> take_reader(Place& place);
  void give_back(std::size_t place, std::unique_ptr<Reader> reader) noexcept;

  const lmdb::Environment* environment_;
  const unsigned fork_generation_;
  std::array<Place, kPlaces> places_;
  std::mutex spare_mutex_;
  std::vector<std::unique_ptr<Reader>> spare_;
};

}  // namespace tokcask
