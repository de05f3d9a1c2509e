// TokenDataset: a fixed list of keys that is resolved once and then read by index. What a dataloader wants.
//
//   const auto keys = ...;                                   // std::vector<CacheKey>
//   auto dataset = tokcask::TokenDataset::open("/data/tokens", keys);
//   for (std::size_t i : order) {
//     if (const auto item = dataset.get(i)) train(item->input_ids());
//   }
//
// Opening looks every key up in one ordered pass and keeps where its record lies, 16 bytes each, in a table
// that all processes of the run share (lib/shm/key_table.h). After that an item costs an index into the table
// and a look at the record's header: no key is built, no tree is descended, no lock is taken that another
// process could hold.
//
// Ownership: a movable handle (one that was moved from is as if closed), open read-only, which never takes
// the store's write lock. Views are those of TokenizedCache: they stay valid and unchanged for as long as
// they are held. Threads: all members may be called from any thread at any time. Processes: a child made by
// fork() uses its parent's dataset as it is; its first call opens the store again and goes on with the table
// that it inherited. A process started otherwise opens the dataset from packed_keys() and maps the table.
// Snapshots: each call takes the newest snapshot, and gives it up at its end unless a view keeps it. So a
// dataset sees what is committed meanwhile, pins no pages between calls however long an epoch is, and lets a
// writer reuse what it freed. The table is of one transaction. As the store moves on, an entry in pages of
// its own that was neither replaced nor removed is still found through the table; any other is looked up by
// its key (about 1 to 2 us), and when a quarter of the list was, the table is made again. Failure: see
// error.h. get() and get_many() never throw for what is in the store: an entry that was evicted, pruned,
// cleared or damaged is a miss. Entries that the dataset has are protected from eviction, as all that was
// used since the oldest living run began.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include <tokcask/error.h>
#include <tokcask/export.h>
#include <tokcask/impl_ptr.h>
#include <tokcask/key.h>
#include <tokcask/options.h>
#include <tokcask/tokens.h>

namespace tokcask {

// What becomes of a key that the store has no entry for when the dataset is opened.
enum class MissingKeys {
  kError,  // Error(kMissing), which says how many and names the first
  kDrop,   // it is left out: the items are those of kept(), in their order
  kKeep,   // its item is a miss until somebody puts it
};

struct DatasetOptions {
  MissingKeys missing = MissingKeys::kError;

  // Have all of data.mdb read into the page cache in the background, in file order.
  bool populate = false;

  // As in Options. 0, or a run that is not alive: the newest living run that this process has on the store,
  // or one that begins.
  std::uint64_t run_id = 0;

  // As in Options.
  bool derive_lengths = true;
  VerifyPolicy verify = VerifyPolicy::kFirst;
  bool allow_network_filesystem = false;
  MessageSink on_message = {};
};

class TOKCASK_API TokenDataset {
 public:
  // Opens the existing store in directory `root` and resolves `keys`, which may repeat. Throws Error:
  // kNotFound (no store), kMissing, kDamaged, kIo, kInvalidArgument (more than 2^32 - 1 keys), kUnsupported,
  // kBusy.
  static TokenDataset open(const std::filesystem::path& root, std::span<const CacheKey> keys,
                           DatasetOptions options = {});
  // The same from packed_keys() of another dataset, which were written by this version of the library.
  // Error(kInvalidArgument) for other bytes.
  static TokenDataset open_packed(const std::filesystem::path& root, std::span<const std::byte> packed_keys,
                                  DatasetOptions options = {});

  TokenDataset(TokenDataset&&) noexcept;
  TokenDataset& operator=(TokenDataset&&) noexcept;
  ~TokenDataset();

  [[nodiscard]] std::size_t size() const;

  // The item, or nothing if the store has no such entry (any more). Counts a hit or a miss and records the
  // access. Error(kInvalidArgument) for an index that there is not.
  [[nodiscard]] FoundTokens get(std::size_t index);
  // One result per index, in the order given, all from one snapshot.
  [[nodiscard]] std::vector<std::optional<TokenView>> get_many(std::span<const std::size_t> indices);

  // Tokens of each item when the table was made, without touching them; 0 for a key without an entry. For
  // packing and for batches of like lengths.
  [[nodiscard]] std::vector<std::uint32_t> lengths() const;
  [[nodiscard]] CacheKey key(std::size_t index) const;
  // With MissingKeys::kDrop, the index in the list given of each item; empty if nothing was dropped.
  [[nodiscard]] std::span<const std::size_t> kept() const;
  // The keys in 16 bytes each, or 20 beside keys of another tokenizer or length, for open_packed() in another
  // process of this machine.
  [[nodiscard]] std::vector<std::byte> packed_keys() const;

  // Has the pages of these items read into the page cache, in file order, by a thread of this process.
  // Returns at once; what is asked for beyond 65,536 ranges is left out. A hint: failures are silent.
  void prefetch(std::span<const std::size_t> indices);

  // Idempotent. Views stay valid.
  void close();

  [[nodiscard]] const std::filesystem::path& root() const;

  // The run it belongs to, for DatasetOptions::run_id elsewhere; 0 if it has none or is closed.
  [[nodiscard]] std::uint64_t run_id() const;

 private:
  class Impl;
  explicit TokenDataset(std::unique_ptr<Impl> impl) noexcept;
  detail::ImplPtr<Impl> impl_;
};

}  // namespace tokcask
