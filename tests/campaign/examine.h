// What a store does that was damaged: as its user sees it, and as LMDB alone would serve the same file.
#pragma once

#include <atomic>
#include <filesystem>

#include "damage.h"

namespace tokcask::campaign {

// What the examining child tells, in shared memory, so that a crash leaves what was told by then.
struct Report {
  // Of damage to an open store: 1 when the child has it open, 2 when the damage is done.
  std::atomic<int> stage;
  // The first look at all keys.
  std::uint32_t hits, misses;
  bool refused;          // opening told of the damage (Error(kDamaged)), or LMDB gave an error code
  bool looked;           // the first look is complete
  std::uint32_t older;   // values that were replaced before the damage
  std::uint32_t back;    // right values of entries that had been evicted or pruned
  std::uint32_t wrong;   // anything else that is not right
  std::uint32_t lost;    // what a flush after the damage promised, and is not there
  std::uint32_t errors;  // Errors where there may be some: commits, checks, walks
  bool threw;            // an exception where there may be none
  char step[64];         // what was being done
  char note[400];        // the first finding, or the exception
  char message[400];     // the first message
};

// Opens the store below `root` and does everything with it: reads it in all ways, and unless `read_only`
// puts, prunes, verifies, compacts and opens it again. For a child process.
void examine(const std::filesystem::path& root, const Sample& sample, const DamagedStore& damage,
             bool read_only, Report& report);

// The same file through LMDB's own functions: open, get all, walk all, compare, and unless `read_only` put
// some.
void examine_lmdb(const std::filesystem::path& root, const Sample& sample, const DamagedStore& damage,
                  bool read_only, Report& report);

}  // namespace tokcask::campaign
