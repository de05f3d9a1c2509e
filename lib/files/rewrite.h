// A store's content written into a new data file: in key order, without gaps, and without what is not to be
// kept.
//
// Slots, generations and the bytes of records stay as they are, so what is known of entries by slot, in
// shared memory and in each process, stays true. Places in the file do not.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "lmdb/environment.h"
#include "record/rows.h"
#include "shm/access_table.h"

namespace tokcask {

struct Rewrite {
  // By slot; those beyond its end are kept.
  std::vector<bool> leave_out;
  // What the history shall say of those.
  rows::Fate fate = rows::Fate::kNone;
  // Leaves out what is remembered of directories, tokenizer files and tokenizers.
  bool forget_hints = false;
  // What the store row shall have as the budget; 0: as it is.
  std::uint64_t max_bytes = 0;
  // The file is that of another store, with shared memory of its own.
  bool new_store = false;
};

struct Rewritten {
  std::uint64_t bytes = 0;           // of the new file
  std::uint64_t entries = 0;         // in it
  std::uint64_t left_out = 0;        // because that was asked for
  std::uint64_t left_out_bytes = 0;  // that these occupied
  std::uint64_t damaged = 0;         // left out because they could not have been served
  std::vector<std::uint32_t> freed;  // slots that had an entry and have none
  std::uint64_t txnid = 0;           // of the snapshot that was copied
};

// Writes `directory`/data.mdb, durable when it returns. The caller holds the write lock, so that nothing is
// committed to `from` meanwhile. Throws Error(kIo), for a full disk too; then `directory` holds a part of it.
Rewritten rewrite(const lmdb::Environment& from, shm::AccessTable& access,
                  const std::filesystem::path& directory, const Rewrite& how);

}  // namespace tokcask
