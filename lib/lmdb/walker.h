// The page walker: whether the bytes of an LMDB data file are a structure that LMDB can be let loose on.
//
// LMDB trusts its file: one wrong bit in a page header, an offset or a page number and it reads outside the
// map, or returns a neighbour's value. The walker visits every page of every tree once, before LMDB does, and
// checks all that LMDB takes for granted. It checks neither the inside of values nor more of keys than their
// order: that is what the records' checksums are for. Nor can it tell a page from an older one that fits in
// the same place, or the last snapshot from the one before when damage to their numbers swaps them.
//
// Pure functions of the bytes: no I/O, no lasting state, callable from any thread. Nothing outside `file` is
// read, whatever it holds, and nothing is thrown but std::bad_alloc. Time and memory are bounded by its size
// (one bit per page, eight bytes per free page). Values in overflow pages are not read beyond their page
// header, save those of the free list. The bytes may be overwritten meanwhile, as LMDB does to pages two
// commits after it freed them; then the walk is as safe, but what it reports may be false.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lmdb/page_layout.h"

namespace tokcask::lmdb {

enum class FileKind {
  kEmpty,         // no bytes: LMDB would silently make a new environment of it
  kLmdb,          // at least one meta page of the format that walk() reads
  kOtherVersion,  // LMDB's magic number, but another version of its format
  kForeign,       // anything else
};

// What `file` claims to be, by its meta pages alone.
FileKind probe(std::span<const std::byte> file);

struct WalkReport {
  bool ok = false;           // nothing was found
  bool meta_usable = false;  // at least one meta page is valid; if not, all numbers below are zero
  // From the meta page that LMDB would use, or the only valid one.
  std::uint64_t txnid = 0;
  std::uint64_t last_page = 0;
  std::uint32_t page_bytes = 0;
  // Counted on the walk; complete only when ok.
  std::uint64_t tree_pages = 0;       // branch and leaf pages of all trees, that of the free list included
  std::uint64_t overflow_pages = 0;   // of all trees
  std::uint64_t free_pages = 0;       // named by the free list
  std::uint64_t leaked_pages = 0;     // neither: lost for the file, but harmless
  std::uint64_t entries = 0;          // of all named databases
  std::vector<std::string> findings;  // the first kMaxFindings, one sentence each
  std::uint64_t finding_count = 0;    // of all

  static constexpr std::size_t kMaxFindings = 32;
};

// Walks the snapshot that LMDB would open: the free list; the main database, which must hold named databases
// and nothing else; and each of those, which must have keys in byte order, no duplicates, and keys and values
// whose sizes are multiples of 8. When it is good, every value in it is therefore 8-byte aligned.
WalkReport walk(std::span<const std::byte> file);

// The meta pages of `file` that are valid, by number. Copies: LMDB overwrites one of them with each commit.
using MetaPages = std::array<std::optional<layout::Meta>, layout::kMetaPages>;
MetaPages meta_pages(std::span<const std::byte> file);

// What is wrong with the meta pages, apart from all that they refer to; one sentence each.
std::vector<std::string> meta_findings(std::span<const std::byte> file);

// Is given each entry of each named database, in key order, as the walk comes to it: before it is known
// whether the rest is good. Points into the file.
using EntrySink = std::function<void(std::string_view database, std::span<const std::byte> key,
                                     std::span<const std::byte> value)>;

// As walk(), but walks the snapshot of `meta` alone, whatever the meta pages of the file say by now: an older
// one, or that of a transaction which keeps its pages from being reused, so that a live file gives no false
// findings.
WalkReport walk_snapshot(std::span<const std::byte> file, const layout::Meta& meta,
                         const EntrySink& sink = {});

}  // namespace tokcask::lmdb
