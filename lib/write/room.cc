#include "write/room.h"

#include "record/record.h"
#include "record/rows.h"

namespace tokcask::room {

namespace {

// A node is a header of 8 bytes, the key, the value or a page number of 8 bytes, and an offset of 2 bytes.
constexpr std::uint64_t kNodeBytes = 10;
constexpr std::uint64_t kPageNumberBytes = 8;
constexpr std::uint64_t kMetaKeyBytes = 8;

constexpr std::uint64_t leaf_bytes(std::uint64_t key, std::uint64_t value, std::uint64_t pages) {
  return kNodeBytes + key + (pages > 0 ? kPageNumberBytes : value);
}

struct Changes {
  std::uint64_t inserted = 0;  // new, or of another size than before
  std::uint64_t updated = 0;   // of the same size as before
  std::uint64_t erased = 0;
  std::uint64_t bytes = 0;  // of what is inserted
};

// Pages of one tree that such changes copy or make.
std::uint64_t pages_of_tree(const lmdb::TableStat& tree, const Changes& changes, std::uint64_t page_bytes) {
  const std::uint64_t branch_levels = minus(tree.depth, 1);
  // A removal may also touch the neighbour of each page on its way, to balance the tree.
  const std::uint64_t paths = changes.inserted + changes.updated + 2 * changes.erased;
  const std::uint64_t copied =
      std::min(tree.leaf_pages, paths) + std::min(tree.branch_pages, paths * branch_levels);
  // Each leaf may be full, so that one byte more splits it; its halves are filled again before they split.
  const std::uint64_t split_leaves =
      std::min(changes.inserted, std::min(tree.leaf_pages, paths) + 2 * changes.bytes / page_bytes + 1);
  // A removal may change the key by which a branch page knows a leaf.
  const std::uint64_t branch_changes = split_leaves + changes.erased;
  const std::uint64_t split_branches = std::min(
      branch_changes, std::min(tree.branch_pages, branch_changes * branch_levels) + (split_leaves + 3) / 4);
  const std::uint64_t new_roots = changes.inserted > 0 ? 1 + (tree.depth == 0 ? 1 : 0) : 0;
  return copied + split_leaves + split_branches + new_roots;
}

std::uint64_t numbers_per_page(std::uint64_t page_bytes) { return (page_bytes - 16) / 8 - 1; }

}  // namespace

void Work::put(std::size_t canonical_bytes, std::size_t record_size, std::string_view section_id,
               std::uint64_t page_bytes) {
  const std::size_t key = record::round_up(canonical_bytes, 8);
  const std::uint64_t pages = lmdb::value_pages(key, record_size, page_bytes);
  ++puts;
  value_pages += pages;
  record_bytes += leaf_bytes(key, record_size, pages);
  if (!rows::pack_section(section_id)) {
    ++literals;
    row_bytes += leaf_bytes(kMetaKeyBytes, record::round_up(section_id.size(), 8), 0);
  }
}

void Work::row(std::size_t key_bytes, std::size_t value_bytes, std::uint64_t page_bytes) {
  const std::uint64_t pages = lmdb::value_pages(key_bytes, value_bytes, page_bytes);
  ++rows;
  value_pages += pages;
  freed += pages;  // of the row that it may replace
  row_bytes += leaf_bytes(key_bytes, value_bytes, pages);
}

void Work::add(const Work& other) {
  puts += other.puts;
  removals += other.removals;
  rows += other.rows;
  erased_rows += other.erased_rows;
  folded += other.folded;
  notes += other.notes;
  literals += other.literals;
  value_pages += other.value_pages;
  record_bytes += other.record_bytes;
  row_bytes += other.row_bytes;
  freed += other.freed;
}

std::uint64_t tree_pages(const Space& space, const Work& work) {
  const std::uint64_t entries = work.puts + work.removals;
  const auto chunks = [&](std::uint64_t changed, std::uint64_t per_chunk) {
    return std::min(changed, (space.slots + work.puts) / per_chunk + 1);
  };
  const std::uint64_t of_entries = chunks(entries, rows::kEntriesPerChunk);
  const std::uint64_t of_stamps = chunks(work.puts + work.folded, rows::kStampsPerChunk);
  const std::uint64_t noted = work.removals + work.notes;
  const std::uint64_t of_history = noted > 0 ? noted / rows::kHistoryPerChunk + 2 : 0;
  const std::uint64_t all_chunks = of_entries + of_stamps + of_history;
  const std::uint64_t new_chunks =
      of_history +
      (work.puts > 0 ? work.puts / rows::kEntriesPerChunk + work.puts / rows::kStampsPerChunk + 2 : 0);
  // A chunk has its own page where pages have 4 KiB; where they are larger, it lies inside a leaf.
  const std::uint64_t chunk_pages =
      lmdb::value_pages(kMetaKeyBytes, sizeof(rows::StampChunk), space.page_bytes);

  Changes records;
  records.inserted = work.puts;
  records.erased = work.removals;
  records.bytes = work.record_bytes;
  Changes meta;
  meta.inserted = work.rows + work.literals + new_chunks;
  meta.updated = all_chunks + 1;  // and the store row
  // Each entry that goes may have its section id in a row of its own.
  meta.erased = work.removals + work.erased_rows;
  meta.bytes = work.row_bytes + new_chunks * leaf_bytes(kMetaKeyBytes, sizeof(rows::StampChunk), chunk_pages);
  const std::uint64_t of_records = entries > 0 ? pages_of_tree(space.records, records, space.page_bytes) : 0;
  return of_records + pages_of_tree(space.meta, meta, space.page_bytes) + all_chunks * chunk_pages;
}

Tail tail_of(const Space& space, const Work& work, std::uint64_t tree) {
  constexpr std::uint64_t kMain = 1;         // the database that names the tables
  constexpr std::uint64_t kNewFreeList = 3;  // the list of this transaction, and a leaf and a root beside
  constexpr std::uint64_t kLastPath = 4;     // to the end of a tree of several pages
  const std::uint64_t per_page = numbers_per_page(space.page_bytes);
  Tail tail;
  // Records whose pages are taken are deleted, and what is left of them is saved anew in pieces.
  const std::uint64_t leaves = 2 * space.reusable_bytes / space.page_bytes + 1;
  const std::uint64_t pieces = space.reusable > 0 ? space.reusable / per_page + 1 : 0;
  tail.single = kMain + leaves + leaves / 8 + kNewFreeList + pieces + pieces / 64;
  if (2 * space.free_list_bytes > space.page_bytes) tail.single += kLastPath;
  // A piece has one page, unless there are too few transaction numbers to name all pieces by.
  if (pieces > 1 && space.oldest_freed <= 2 * pieces + 2) {
    tail.side_by_side += pieces;
    tail.single -= pieces;
  }
  const std::uint64_t list = (tree + tail.single + work.freed) / per_page + 1;
  if (list > 1) tail.side_by_side += list;
  return tail;
}

std::uint64_t pages_of(const Space& space, const Work& work) {
  const std::uint64_t tree = tree_pages(space, work);
  const Tail tail = tail_of(space, work, tree);
  return work.value_pages + tree + tail.single + tail.side_by_side;
}

bool fits(const Space& space, const Work& work, std::uint64_t until) {
  return pages_of(space, work) <= space.available(until);
}

std::uint64_t end_after(const Space& space, const Work& work, std::uint64_t next_page, bool finished) {
  const std::uint64_t tree = tree_pages(space, work);
  const Tail tail = tail_of(space, work, tree);
  // Pages that did not extend the file so far: the free list gave them, or they are still to be taken.
  const std::uint64_t others = minus(work.value_pages + tree, next_page - space.end) + tail.single;
  std::uint64_t beyond = minus(others, space.reusable);
  if (finished) beyond = std::min(beyond, tail.single);
  return next_page + tail.side_by_side + beyond;
}

std::uint64_t pages_of_nothing(const Space& space) { return pages_of(space, {}); }

std::uint64_t reserve(const Space& space) {
  Work one;
  one.removals = 1;
  // One commit without content makes what was freed reusable, and has freed as much itself when it is done.
  return pages_of(space, one) + 2 * pages_of_nothing(space);
}

std::uint64_t removal_mark(const Space& space) { return minus(space.limit, pages_of_nothing(space)); }
std::uint64_t high_mark(const Space& space) { return minus(space.limit, reserve(space) + space.limit / 50); }
std::uint64_t low_mark(const Space& space) { return minus(high_mark(space), space.limit / 25); }

}  // namespace tokcask::room
