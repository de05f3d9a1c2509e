// Prepared look-ups: items of a fixed list of keys, by index.
//
// What an item costs, from the cheapest on:
//  - The newest snapshot is the one that the table was made of: the table says where the record lies. Once it
//  was
//    checked, nothing of the record is read.
//  - It is a later one, and the record has pages of its own: these do not move while the entry lives, so the
//    table still holds if the entry table of the newest snapshot knows the record's generation.
//  - Anything else: a record inside a leaf, which its neighbours' changes may have moved; an entry that was
//    replaced or removed; a table that does not fit. The key is looked up as get() does.
// When a quarter of the list took the last way, the table is made anew, or a newer one that another process
// has made is taken.
//
// The table is believed as far as the record bears it out: the place must lie inside the file, and the record
// there must have the generation that the table says, which no other record of the store has. At its first
// use in this process it must also be of the item's key, and its checksum right.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include <tokcask/tokens.h>

#include "engine/engine.h"
#include "os/fork.h"
#include "record/key_list.h"
#include "shm/key_table.h"

namespace tokcask {

// Threads: all members may be called concurrently. In a forked child only table() may be called, to make one
// of the child's own.
class Prepared {
 public:
  // A table as one process uses it. Its memory may be shared; what of it was checked is the process's own,
  // and a child goes on with what its parent had checked.
  class Table {
   public:
    // `keys` are those of the table, read in place.
    Table(std::unique_ptr<const shm::KeyTable> shared, const record::KeyList& keys);
    [[nodiscard]] const shm::KeyTable& shared() const noexcept { return *shared_; }
    [[nodiscard]] const record::KeyList& keys() const noexcept { return keys_; }
    [[nodiscard]] std::size_t size() const noexcept { return keys_.size(); }

   private:
    friend class Prepared;
    std::unique_ptr<const shm::KeyTable> shared_;
    record::KeyList keys_;
    // Per item the fingerprint of the place where its record was found to be right; 0: none was yet.
    mutable std::vector<std::atomic<std::uint16_t>> checked_;
    // Look-ups by key of entries that are there, since the table was made.
    mutable std::atomic<std::uint64_t> by_key_{0};
    mutable std::atomic<bool> damage_told_{false};
  };

  // A table that another process of this store has made of `keys`, or nothing. It may be of an older
  // transaction.
  static std::shared_ptr<const Table> attach(const Engine& engine, const record::KeyList& keys);
  // Makes one of what was resolved.
  static std::shared_ptr<const Table> publish(Engine& engine, const Resolution& made,
                                              const record::KeyList& keys);

  explicit Prepared(std::shared_ptr<const Table> table);
  Prepared(const Prepared&) = delete;
  Prepared& operator=(const Prepared&) = delete;

  [[nodiscard]] unsigned generation() const noexcept { return generation_; }
  // The table in use. In a child it belongs to the parent's image, which nobody destroys.
  [[nodiscard]] const Table& newest() const noexcept { return *newest_.load(std::memory_order_acquire); }
  // The same, owned. Not in a child.
  [[nodiscard]] std::shared_ptr<const Table> table() const;

  // Looks up the items at `indices`, all less than the table's size, in one snapshot: the view of each that
  // is there goes to its position in `views`, which are empty. Counts, and records the accesses.
  void look_up(Engine& engine, Session& session, std::span<const std::size_t> indices,
               std::span<std::optional<TokenView>> views);

 private:
  // What holds for one transaction.
  struct Epoch;

  std::shared_ptr<const Epoch> epoch_of(Engine& engine, const lmdb::ReadTransaction& transaction);
  static bool is_current(const lmdb::ReadTransaction& transaction, const Epoch& epoch,
                         const record::Header& header);
  // The ids of the record where the table has it; a derived item's are the first of its ids.
  static std::optional<record::Record> at_place(Engine& engine, const lmdb::ReadTransaction& transaction,
                                                const Epoch& epoch, std::size_t index, VerifyPolicy policy);
  static bool is_of_item(Engine& engine, const lmdb::ReadTransaction& transaction, const Table& table,
                         std::size_t index, const record::Record& record);
  static void fetch_ahead(Engine& engine, const Epoch& epoch, std::span<const std::size_t> indices);
  static void report_damage(Engine& engine, const Table& table);
  void renew_table(Engine& engine, bool derive_lengths);

  const unsigned generation_ = fork_generation();
  std::atomic<const Table*> newest_;
  mutable std::mutex mutex_;
  std::shared_ptr<const Table> table_;
  std::shared_ptr<const Epoch> epoch_;
  std::mutex renewing_;
};

}  // namespace tokcask
