// What is left of a damaged store: the entries and rows that can be taken out of its data file.
//
// The file is read as bytes; LMDB never sees it. Each page is looked at, also those that older commits have
// left behind, for records whose header and checksum are right. Of the records of one key the newest is
// taken. It need not be the one that was stored last: keys are made of content (<tokcask/key.h>), so an older
// record of a key has that key's tokens too.
//
// The key of a record comes from a leaf page, or else from an entry row and the name of its tokenizer. In
// both cases the key must have the hash that the record's checksum covers.
//
// An entry that was evicted, pruned or cleared may come back. It does not where one of the two snapshots that
// LMDB keeps is whole: the snapshot walks clean, each of its records is intact, and its entry rows know them
// all. Then an entry is taken only if that snapshot has it, or if it was put later.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "record/record.h"
#include "record/rows.h"

namespace tokcask {

struct Survivors {
  struct Entry {
    std::string canonical;
    record::Header header;
    std::span<const std::byte> record;  // with its header
    std::uint64_t last_access = 0;      // as stored; 0: not known
  };
  using Row = std::pair<std::span<const std::byte>, std::span<const std::byte>>;

  // The newest store row that was found.
  std::optional<rows::StoreRow> store;
  // Newest generation first.
  std::vector<Entry> entries;
  // How many entries there were, as far as that can still be told; not less than those above.
  std::uint64_t known = 0;
  // The rows of the metadata table in key order. They have no checksums, so they are taken only from a
  // snapshot that walks clean.
  std::vector<Row> rows;
};

// Spans in what it returns point into `file`. A store of another format version gives nothing. Throws nothing
// but std::bad_alloc. Takes about as long as reading the file.
Survivors find_survivors(std::span<const std::byte> file);

}  // namespace tokcask
