#include "lmdb/walker.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <functional>
#include <optional>
#include <string_view>
#include <utility>

#include "lmdb/page_layout.h"

namespace tokcask::lmdb {

namespace {

using namespace layout;
using Bytes = std::span<const std::byte>;

constexpr std::size_t kMetaBytes = sizeof(PageHeader) + sizeof(Meta);

bool page_size_ok(std::uint64_t bytes) {
  return std::has_single_bit(bytes) && bytes >= kMinPageBytes && bytes <= kMaxPageBytes;
}

// The meta page at `offset`, if it is page `number` of a file of this format.
std::optional<Meta> read_meta(Bytes file, std::uint64_t number, std::size_t offset) {
  if (file.size() < kMetaBytes || offset > file.size() - kMetaBytes) return std::nullopt;
  const auto header = load<PageHeader>(file.data() + offset);
  const auto meta = load<Meta>(file.data() + offset + sizeof header);
  if (header.number != number || header.flags != kMetaPage) return std::nullopt;
  if (meta.magic != kMagic || meta.version != kDataVersion) return std::nullopt;
  if (!page_size_ok(meta.free.pad) || (number == 1 && meta.free.pad != offset)) return std::nullopt;
  return meta;
}

// Meta page 1 lies one page into the file. Without meta page 0 to tell how far that is, it is looked for.
MetaPages read_metas(Bytes file) {
  if (const auto first = read_meta(file, 0, 0)) return {first, read_meta(file, 1, first->free.pad)};
  for (std::size_t at = kMinPageBytes; at <= kMaxPageBytes; at *= 2) {
    if (const auto second = read_meta(file, 1, at)) return {std::nullopt, second};
  }
  return {};
}

// LMDB's default order of keys.
int compare(Bytes a, Bytes b) {
  const int order = std::memcmp(a.data(), b.data(), std::min(a.size(), b.size()));
  if (order != 0) return order;
  return static_cast<int>(a.size() > b.size()) - static_cast<int>(a.size() < b.size());
}

// The order of transaction numbers. Both are eight bytes.
int compare_integers(Bytes a, Bytes b) {
  const auto x = load<std::uint64_t>(a.data());
  const auto y = load<std::uint64_t>(b.data());
  return static_cast<int>(x > y) - static_cast<int>(x < y);
}

enum class Role { kFreeList, kMain, kNamed };

// A B-tree: what its record says, and what the walk counted.
struct Tree {
  Role role;
  Bytes name;          // of a named database
  std::uint64_t home;  // the page with its record
  Database record;
  std::uint64_t branch_pages = 0;
  std::uint64_t leaf_pages = 0;
  std::uint64_t overflow_pages = 0;
  std::uint64_t entries = 0;

  [[nodiscard]] std::string description() const {
    if (role == Role::kFreeList) return "the free list";
    if (role == Role::kMain) return "the main database";
    std::string text = "database ";
    for (const std::byte byte : name.first(std::min<std::size_t>(name.size(), 64))) {
      const char c = static_cast<char>(byte);
      text += c > ' ' && c <= '~' ? c : '?';
    }
    return text;
  }
};

// The keys that may lie below a page: low <= key < high. Empty means unbounded; no key is empty.
struct Bounds {
  Bytes low;
  Bytes high;
};

struct Node {
  NodeHeader header;
  const std::byte* at;

  [[nodiscard]] Bytes key() const { return {at + sizeof header, header.key_bytes}; }
  [[nodiscard]] const std::byte* data() const { return at + sizeof header + header.key_bytes; }
};

// A branch or leaf page. What says where to read on (header, offsets, node headers) is read once and kept, so
// that what was checked is what is used, though LMDB may overwrite the page meanwhile.
struct Page {
  std::uint64_t number;
  const std::byte* at;
  PageHeader header;
  std::vector<Node> nodes;  // filled by Walker::read_nodes()

  [[nodiscard]] bool leaf() const { return header.flags == kLeafPage; }
  [[nodiscard]] std::size_t node_count() const {
    return (header.lower - sizeof header) / sizeof(std::uint16_t);
  }
};

class Walker {
 public:
  explicit Walker(Bytes file, const EntrySink* sink = nullptr) : file_(file), sink_(sink) {}
  WalkReport walk_newest();
  std::vector<std::string> check_metas();
  WalkReport walk_snapshot(const Meta& meta);

