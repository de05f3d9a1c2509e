// A scan of every page of an LMDB data file, whatever its trees say: for taking what is intact out of a file
// that LMDB must not see any more.
//
// Pure functions of the bytes: no I/O, no lasting state, callable from any thread. Nothing outside `file` is
// read, whatever it holds, and nothing is thrown but std::bad_alloc and what the callbacks throw. Pages that
// no tree reaches are scanned as well: free ones have what older transactions left in them. So what is found
// may be stale or damaged, and telling that is the caller's part.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "lmdb/page_layout.h"

namespace tokcask::lmdb {

// The page size of `file`: that of a valid meta page, or else the one with which most pages have their own
// number; 4,096 where nothing tells.
std::size_t guess_page_bytes(std::span<const std::byte> file);

// A node of a leaf page whose bounds are possible.
struct ScannedNode {
  std::span<const std::byte> key;
  // Empty for a value in overflow pages that do not lie inside the file.
  std::span<const std::byte> value;
  // The first of the value's overflow pages; 0: the value lies inside the leaf.
  std::uint64_t overflow_page = 0;
};

struct ScanSink {
  std::function<void(const ScannedNode&)> node;
  // Of a page that has an overflow page's header: its place, and all of the file that follows the header.
  // Returns how many pages to go on behind, at least 1.
  std::function<std::uint64_t(std::uint64_t page, const layout::PageHeader& header,
                              std::span<const std::byte> rest)>
      overflow;
};

// Pages in the order of the file. A node's value may lie in pages that come later.
void scan_pages(std::span<const std::byte> file, std::size_t page_bytes, const ScanSink& sink);

}  // namespace tokcask::lmdb
