// Entries as they lie in a store, with what the store knows of them: for who moves, compares or lists them.
//
// Plain values. An Entry's view owns a share of the snapshot it was read from, as every view does: let go of
// a chunk before the next one is asked for, and a walk of any length pins few pages, and those not for long.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <tokcask/key.h>
#include <tokcask/tokens.h>

namespace tokcask {

struct EntryInfo {
  CacheKey key;
  std::uint32_t tokens = 0;
  std::uint64_t created_ns = 0;      // nanoseconds since the Unix epoch, as the next
  std::uint64_t last_access_ns = 0;  // 0: not known, which counts as older than all
  std::uint64_t bytes = 0;           // of the pages that it occupies
};

struct Entry {
  EntryInfo info;
  TokenView view;
};

// Where in a store's key order a walk is: before all entries when it is new. A plain value; stays good
// whatever is put or removed meanwhile, and also for another handle on the same store.
class EntryPosition {
 public:
  EntryPosition() = default;

 private:
  friend class Engine;
  std::string last_;  // the last key that was passed, as it is stored; empty: none
};

// How much one chunk holds at most. A chunk holds at least one entry if there is one.
struct ChunkLimits {
  std::size_t entries = 1024;
  std::size_t payload_bytes = std::size_t{16} << 20;
};

// Some entries that follow each other, all from one snapshot.
struct EntryChunk {
  std::vector<Entry> entries;
  std::uint64_t damaged = 0;  // records between them that are damaged: told in a warning, and left out
  bool end = false;           // nothing follows
};

// What put() is told of an entry that was made elsewhere. Times that lie in the future count as now.
struct PutOptions {
  // Nanoseconds since the Unix epoch; nothing: now.
  std::optional<std::uint64_t> created_ns = {};
  // Its place in the order of eviction. One older than the run's start is not protected by the run, and an
  // entry never makes one go that was used later than itself: then it is declined.
  std::optional<std::uint64_t> last_access_ns = {};
};

}  // namespace tokcask
