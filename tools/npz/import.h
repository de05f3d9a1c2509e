// Taking the entries of a seed-style cache over into a store. The cache is only read.
//
//   DIR/manifest.json            see manifest.h
//   DIR/entries/SHARD/FILENAME   see archive.h
//
// Files are opened below DIR/entries without following links, so that a manifest cannot lead out of it. An
// entry that the store has with the same tokens is left, with the later last access of the two; with other
// tokens it is a conflict. May be killed at any time; the next run finds what was committed and goes on.
#pragma once

#include <cstdint>
#include <string>

#include <tokcask/cache.h>

#include "corpus/walk.h"
#include "npz/manifest.h"
#include "warm/monitor.h"

namespace tokcask::npz {

struct ImportOptions {
  std::string directory;
  bool replace = false;  // conflicts are put over what the store has
};

// The sum of imported, already_there, replaced, conflicts, declined, missing, damaged and malformed is the
// manifest's number of entries, unless it was stopped.
struct ImportFigures {
  std::uint64_t imported = 0;
  std::uint64_t already_there = 0;
  std::uint64_t newer_access = 0;  // of these, how many made the last access later
  std::uint64_t replaced = 0;
  std::uint64_t declined = 0;  // not put, because the budget has no room for them
  corpus::NamedFiles conflicts;
  corpus::NamedFiles missing;    // their file is not there
  corpus::NamedFiles damaged;    // their file is not what was written, or cannot be read
  corpus::NamedFiles malformed;  // their row or their file is none of an entry
  corpus::NamedFiles orphans;    // files below entries that no row names: a killed run leaves such
  bool interrupted = false;
  Stats store;  // after the last commit
};

// Runs until done or until `monitor` says stop, then commits what there is. The store stays open. Throws
// Error for a DIR/entries that cannot be read, and for a store that cannot be written; what was committed by
// then stays.
[[nodiscard]] ImportFigures import_entries(TokenizedCache& cache, const Manifest& manifest,
                                           const ImportOptions& options, warm::Monitor& monitor);

}  // namespace tokcask::npz
