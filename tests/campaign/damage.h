// Damage by seeded choice: which kind, where, and what was done in words.
#pragma once

#include <array>
#include <functional>
#include <string>
#include <string_view>

#include "samples.h"

namespace tokcask::campaign {

enum class Kind {
  kBit,
  kByte,
  kZero,     // a page of zeros
  kNoise,    // a page of random bytes
  kSwap,     // a page or the pages of a value, and others, in each other's place
  kOld,      // the same pages as an earlier commit had them
  kSeveral,  // two to six of the above
  kCut,      // the file cut short
  kLonger,   // bytes behind its end, or none at all in it
  kMeta,     // one meta page
  kMetas,    // both
  kLock,     // lock.mdb
  kAccess,   // access.shm
  kKeys,     // a key table
  kWriteLock,
  kEverything,  // data.mdb and all the other files
  kAccessLive,  // access.shm, while it is mapped
  kKeysLive,    // a key table, while it is mapped
};
inline constexpr std::size_t kKinds = 18;

struct KindFacts {
  Kind kind;
  const char* name;
  const char* what;
  unsigned weight;  // of all cases, in a hundredth
  bool data;        // data.mdb is damaged, so that it says something about LMDB too
};
[[nodiscard]] const std::array<KindFacts, kKinds>& kinds();
[[nodiscard]] const KindFacts& facts_of(Kind kind);

// What is done later to a store that is open: the file, relative to the store's directory, and how.
struct Later {
  std::string file;
  std::function<void(Bytes&)> change;
  bool after_use = false;  // of a key table: when all items were read once
};

struct DamagedStore {
  Files files;
  std::string what;  // in words, for who repeats a case
  Later later;       // of kinds that are done to an open store
};

[[nodiscard]] DamagedStore damage(const Sample& sample, Kind kind, Random& random);

}  // namespace tokcask::campaign