 private:
  template <class... Args>
  void find(fmt::format_string<Args...> text, Args&&... args) {
    if (report_.findings.size() < WalkReport::kMaxFindings) {
      report_.findings.push_back(fmt::format(text, std::forward<Args>(args)...));
    }
    ++report_.finding_count;
  }

  const Meta* newest_meta(const MetaPages& metas);
  void walk_tree(Tree tree);
  void walk_page(Tree& tree, std::uint64_t number, std::uint64_t parent, unsigned levels, Bounds bounds);
  void walk_entry(Tree& tree, const Page& page, const Node& node);
  void walk_free_entry(const Page& page, Bytes key, Bytes pages);

  bool claim(std::uint64_t first, std::uint64_t count, std::uint64_t parent);
  std::optional<Page> tree_page(std::uint64_t number, std::uint16_t flags);
  bool read_nodes(const Tree& tree, Page& page);
  const char* read_node(const Tree& tree, Page& page, std::size_t offset);
  bool keys_ascend(const Tree& tree, const Page& page, Bounds bounds);
  std::optional<Bytes> overflow_value(Tree& tree, const Page& page, const Node& node);
  void check_free_pages();

  [[nodiscard]] const std::byte* at(std::uint64_t page) const { return file_.data() + page * page_bytes_; }

