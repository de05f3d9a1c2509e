// The data file of LMDB 0.9 (format version 1) on 64-bit little-endian machines: every constant of it that
// tokcask relies on, after LMDB's mdb.c (MDB_page, MDB_node, MDB_db, MDB_meta). A format, no I/O.
//
//   page    number u64, pad u16, flags u16, lower u16, upper u16; an overflow page has its number of pages
//           (u32) in place of lower and upper
//   meta    pages 0 and 1: page header, Meta. Transaction n writes meta page n % 2
//   tree    page header, one u16 offset per node up to `lower`, free space, nodes from `upper` to the end
//   node    NodeHeader, key, data; starts at an even offset. Nodes fill their part of the page exactly when
//           each is rounded up to an even size
//   branch  node: no data; `low`, `high` and `flags` are the child's page number, 48 bits. The key of node 0
//           is not used; that of node i > 0 is the smallest that may lie below its child
//   leaf    node: `low` and `high` are the value's size. The data is the value, or with kNodeOverflow the
//           number of the first of its overflow pages (u64), or with kNodeDatabase a Database
//   value   in overflow pages it follows the first one's header; the pages after that have none
//   free    a tree like any other: transaction number (u64) -> count (u64), then that many page numbers,
//           descending. The value may have room for more
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace tokcask::lmdb::layout {

static_assert(std::endian::native == std::endian::little && sizeof(std::size_t) == 8,
              "LMDB's files are in the machine's own format; this is the 64-bit little-endian one");

inline constexpr std::uint32_t kMagic = 0xBEEFC0DE;
inline constexpr std::uint32_t kDataVersion = 1;
inline constexpr std::uint64_t kMetaPages = 2;
inline constexpr std::uint64_t kNoPage = ~std::uint64_t{0};  // the root of an empty tree
inline constexpr std::size_t kMinPageBytes = 512;
inline constexpr std::size_t kMaxPageBytes = 32768;
inline constexpr unsigned kMaxDepth = 32;  // CURSOR_STACK

// Page flags. LMDB knows more; none of them belongs on disk in a store without duplicate keys.
inline constexpr std::uint16_t kBranchPage = 0x01;
inline constexpr std::uint16_t kLeafPage = 0x02;
inline constexpr std::uint16_t kOverflowPage = 0x04;
inline constexpr std::uint16_t kMetaPage = 0x08;

// Leaf node flags; 0x04 (F_DUPDATA) only with duplicate keys.
inline constexpr std::uint16_t kNodeOverflow = 0x01;  // F_BIGDATA
inline constexpr std::uint16_t kNodeDatabase = 0x02;  // F_SUBDATA

// Database flags. The free list's record also keeps the environment's flags, of which two may be there.
inline constexpr std::uint16_t kIntegerKey = 0x08;
inline constexpr std::uint16_t kEnvironmentFlags = 0x4001;  // MDB_NOSUBDIR, MDB_FIXEDMAP

struct PageHeader {
  std::uint64_t number;
  std::uint16_t pad;  // not initialized by LMDB
  std::uint16_t flags;
  std::uint16_t lower;
  std::uint16_t upper;

  [[nodiscard]] constexpr std::uint32_t overflow_pages() const { return lower | std::uint32_t{upper} << 16; }
};
static_assert(sizeof(PageHeader) == 16);

struct NodeHeader {
  std::uint16_t low;
  std::uint16_t high;
  std::uint16_t flags;
  std::uint16_t key_bytes;

  [[nodiscard]] constexpr std::uint32_t value_bytes() const { return low | std::uint32_t{high} << 16; }
  [[nodiscard]] constexpr std::uint64_t child() const { return value_bytes() | std::uint64_t{flags} << 32; }
};
static_assert(sizeof(NodeHeader) == 8);

struct Database {
  std::uint32_t pad;  // the free list's has the page size here
  std::uint16_t flags;
  std::uint16_t depth;
  std::uint64_t branch_pages;
  std::uint64_t leaf_pages;
  std::uint64_t overflow_pages;
  std::uint64_t entries;
  std::uint64_t root;
};
static_assert(sizeof(Database) == 48);

struct Meta {
  std::uint32_t magic;
  std::uint32_t version;
  std::uint64_t address;
  std::uint64_t map_bytes;
  Database free;
  Database main;
  std::uint64_t last_page;
  std::uint64_t txnid;
};
static_assert(sizeof(Meta) == 136);

// Where the magic number lies in LMDB 1.0, whose page header is longer.
inline constexpr std::size_t kMagicOffsetOf10 = 24;

// The largest node, header included; a larger value goes to overflow pages.
constexpr std::size_t max_node_bytes(std::size_t page_bytes) {
  return ((page_bytes - sizeof(PageHeader)) / 2 & ~std::size_t{1}) - sizeof(std::uint16_t);
}
constexpr std::uint64_t overflow_pages(std::uint64_t value_bytes, std::size_t page_bytes) {
  return (sizeof(PageHeader) - 1 + value_bytes) / page_bytes + 1;
}

// Reads at any alignment.
template <class T>
T load(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

}  // namespace tokcask::lmdb::layout
