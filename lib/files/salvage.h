// A damaged store made whole: what is left of it (survivors.h), written into a new data file that takes the
// place of the damaged one, which is kept.
//
// The new file is complete, walked and verified before it gets its name, so a kill leaves the old file or the
// new one. The new file is another store by its uuid: what shared memory and key tables say of the old one is
// void.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include <tokcask/stats.h>

#include "files/store_files.h"

namespace tokcask {

struct Salvaged {
  std::uint64_t saved = 0;  // entries in the new file
  std::uint64_t known = 0;  // entries that there were, as far as that can still be told; at least `saved`
  [[nodiscard]] std::uint64_t lost() const noexcept { return known - saved; }
};

struct Recovery {
  std::filesystem::path kept;  // the new name of the damaged file
  FileId file;                 // of the new one
  // Nothing when there was nothing to be saved, or no room for it: then the new store is empty.
  std::optional<Salvaged> salvaged;
  std::string why_not;  // there was no room: what could not be done

  // What became of it, for people: goes on from why `data.mdb` cannot be used.
  [[nodiscard]] std::string description() const;
};

enum class NoRoom {
  kStartEmpty,  // puts an empty store in place
  kThrow,       // Error(kIo), and all is as it was
};

// Makes the data file of `root`, which nobody can use, a store again, of at most `max_bytes` or the budget
// that the store was last given: the larger one, unless `shrink` is set. The caller holds the write lock, and
// nobody has the store open. Throws Error(kIo) when not even an empty file can be made; then all is as it
// was.
Recovery recover(const std::filesystem::path& root, std::optional<std::uint64_t> max_bytes, bool shrink,
                 NoRoom no_room);

// Adds what a recovery did.
void add_to(VerifyReport& report, const Recovery& recovery);

}  // namespace tokcask
