// The arithmetic of pages: what a transaction may take of data.mdb, as functions of numbers. No I/O.
//
// LMDB knows no limit but the size of its map. So the writer bounds each commit. The end of the file is known
// exactly at each moment of a transaction (lmdb::WriteTransaction::next_page). What a transaction has still
// to take is bounded from above by the functions here:
//  - pages that it copies or makes in both trees (tree_pages), and
//  - pages that LMDB takes inside the commit, for the list of free pages (tail_of).
//
// LMDB takes a single page from its free list as long as that has one. Pages side by side it takes from the
// list only if they lie there side by side; else from the end of the file.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "lmdb/environment.h"

namespace tokcask::room {

constexpr std::uint64_t minus(std::uint64_t a, std::uint64_t b) { return a > b ? a - b : 0; }

// The file as the next transaction finds it. All but bytes are pages.
struct Space {
  std::uint64_t page_bytes = 0;
  std::uint64_t limit = 0;     // the budget, or less where the map or a full disk is smaller
  std::uint64_t end = 0;       // the length of the file
  std::uint64_t reusable = 0;  // free, and the next transaction can take them
  std::uint64_t recent = 0;    // freed by the last transaction: the next but one can take them
  std::uint64_t held = 0;      // free, but a reader's snapshot has them
  std::uint64_t txnid = 0;     // of the snapshot that was measured
  // LMDB's free list: the oldest record with reusable pages, the bytes of leaves that such records take, and
  // those of all records.
  std::uint64_t oldest_freed = 0;
  std::uint64_t reusable_bytes = 0;
  std::uint64_t free_list_bytes = 0;
  std::uint64_t slots = 0;
  lmdb::TableStat records;
  lmdb::TableStat meta;

  // What may be taken so that no more than `until` pages are in use or cannot be used again. Where the file
  // ends behind that already, not all that is reusable.
  [[nodiscard]] std::uint64_t available(std::uint64_t until) const { return minus(until + reusable, end); }
  // Pages that are in use, whoever holds the free ones.
  [[nodiscard]] std::uint64_t live() const { return minus(end, reusable + recent + held); }
};

// What a transaction does, besides writing the store row.
struct Work {
  std::uint64_t puts = 0;
  std::uint64_t removals = 0;      // of entries
  std::uint64_t rows = 0;          // other rows that are written
  std::uint64_t erased_rows = 0;   // other rows that are erased
  std::uint64_t folded = 0;        // chunks of stamps
  std::uint64_t notes = 0;         // rows of the history besides those of removals
  std::uint64_t literals = 0;      // section ids in rows of their own
  std::uint64_t value_pages = 0;   // pages of values outside leaves
  std::uint64_t record_bytes = 0;  // that leaves of records grow by at most
  std::uint64_t row_bytes = 0;     // the same of metadata
  std::uint64_t freed = 0;         // pages of values that are replaced or removed

  void put(std::size_t canonical_bytes, std::size_t record_size, std::string_view section_id,
           std::uint64_t page_bytes);
  void row(std::size_t key_bytes, std::size_t value_bytes, std::uint64_t page_bytes);
  void add(const Work& other);
};

// Upper bounds. Pages of the trees and of their chunks of rows that the transaction copies or makes.
[[nodiscard]] std::uint64_t tree_pages(const Space& space, const Work& work);
// What LMDB takes inside the commit of a transaction that has taken `tree` pages of trees.
struct Tail {
  std::uint64_t single = 0;        // pages, anywhere
  std::uint64_t side_by_side = 0;  // pages of lists that have to lie side by side
};
[[nodiscard]] Tail tail_of(const Space& space, const Work& work, std::uint64_t tree);

// All pages that the transaction takes.
[[nodiscard]] std::uint64_t pages_of(const Space& space, const Work& work);
// Whether they are there by number, if the file may end at `until`.
[[nodiscard]] bool fits(const Space& space, const Work& work, std::uint64_t until);
// Where the file ends at most if a transaction that has done `work` and is at `next_page` now is committed.
// `finished`: it has nothing to write any more.
[[nodiscard]] std::uint64_t end_after(const Space& space, const Work& work, std::uint64_t next_page,
                                      bool finished);

// ---- Water marks ----

// Kept for a transaction without content, which makes pages reusable.
[[nodiscard]] std::uint64_t pages_of_nothing(const Space& space);
// Kept so that entries can always be removed.
[[nodiscard]] std::uint64_t reserve(const Space& space);
// How far removals may extend the file, and how far puts may: about 98 % of the limit.
[[nodiscard]] std::uint64_t removal_mark(const Space& space);
[[nodiscard]] std::uint64_t high_mark(const Space& space);
// What is evicted to: about 94 %.
[[nodiscard]] std::uint64_t low_mark(const Space& space);

// The smallest budget of a store with such pages.
constexpr std::uint64_t least_budget(std::uint64_t page_bytes) { return 64 * page_bytes; }

// The bytes that remembered directories, tokenizer files and traits may take of a budget.
constexpr std::uint64_t hint_share(std::uint64_t max_bytes) { return max_bytes / 8; }

}  // namespace tokcask::room