  Bytes file_;
  const EntrySink* sink_;  // may be null
  WalkReport report_;
  std::size_t page_bytes_ = 0;
  std::uint64_t file_pages_ = 0;            // whole pages in the file
  std::vector<bool> reached_;               // for each page that is in the file and not past the last in use
  std::vector<std::uint64_t> free_;         // what the free list names
  std::vector<std::uint16_t> node_starts_;  // for read_nodes(): all zero between calls
};

WalkReport Walker::walk_newest() {
  const MetaPages metas = read_metas(file_);
  const Meta* const meta = newest_meta(metas);
  return meta == nullptr ? report_ : walk_snapshot(*meta);
}

std::vector<std::string> Walker::check_metas() {
  newest_meta(read_metas(file_));
  return std::move(report_.findings);
}

WalkReport Walker::walk_snapshot(const Meta& meta) {
  if (!page_size_ok(meta.free.pad)) {
    find("{} bytes are said to be the size of a page.", meta.free.pad);
    return report_;
  }
  page_bytes_ = meta.free.pad;
  file_pages_ = file_.size() / page_bytes_;
  report_.meta_usable = true;
  report_.txnid = meta.txnid;
  report_.last_page = meta.last_page;
  report_.page_bytes = meta.free.pad;
  reached_.resize(meta.last_page < file_pages_ ? meta.last_page + 1 : file_pages_);
  node_starts_.resize(page_bytes_ / 2);

  if (meta.last_page + 1 < kMetaPages) find("Page {} is said to be the last in use.", meta.last_page);
  const std::uint64_t home = meta.txnid % kMetaPages;
  walk_tree({.role = Role::kFreeList, .name = {}, .home = home, .record = meta.free});
  walk_tree({.role = Role::kMain, .name = {}, .home = home, .record = meta.main});
  check_free_pages();
  report_.ok = report_.finding_count == 0;
  return report_;
}

// The meta page that LMDB uses: that of the higher transaction. LMDB refuses the file when either is invalid.
const Meta* Walker::newest_meta(const MetaPages& metas) {
  for (std::size_t i = 0; i < kMetaPages; ++i) {
    if (!metas[i]) find("Page {} is not a valid meta page.", i);
  }
  if (!metas[0] || !metas[1]) return metas[0] ? &*metas[0] : metas[1] ? &*metas[1] : nullptr;
  const Meta& even = *metas[0];
  const Meta& odd = *metas[1];
  // A new environment has transaction 0 in both. After that each commit writes the older of the two: were
  // they anything but neighbours, LMDB would open a snapshot that is not the last.
  const bool unwritten = even.txnid == 0 && odd.txnid == 0;
  const bool neighbours = even.txnid % 2 == 0 && (even.txnid + 1 == odd.txnid || odd.txnid + 1 == even.txnid);
  if (!unwritten && !neighbours) {
    find("Pages 0 and 1 belong to transactions {} and {}, which do not follow each other.", even.txnid,
         odd.txnid);
  }
  return even.txnid < odd.txnid ? &odd : &even;
}

void Walker::walk_tree(Tree tree) {
  const Database& record = tree.record;
  const std::uint64_t findings_before = report_.finding_count;
  const bool flags_ok = tree.role == Role::kFreeList ? (record.flags & ~kEnvironmentFlags) == kIntegerKey
                                                     : record.flags == 0 && record.pad == 0;
  if (!flags_ok) {
    find("Page {} gives {} flags {:#x}.", tree.home, tree.description(), record.flags);
  } else if (record.depth > kMaxDepth || (record.depth == 0) != (record.root == kNoPage)) {
    find("Page {} gives {} depth {} and root {}.", tree.home, tree.description(), record.depth, record.root);
  } else if (record.depth != 0) {
    walk_page(tree, record.root, tree.home, record.depth, {});
  }
  report_.tree_pages += tree.branch_pages + tree.leaf_pages;
  report_.overflow_pages += tree.overflow_pages;
  if (tree.role == Role::kNamed) report_.entries += tree.entries;
  // After a finding the counts are those of what could be walked.
  if (report_.finding_count != findings_before) return;
  const auto check = [&](const char* what, std::uint64_t recorded, std::uint64_t counted) {
    if (recorded == counted) return;
    find("Page {} gives {} {} {}, but it has {}.", tree.home, tree.description(), recorded, what, counted);
  };
  check("branch pages", record.branch_pages, tree.branch_pages);
  check("leaf pages", record.leaf_pages, tree.leaf_pages);
  check("overflow pages", record.overflow_pages, tree.overflow_pages);
  check("entries", record.entries, tree.entries);
}

// `levels` counts down to the leaves, so that a damaged tree can be no deeper than its record says.
void Walker::walk_page(Tree& tree, std::uint64_t number, std::uint64_t parent, unsigned levels,
                       Bounds bounds) {
  if (!claim(number, 1, parent)) return;
  auto page = tree_page(number, levels == 1 ? kLeafPage : kBranchPage);
  if (!page || !read_nodes(tree, *page) || !keys_ascend(tree, *page, bounds)) return;
  ++(page->leaf() ? tree.leaf_pages : tree.branch_pages);
  const std::vector<Node>& nodes = page->nodes;
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    if (page->leaf()) {
      walk_entry(tree, *page, nodes[i]);
    } else {
      const Bytes low = i == 0 ? bounds.low : nodes[i].key();
      const Bytes high = i + 1 == nodes.size() ? bounds.high : nodes[i + 1].key();
      walk_page(tree, nodes[i].header.child(), number, levels - 1, {low, high});
    }
  }
}

void Walker::walk_entry(Tree& tree, const Page& page, const Node& node) {
  ++tree.entries;
  if (tree.role == Role::kMain) {
    walk_tree({.role = Role::kNamed,
               .name = node.key(),
               .home = page.number,
               .record = load<Database>(node.data())});
    return;
  }
  std::optional<Bytes> value = Bytes(node.data(), node.header.value_bytes());
  if (node.header.flags == kNodeOverflow) value = overflow_value(tree, page, node);
  if (!value) return;
  if (tree.role == Role::kFreeList) {
    walk_free_entry(page, node.key(), *value);
  } else if (sink_ != nullptr && *sink_) {
    (*sink_)({reinterpret_cast<const char*>(tree.name.data()), tree.name.size()}, node.key(), *value);
  }
}

void Walker::walk_free_entry(const Page& page, Bytes key, Bytes pages) {
  constexpr std::size_t kWord = sizeof(std::uint64_t);
  const auto txnid = load<std::uint64_t>(key.data());
  if (txnid > report_.txnid)
    find("Page {} has pages freed by transaction {}, yet to come.", page.number, txnid);
  const std::uint64_t words = pages.size() / kWord;
  const std::uint64_t count = words == 0 ? 0 : load<std::uint64_t>(pages.data());
  if (count >= words) {
    find("Page {} has a list of the pages freed by transaction {} that is cut short.", page.number, txnid);
    return;
  }
  std::uint64_t previous = report_.last_page + 1;
  for (std::uint64_t i = 1; i <= count; ++i) {
    const auto freed = load<std::uint64_t>(pages.data() + i * kWord);
    if (freed < kMetaPages || freed >= previous) {
      find("Page {} lists page {} as freed by transaction {}, where it cannot be.", page.number, freed,
           txnid);
      return;
    }
    free_.push_back(freed);
    previous = freed;
  }
}

// Marks pages as reached from `parent`. Each can be marked once, which bounds the whole walk.
bool Walker::claim(std::uint64_t first, std::uint64_t count, std::uint64_t parent) {
  if (first < kMetaPages || first >= reached_.size() || count > reached_.size() - first) {
    find("Page {} refers to {} page(s) at {}, outside the file or the part of it in use.", parent, count,
         first);
    return false;
  }
  for (std::uint64_t page = first; page < first + count; ++page) {
    if (reached_[page]) {
      find("Page {} refers to page {}, which something else refers to as well.", parent, page);
      return false;
    }
    reached_[page] = true;
  }
  return true;
}

// The page, if its header is that of a tree page of this kind. Overflow pages have no business here.
std::optional<Page> Walker::tree_page(std::uint64_t number, std::uint16_t flags) {
  Page page{number, at(number), load<PageHeader>(at(number)), {}};
  const PageHeader& header = page.header;
  if (header.number != number || header.flags != flags) {
    find("Page {} has number {} and flags {:#x} where a {} page should be.", number, header.number,
         header.flags, flags == kLeafPage ? "leaf" : "branch");
    return std::nullopt;
  }
  if (header.lower < sizeof header || header.lower > header.upper || header.upper > page_bytes_ ||
      header.lower % 2 != 0 || header.upper % 2 != 0) {
    find("Page {} has impossible bounds: lower {}, upper {}.", number, header.lower, header.upper);
    return std::nullopt;
  }
  if (page.node_count() < (page.leaf() ? 1 : 2)) {
    find("Page {} has {} node(s), too few.", number, page.node_count());
    return std::nullopt;
  }
  return page;
}

// Reads the nodes. They must fill the page from `upper` to its end, without a gap or an overlap: from
// `upper`, each must end where another one starts, and all must be met on the way.
bool Walker::read_nodes(const Tree& tree, Page& page) {
  const char* fault = nullptr;
  page.nodes.reserve(page.node_count());
  for (std::size_t i = 0; i < page.node_count() && fault == nullptr; ++i) {
    const std::byte* const slot = page.at + sizeof(PageHeader) + i * sizeof(std::uint16_t);
    fault = read_node(tree, page, load<std::uint16_t>(slot));
  }
  std::size_t end = page.header.upper;
  std::size_t met = 0;
  if (fault == nullptr) {
    for (; end < page_bytes_ && node_starts_[end / 2] != 0; ++met)
      end += std::exchange(node_starts_[end / 2], 0);
    if (met == page.nodes.size() && end == page_bytes_) return true;
  }
  std::fill(node_starts_.begin(), node_starts_.end(), std::uint16_t{0});
  if (fault != nullptr) {
    find("Node {} of page {} {}.", page.nodes.size(), page.number, fault);
  } else {
    find("The nodes of page {} leave a gap or overlap at offset {}.", page.number, end);
  }
  return false;
}

// Adds the node at `offset` to the page's, and its size, even and not zero, to node_starts_. Returns what is
// wrong with it by itself, and adds nothing then; or null.
const char* Walker::read_node(const Tree& tree, Page& page, std::size_t offset) {
  if (offset % 2 != 0 || offset < page.header.upper || offset > page_bytes_ - sizeof(NodeHeader)) {
    return "starts outside the node area";
  }
  if (node_starts_[offset / 2] != 0) return "starts where another node does";
  const Node node{load<NodeHeader>(page.at + offset), page.at + offset};
  const std::size_t key_bytes = node.header.key_bytes;
  const std::size_t value_bytes = node.header.value_bytes();
  std::size_t data_bytes = 0;
  if (page.leaf()) {
    const bool database = tree.role == Role::kMain;
    if (database ? node.header.flags != kNodeDatabase : (node.header.flags & ~kNodeOverflow) != 0) {
      return "has flags that do not belong in this tree";
    }
    if (database && value_bytes != sizeof(Database)) return "has a database record of the wrong size";
    data_bytes = node.header.flags == kNodeOverflow ? sizeof(std::uint64_t) : value_bytes;
  }
  const std::size_t bytes = (sizeof(NodeHeader) + key_bytes + data_bytes + 1) & ~std::size_t{1};
  if (bytes > page_bytes_ - offset) return "reaches past the end of the page";
  if (bytes > max_node_bytes(page_bytes_)) return "is larger than LMDB makes nodes";
  const bool key_used = page.leaf() || !page.nodes.empty();
  if (key_used && key_bytes == 0) return "has an empty key";
  if (key_used && tree.role == Role::kFreeList && key_bytes != sizeof(std::uint64_t)) {
    return "has a key that is no transaction number";
  }
  if (tree.role == Role::kNamed && page.leaf() && (key_bytes % 8 != 0 || value_bytes % 8 != 0)) {
    return "has a key or value of a size that is no multiple of 8";
  }
  node_starts_[offset / 2] = static_cast<std::uint16_t>(bytes);
  page.nodes.push_back(node);
  return nullptr;
}

bool Walker::keys_ascend(const Tree& tree, const Page& page, Bounds bounds) {
  const auto order = tree.role == Role::kFreeList ? compare_integers : compare;
  Bytes previous = bounds.low;
  // Only the first key of a leaf may be equal to the bound that the pages above give.
  bool equal_ok = page.leaf();
  for (std::size_t i = page.leaf() ? 0 : 1; i < page.nodes.size(); ++i) {
    const Bytes key = page.nodes[i].key();
    if (!previous.empty() && order(previous, key) >= (equal_ok ? 1 : 0)) {
      find("The key of node {} of page {} is not above the one before it.", i, page.number);
      return false;
    }
    previous = key;
    equal_ok = false;
  }
  if (!bounds.high.empty() && order(previous, bounds.high) >= 0) {
    find("The last key of page {} belongs to the right of it.", page.number);
    return false;
  }
  return true;
}

// LMDB may leave a value more pages than it needs (a smaller one put over it in the same transaction), and
// trusts the page header for how many there are.
std::optional<Bytes> Walker::overflow_value(Tree& tree, const Page& page, const Node& node) {
  const auto first = load<std::uint64_t>(node.data());
  const std::uint32_t bytes = node.header.value_bytes();
  if (!claim(first, 1, page.number)) return std::nullopt;
  const auto header = load<PageHeader>(at(first));
  if (header.number != first || header.flags != kOverflowPage) {
    find("Page {} has number {} and flags {:#x} where an overflow page should be.", first, header.number,
         header.flags);
    return std::nullopt;
  }
  const std::uint64_t pages = header.overflow_pages();
  if (pages < overflow_pages(bytes, page_bytes_)) {
    find("Page {} starts {} overflow page(s), too few for a value of {} bytes.", first, pages, bytes);
    return std::nullopt;
  }
  if (pages > 1 && !claim(first + 1, pages - 1, page.number)) return std::nullopt;
  tree.overflow_pages += pages;
  return Bytes(at(first) + sizeof header, bytes);
}

void Walker::check_free_pages() {
  std::sort(free_.begin(), free_.end());
  std::uint64_t previous = 0;
  std::uint64_t not_in_file = 0;
  for (const std::uint64_t page : free_) {
    if (page == previous) find("Page {} is in the free list twice.", page);
    if (page < reached_.size() && reached_[page]) find("Page {} is in the free list and in use.", page);
    if (page >= file_pages_) ++not_in_file;
    previous = page;
  }
  report_.free_pages = free_.size();
  // Pages that were freed before they were ever written need not be in the file; no others may be missing.
  const std::uint64_t missing = report_.last_page < file_pages_ ? 0 : report_.last_page - file_pages_ + 1;
  if (missing != not_in_file) {
    find("Page {} is said to be the last, but of {} page(s) past the end of the file {} are free.",
         report_.last_page, missing, not_in_file);
  }
  if (report_.finding_count != 0) return;
  const std::uint64_t pages = report_.last_page + 1;
  report_.leaked_pages =
      pages - kMetaPages - report_.tree_pages - report_.overflow_pages - report_.free_pages;
}

}  // namespace

FileKind probe(Bytes file) {
  if (file.empty()) return FileKind::kEmpty;
  const MetaPages metas = read_metas(file);
  if (metas[0] || metas[1]) return FileKind::kLmdb;
  const auto magic_at = [&](std::size_t offset, std::uint32_t not_version) {
    return file.size() >= offset + 8 && load<std::uint32_t>(file.data() + offset) == kMagic &&
           load<std::uint32_t>(file.data() + offset + 4) != not_version;
  };
  const bool other = magic_at(sizeof(PageHeader), kDataVersion) || magic_at(kMagicOffsetOf10, 0);
  return other ? FileKind::kOtherVersion : FileKind::kForeign;
}

MetaPages meta_pages(Bytes file) { return read_metas(file); }

std::vector<std::string> meta_findings(Bytes file) { return Walker(file).check_metas(); }

WalkReport walk(Bytes file) { return Walker(file).walk_newest(); }

WalkReport walk_snapshot(Bytes file, const Meta& meta, const EntrySink& sink) {
  return Walker(file, &sink).walk_snapshot(meta);
}

}  // namespace tokcask::lmdb
