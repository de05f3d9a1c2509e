// What is left of a damaged store: the entries and rows that can be taken out of its data file.
//
// The file is read as bytes; LMDB never sees it. Two sources: a snapshot of it that still walks clean, which
// may be the one before the last, and a scan of all pages for records whose header and checksum are right.
// The key of a record comes from a leaf, or where that is lost from a copy of its entry row; either way it
// must have the hash that the record's checksum covers.
//
// Pages of older commits turn up in the scan. An older record of a key that was put again must never be
// served, so for each key only the highest generation counts that any record or entry row names; when the
// record of that one is not intact, the key is not saved. Nor is it when a leaf says that it has a record in
// a page that is cut off, zeros or another page, or the last snapshot leads to another record for it: that
// may have been a newer one. An entry that was evicted or pruned may come back, its tokens are what its key
// says, unless the last snapshot's entry rows show that it was removed: then there may have been a newer one
// that was removed, too. Where two records of one key with different tokens show that this store has keys put
// again, or so much of the file is cut off that what is left may not show it, only entries are saved that the
// last snapshot leads to and that their entry rows in it know: nobody knows what else was replaced by what is
// lost.
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

struct Remains {
  struct Entry {
    std::string canonical;
    record::Header header;
    std::uint64_t offset = 0;       // of the record in the file
    std::uint64_t last_access = 0;  // as stored; 0: not known
  };
  using Row = std::pair<std::span<const std::byte>, std::span<const std::byte>>;

  // The newest store row that was found.
  std::optional<rows::StoreRow> store;
  // The store is of another format version: nothing of it is understood.
  bool other_format = false;
  // Newest generation first.
  std::vector<Entry> entries;
  // How many entries there were, as far as that can still be told; not less than those above.
  std::uint64_t known = 0;
  // No generation of the store was higher than the one before this, as far as is known.
  std::uint64_t next_generation = 1;
  // Whether a snapshot walks clean, and the rows of its metadata table in key order. They have no checksums
  // of their own, so without such a snapshot there are none.
  bool has_snapshot = false;
  std::vector<Row> rows;
};

// Spans in what it returns point into `file`. Throws nothing but std::bad_alloc. Takes about as long as
// reading the file.
Remains find_remains(std::span<const std::byte> file);

}  // namespace tokcask
