// One deliberate fault each: that the walker finds it, and says what it is.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>

#include "lmdb/walker.h"
#include "support.h"

using namespace tokcask::lmdb;
using namespace tokcask::lmdb::layout;
using namespace tokcask::lmdb::test;

namespace {

// A good file of three levels with overflow pages and a free list of several entries, to be damaged.
class Patient {
 public:
  Patient() {
    const Store store;
    Random random(11);
    churn(store.env(), random, {.transactions = 30, .operations = 60, .keys = 400});
    good_ = store.file();
    file_ = good_;
    where_ = dissect(file_);
    REQUIRE(walk(file_).ok);
    REQUIRE(where_.databases.size() == 2);
    REQUIRE(where_.branches.size() > 2);
    REQUIRE(where_.overflow_nodes.size() > 2);
    REQUIRE(where_.free_lists.size() > 1);
  }

  [[nodiscard]] const Anatomy& where() const { return where_; }
  [[nodiscard]] std::uint64_t page(std::size_t offset) const { return offset / where_.page_bytes; }

  template <class T>
  [[nodiscard]] T get(std::size_t at) const {
    return load<T>(file_.data() + at);
  }
  template <class T>
  void set(std::size_t at, const T& value) {
    std::memcpy(file_.data() + at, &value, sizeof value);
  }
  // Changes the T at `at`, or any one member of it.
  template <class T, class Change>
  void change(std::size_t at, Change&& apply) {
    T value = get<T>(at);
    apply(value);
    set(at, value);
  }
  void set_child(std::size_t node, std::uint64_t page) {
    change<NodeHeader>(node, [&](NodeHeader& n) {
      n.low = static_cast<std::uint16_t>(page);
      n.high = static_cast<std::uint16_t>(page >> 16);
      n.flags = static_cast<std::uint16_t>(page >> 32);
    });
  }
  void set_value_bytes(std::size_t node, std::size_t bytes) {
    change<NodeHeader>(node, [&](NodeHeader& n) {
      n.low = static_cast<std::uint16_t>(bytes);
      n.high = static_cast<std::uint16_t>(bytes >> 16);
    });
  }
  [[nodiscard]] std::size_t data(std::size_t node) const {
    return node + sizeof(NodeHeader) + get<NodeHeader>(node).key_bytes;
  }
  // Where the offset of node `i` of the page lies, and the node.
  [[nodiscard]] static std::size_t slot(std::size_t page, std::size_t i) {
    return page + sizeof(PageHeader) + 2 * i;
  }
  [[nodiscard]] std::size_t node(std::size_t page, std::size_t i) const {
    return page + get<std::uint16_t>(slot(page, i));
  }
  [[nodiscard]] std::size_t nodes(std::size_t page) const {
    return (get<PageHeader>(page).lower - sizeof(PageHeader)) / 2;
  }
  // A leaf of the records with at least three nodes, the first of which are inline.
  [[nodiscard]] std::size_t leaf() const {
    for (const std::size_t page : where_.leaves) {
      bool good = nodes(page) > 2;
      for (std::size_t i = 0; good && i < 3; ++i) good = get<NodeHeader>(node(page, i)).flags == 0;
      if (good && get<NodeHeader>(node(page, 0)).key_bytes == 88) return page;
    }
    FAIL("no such leaf");
    return 0;
  }
  [[nodiscard]] File& file() { return file_; }

  // Checks that the walker finds what was changed since the last call, and undoes it.
  void expect(const std::string& finding, int line = __builtin_LINE()) {
    INFO("line ", line);
    const WalkReport report = walk(file_);
    INFO("expected: ", finding);
    INFO("found: ", report.findings.empty() ? std::string("nothing") : report.findings.front());
    CHECK_FALSE(report.ok);
    bool found = false;
    for (const std::string& text : report.findings) found = found || text.find(finding) != std::string::npos;
    CHECK(found);
    file_ = good_;
  }

 private:
  File good_;
  File file_;
  Anatomy where_;
};

std::uint16_t flip(std::uint16_t flags, unsigned bit) {
  return static_cast<std::uint16_t>(flags ^ 1U << bit);
}

std::string page_text(std::uint64_t page) { return "Page " + std::to_string(page) + ' '; }

}  // namespace

TEST_CASE("finding: meta pages") {
  Patient patient;
  const Anatomy& where = patient.where();
  for (const std::size_t page : {std::size_t{0}, where.page_bytes}) {
    const std::string finding = page_text(patient.page(page)) + "is not a valid meta page";
    const std::size_t meta = page + sizeof(PageHeader);
    patient.change<Meta>(meta, [](Meta& m) { m.magic ^= 1; });
    patient.expect(finding);
    patient.change<Meta>(meta, [](Meta& m) { m.version = 2; });
    patient.expect(finding);
    patient.change<PageHeader>(page, [](PageHeader& h) { h.number ^= 1; });
    patient.expect(finding);
    patient.change<PageHeader>(page, [](PageHeader& h) { h.flags |= kLeafPage; });
    patient.expect(finding);
    patient.change<Meta>(meta, [](Meta& m) { m.free.pad = 12; });
    patient.expect(finding);
    patient.change<Meta>(meta, [](Meta& m) { m.free.pad = 65536; });
    patient.expect(finding);
    patient.change<Meta>(meta, [](Meta& m) { m.free.pad *= 2; });
    patient.expect("Page 1 is not a valid meta page");
  }
  patient.file().resize(where.page_bytes);
  patient.expect("Page 1 is not a valid meta page");

  const std::string order = "do not follow each other";
  patient.change<Meta>(where.older_meta, [](Meta& m) { m.txnid += 1000; });
  patient.expect(order);
  patient.set(where.meta, patient.get<Meta>(where.older_meta));
  patient.expect(order);
  const auto newer = patient.get<Meta>(where.meta);
  patient.set(where.meta, patient.get<Meta>(where.older_meta));
  patient.set(where.older_meta, newer);
  patient.expect(order);

  patient.change<Meta>(where.meta, [](Meta& m) { m.last_page = 0; });
  patient.expect("said to be the last in use");
  patient.change<Meta>(where.meta, [](Meta& m) { m.last_page = kNoPage; });
  patient.expect("said to be the last in use");
  patient.change<Meta>(where.meta, [](Meta& m) { m.last_page = 2; });
  patient.expect("outside the file or the part of it in use");
  patient.change<Meta>(where.meta, [](Meta& m) { m.last_page += 1000; });
  patient.expect("past the end of the file");
  patient.change<Meta>(where.meta, [](Meta& m) { m.last_page = std::uint64_t{1} << 60; });
  patient.expect("past the end of the file");
}

TEST_CASE("finding: the record of a tree") {
  Patient patient;
  const Anatomy& where = patient.where();
  const std::size_t free = where.meta + offsetof(Meta, free);
  const std::size_t main = where.meta + offsetof(Meta, main);
  for (const std::size_t at : {free, main, where.databases[0], where.databases[1]}) {
    patient.change<Database>(at, [](Database& d) { d.flags ^= 4; });
    patient.expect("flags 0x");
    patient.change<Database>(at, [](Database& d) { d.flags ^= kIntegerKey; });
    patient.expect("flags 0x");
    patient.change<Database>(at, [](Database& d) { d.depth = 0; });
    patient.expect("depth 0 and root");
    patient.change<Database>(at, [](Database& d) { d.root = kNoPage; });
    patient.expect("and root 18446744073709551615");
    patient.change<Database>(at, [](Database& d) { d.depth = 33; });
    patient.expect("depth 33");
    patient.change<Database>(at, [](Database& d) { d.depth += 1; });
    patient.expect(" page should be");
    for (const std::uint64_t root :
         {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{1} << 50, kNoPage - 1}) {
      patient.change<Database>(at, [&](Database& d) { d.root = root; });
      patient.expect("outside the file or the part of it in use");
    }
    patient.change<Database>(at, [](Database& d) { d.branch_pages += 1; });
    patient.expect("branch pages, but it has");
    patient.change<Database>(at, [](Database& d) { d.leaf_pages -= 1; });
    patient.expect("leaf pages, but it has");
    patient.change<Database>(at, [](Database& d) { d.overflow_pages += 1; });
    patient.expect("overflow pages, but it has");
    patient.change<Database>(at, [](Database& d) { d.entries += 1; });
    patient.expect("entries, but it has");
  }
  patient.change<Database>(where.databases[1], [](Database& d) { d.pad = 8; });
  patient.expect("database records flags");
  patient.change<Database>(where.databases[1], [](Database& d) { d.depth -= 1; });
  patient.expect("where a leaf page should be");
  patient.set(where.databases[0], patient.get<Database>(where.databases[1]));
  patient.expect("which something else refers to as well");
  // An empty tree has nothing to count.
  patient.change<Database>(where.databases[1], [](Database& d) {
    d.root = kNoPage;
    d.depth = 0;
  });
  patient.expect("database records");
}

TEST_CASE("finding: page headers") {
  Patient patient;
  const Anatomy& where = patient.where();
  for (const std::size_t page : where.tree_pages()) {
    const std::string start = page_text(patient.page(page));
    const auto header = patient.get<PageHeader>(page);
    patient.change<PageHeader>(page, [](PageHeader& h) { h.number += 1; });
    patient.expect(start + "has number");
    for (unsigned bit = 0; bit < 16; ++bit) {
      patient.change<PageHeader>(page, [&](PageHeader& h) { h.flags = flip(h.flags, bit); });
      patient.expect(start + "has number");
    }
    const auto bounds = [&](std::size_t lower, std::size_t upper, const std::string& finding) {
      patient.change<PageHeader>(page, [&](PageHeader& h) {
        h.lower = static_cast<std::uint16_t>(lower);
        h.upper = static_cast<std::uint16_t>(upper);
      });
      patient.expect(finding);
    };
    bounds(14, header.upper, start + "has impossible bounds");
    bounds(header.upper + 2U, header.upper, start + "has impossible bounds");
    bounds(header.lower, where.page_bytes + 2, start + "has impossible bounds");
    bounds(header.lower - 1U, header.upper, start + "has impossible bounds");
    bounds(header.lower, header.upper + 1U, start + "has impossible bounds");
    bounds(16, header.upper, start + "has 0 node(s), too few");
    if (header.flags == kBranchPage) bounds(18, header.upper, start + "has 1 node(s), too few");
    // The node at `upper` would start outside; one before it leaves a gap.
    bounds(header.lower, header.upper + 2U, "starts outside the node area");
    if (header.upper >= header.lower + 2) {
      bounds(header.lower, header.upper - 2U,
             "of page " + std::to_string(patient.page(page)) + " leave a gap");
    }
  }
}

TEST_CASE("finding: nodes") {
  Patient patient;
  const Anatomy& where = patient.where();
  const std::size_t leaf = patient.leaf();
  const std::size_t first = patient.node(leaf, 0);
  const std::size_t key_bytes = patient.get<NodeHeader>(first).key_bytes;
  const std::size_t value_bytes = patient.get<NodeHeader>(first).value_bytes();
  const auto offset = patient.get<std::uint16_t>(Patient::slot(leaf, 0));
  const auto set_offset = [&](std::size_t to, const char* finding) {
    patient.set(Patient::slot(leaf, 0), static_cast<std::uint16_t>(to));
    patient.expect(finding);
  };
  set_offset(0, "starts outside the node area");
  set_offset(offset + 1U, "starts outside the node area");
  set_offset(where.page_bytes - 6, "starts outside the node area");
  set_offset(0xFFFE, "starts outside the node area");
  set_offset(patient.get<std::uint16_t>(Patient::slot(leaf, 1)), "starts where another node does");

  const auto set_sizes = [&](std::size_t key, std::size_t value, const char* finding) {
    patient.change<NodeHeader>(first, [&](NodeHeader& n) { n.key_bytes = static_cast<std::uint16_t>(key); });
    patient.set_value_bytes(first, value);
    patient.expect(finding);
  };
  set_sizes(key_bytes, value_bytes + 8, "leave a gap or overlap");
  set_sizes(key_bytes, value_bytes - 8, "leave a gap or overlap");
  set_sizes(key_bytes, 0xFFFFFFFF, "reaches past the end of the page");
  set_sizes(0xFFFF, value_bytes, "reaches past the end of the page");
  set_sizes(0, value_bytes + key_bytes, "has an empty key");
  // One fault is one finding: what was noted of a page before it is not held against the next.
  patient.set_value_bytes(first, value_bytes - 8);
  CHECK(walk(patient.file()).finding_count == 1);
  patient.expect("leave a gap or overlap");

  // In the order in which nodes lie in a page: the last one too short, and one grown over its neighbour.
  unsigned nested = 0;
  for (const std::size_t page : where.leaves) {
    std::vector<std::size_t> placed;
    for (std::size_t i = 0; i < patient.nodes(page); ++i) placed.push_back(patient.node(page, i));
    std::sort(placed.begin(), placed.end());
    if (placed.size() < 3 || placed[2] - placed[0] > 1000) continue;
    if (patient.get<NodeHeader>(placed[0]).flags != 0) continue;
    ++nested;
    patient.set_value_bytes(placed[0],
                            patient.get<NodeHeader>(placed[0]).value_bytes() + placed[2] - placed[1]);
    patient.expect("leave a gap or overlap");
    if (patient.get<NodeHeader>(placed.back()).key_bytes == 8) continue;
    patient.change<NodeHeader>(placed.back(), [](NodeHeader& n) { n.key_bytes -= 8; });
    patient.expect("leave a gap or overlap");
  }
  CHECK(nested > 0);

  // The byte that rounds a node up to an even size would hide these.
  set_sizes(key_bytes - 1, value_bytes, "is no multiple of 8");
  set_sizes(key_bytes, value_bytes - 1, "is no multiple of 8");
  patient.set_value_bytes(where.overflow_nodes[0], 3001);
  patient.expect("is no multiple of 8");

  for (const unsigned bit : {1, 2, 3, 15}) {
    patient.change<NodeHeader>(first, [&](NodeHeader& n) { n.flags = flip(n.flags, bit); });
    patient.expect("has flags that do not belong in this tree");
  }
  const std::size_t name = patient.node(where.main_leaves[0], 0);
  for (const unsigned bit : {0, 1, 2}) {
    patient.change<NodeHeader>(name, [&](NodeHeader& n) { n.flags = flip(n.flags, bit); });
    patient.expect("has flags that do not belong in this tree");
  }
  patient.set_value_bytes(name, 47);
  patient.expect("has a database record of the wrong size");

  // Two nodes made one: the page is filled, but by a node that LMDB could not have put there.
  bool merged = false;
  for (const std::size_t page : where.leaves) {
    const std::size_t header_upper = patient.get<PageHeader>(page).upper;
    if (header_upper > 1500 || patient.nodes(page) < 2 || merged) continue;
    merged = true;
    patient.set(Patient::slot(page, 0), static_cast<std::uint16_t>(header_upper));
    patient.change<PageHeader>(page, [&](PageHeader& h) { h.lower = 18; });
    patient.change<NodeHeader>(page + header_upper, [&](NodeHeader& n) { n.flags = 0; });
    patient.set_value_bytes(page + header_upper, where.page_bytes - header_upper - sizeof(NodeHeader) -
                                                     patient.get<NodeHeader>(page + header_upper).key_bytes);
    patient.expect("is larger than LMDB makes nodes");
  }
  CHECK(merged);
}

TEST_CASE("finding: the order of keys") {
  Patient patient;
  const Anatomy& where = patient.where();
  const std::size_t leaf = patient.leaf();
  const auto swap_slots = [&](std::size_t page, std::size_t i, std::size_t j) {
    const auto a = patient.get<std::uint16_t>(Patient::slot(page, i));
    patient.set(Patient::slot(page, i), patient.get<std::uint16_t>(Patient::slot(page, j)));
    patient.set(Patient::slot(page, j), a);
  };
  swap_slots(leaf, 0, 1);
  patient.expect("is not above the one before it");
  std::memcpy(&patient.file()[patient.node(leaf, 1) + sizeof(NodeHeader)],
              &patient.file()[patient.node(leaf, 0) + sizeof(NodeHeader)], 88);
  patient.expect("is not above the one before it");

  // Bounds that pages above give to a leaf that is neither the first nor the last.
  const auto set_key = [&](std::size_t node, char to) {
    std::memset(&patient.file()[node + sizeof(NodeHeader)], to, patient.get<NodeHeader>(node).key_bytes);
  };
  std::size_t inner = 0;
  for (const std::size_t branch : where.branches) {
    if (patient.nodes(branch) < 3) continue;
    inner = patient.get<NodeHeader>(patient.node(branch, 1)).child() * where.page_bytes;
    const std::size_t last = patient.nodes(inner) - 1;
    const std::string page = std::to_string(patient.page(inner));
    // The first key of a branch is not used.
    set_key(patient.node(inner, patient.get<PageHeader>(inner).flags == kLeafPage ? 0 : 1), '\1');
    patient.expect("is not above the one before it");
    set_key(patient.node(inner, last), '\x7E');
    patient.expect("The last key of page " + page + " belongs to the right of it");

    swap_slots(branch, 1, 2);
    patient.expect("of page " + std::to_string(patient.page(branch)) + " is not above the one before it");
    const std::size_t one = patient.node(branch, 1);
    const std::size_t two = patient.node(branch, 2);
    const std::uint64_t child = patient.get<NodeHeader>(one).child();
    patient.set_child(one, patient.get<NodeHeader>(two).child());
    patient.set_child(two, child);
    patient.expect("belongs to the right of it");
  }
  CHECK(inner != 0);
  // Bounds from further up reach the outer leaves of an inner branch.
  std::size_t inner_branches = 0;
  for (const std::size_t branch : where.branches) {
    for (std::size_t i = 1; i + 1 < patient.nodes(branch); ++i) {
      const auto below = [&](std::size_t from, std::size_t node) {
        return patient.get<NodeHeader>(patient.node(from, node)).child() * where.page_bytes;
      };
      const std::size_t child = below(branch, i);
      if (patient.get<PageHeader>(child).flags != kBranchPage) continue;
      ++inner_branches;
      set_key(patient.node(below(child, 0), 0), '\1');
      patient.expect("is not above the one before it");
      const std::size_t right = below(child, patient.nodes(child) - 1);
      set_key(patient.node(right, patient.nodes(right) - 1), '\x7E');
      patient.expect("belongs to the right of it");
    }
  }
  CHECK(inner_branches > 0);
  // A separator equal to the bound from above would leave a child without keys.
  std::size_t lower_levels = 0;
  for (const std::size_t branch : where.branches) {
    const std::size_t node = patient.node(branch, 1);
    const std::size_t child = patient.get<NodeHeader>(node).child() * where.page_bytes;
    if (patient.get<PageHeader>(child).flags != kBranchPage) continue;
    ++lower_levels;
    const std::size_t separator = patient.node(child, 1);
    if (patient.get<NodeHeader>(separator).key_bytes != patient.get<NodeHeader>(node).key_bytes) continue;
    std::memcpy(&patient.file()[separator + sizeof(NodeHeader)], &patient.file()[node + sizeof(NodeHeader)],
                patient.get<NodeHeader>(node).key_bytes);
    patient.expect("of page " + std::to_string(patient.page(child)) + " is not above the one before it");
  }
  CHECK(lower_levels > 0);
}

TEST_CASE("finding: loops and shared pages") {
  Patient patient;
  const Anatomy& where = patient.where();
  for (const std::size_t child : where.children) {
    patient.set_child(child, patient.page(child));
    patient.expect("which something else refers to as well");
    patient.set_child(child, patient.page(where.main_leaves[0]));
    patient.expect("which something else refers to as well");
    for (const std::uint64_t page : {std::uint64_t{0}, std::uint64_t{1}, (std::uint64_t{1} << 48) - 1}) {
      patient.set_child(child, page);
      patient.expect("outside the file or the part of it in use");
    }
  }
}

TEST_CASE("finding: values in overflow pages") {
  Patient patient;
  const Anatomy& where = patient.where();
  const std::size_t node = where.overflow_nodes[0];
  const std::size_t reference = patient.data(node);
  const auto first = patient.get<std::uint64_t>(reference);
  const std::size_t extent = first * where.page_bytes;
  const std::uint32_t pages = patient.get<PageHeader>(extent).overflow_pages();
  const auto set_pages = [&](std::uint32_t count, const char* finding) {
    patient.set(extent + offsetof(PageHeader, lower), count);
    patient.expect(finding);
  };
  patient.set(reference, std::uint64_t{1});
  patient.expect("outside the file or the part of it in use");
  patient.set(reference, kNoPage);
  patient.expect("outside the file or the part of it in use");
  patient.set(reference, patient.get<std::uint64_t>(patient.data(where.overflow_nodes[1])));
  patient.expect("which something else refers to as well");
  patient.set(reference, patient.page(where.leaves[0]));
  patient.expect("which something else refers to as well");
  patient.set(reference, first + 1);
  patient.expect("where an overflow page should be");
  patient.change<PageHeader>(extent, [](PageHeader& h) { h.number += 1; });
  patient.expect("where an overflow page should be");
  patient.change<PageHeader>(extent, [](PageHeader& h) { h.flags |= kLeafPage; });
  patient.expect("where an overflow page should be");
  set_pages(0, "too few for a value");
  set_pages(pages - 1, "too few for a value");
  set_pages(0x7FFFFFFF, "outside the file or the part of it in use");
  patient.set_value_bytes(node, pages * where.page_bytes - sizeof(PageHeader) + 8);
  patient.expect("too few for a value");
  // Extents that overlap: each is grown into what follows, until all have been.
  for (const std::size_t other : where.overflows) {
    patient.change<PageHeader>(other, [](PageHeader& h) { ++h.lower; });
    const WalkReport report = walk(patient.file());
    CHECK_FALSE(report.ok);
    patient.expect("");
  }
}

TEST_CASE("finding: a page that is cut off") {
  Patient patient;
  const Anatomy& where = patient.where();
  std::size_t end = 0;
  for (const std::size_t page : where.tree_pages()) end = std::max(end, page + where.page_bytes);
  for (const std::size_t page : where.overflows) {
    end = std::max(end, page + patient.get<PageHeader>(page).overflow_pages() * where.page_bytes);
  }
  patient.file().resize(end - 1);
  patient.expect("outside the file or the part of it in use");
}

TEST_CASE("finding: the free list") {
  Patient patient;
  const Anatomy& where = patient.where();
  const std::size_t free_leaf = where.free_leaves.back();
  const std::size_t node = patient.node(free_leaf, patient.nodes(free_leaf) - 1);
  patient.set(node + sizeof(NodeHeader), patient.get<Meta>(where.meta).txnid + 1);
  patient.expect("yet to come");
  patient.change<NodeHeader>(node, [](NodeHeader& n) { n.key_bytes = 4; });
  patient.set_value_bytes(node, patient.get<NodeHeader>(node).value_bytes() + 4);
  patient.expect("has a key that is no transaction number");

  std::size_t lists = 0;
  for (const std::size_t list : where.free_lists) {
    const auto count = patient.get<std::uint64_t>(list);
    for (const std::uint64_t wrong : {count + 1000, kNoPage, std::uint64_t{1} << 61}) {
      patient.set(list, wrong);
      patient.expect("that is cut short");
    }
    if (count < 2) continue;
    ++lists;
    const auto first = patient.get<std::uint64_t>(list + 8);
    for (const std::uint64_t wrong : {std::uint64_t{0}, std::uint64_t{1}, first, kNoPage}) {
      patient.set(list + 16, wrong);
      patient.expect("where it cannot be");
    }
    patient.set(list + 8, patient.get<Meta>(where.meta).last_page + 1);
    patient.expect("where it cannot be");
  }
  REQUIRE(lists > 1);

  // Lists too short for their own counts, each alone in a page.
  const auto freed_by = patient.get<std::uint64_t>(patient.node(free_leaf, 0) + sizeof(NodeHeader));
  const auto sole_list = [&](std::uint16_t bytes, std::uint64_t count) {
    const std::size_t at = where.page_bytes - sizeof(NodeHeader) - sizeof(freed_by) - bytes;
    patient.change<PageHeader>(free_leaf, [&](PageHeader& h) {
      h.lower = sizeof(PageHeader) + 2;
      h.upper = static_cast<std::uint16_t>(at);
    });
    patient.set(Patient::slot(free_leaf, 0), static_cast<std::uint16_t>(at));
    patient.set(free_leaf + at,
                NodeHeader{.low = bytes, .high = 0, .flags = 0, .key_bytes = sizeof(freed_by)});
    patient.set(free_leaf + at + sizeof(NodeHeader), freed_by);
    if (bytes < sizeof(count)) return;
    patient.set(free_leaf + where.page_bytes - bytes, count);
    patient.set(free_leaf + where.page_bytes - 8, std::uint64_t{2});
  };
  sole_list(4, 0);
  patient.expect("that is cut short");
  sole_list(16, 2);
  patient.expect("that is cut short");

  // A list of one page can name any page.
  const auto list_one = [&](std::size_t list, std::uint64_t page, const char* finding) {
    patient.set(list, std::uint64_t{1});
    patient.set(list + 8, page);
    patient.expect(finding);
  };
  const std::size_t list = where.free_lists[0];
  list_one(list, 0, "where it cannot be");
  list_one(list, 1, "where it cannot be");
  list_one(list, patient.page(where.leaves[0]), "is in the free list and in use");
  const std::size_t large =
      *std::find_if(where.overflows.begin(), where.overflows.end(),
                    [&](std::size_t extent) { return patient.get<PageHeader>(extent).overflow_pages() > 1; });
  list_one(list, patient.page(large) + 1, "is in the free list and in use");
  list_one(list, patient.get<std::uint64_t>(where.free_lists[1] + 8), "is in the free list twice");
  // A page that is missing from it is lost, and no more than that.
  const WalkReport before = walk(patient.file());
  patient.change<std::uint64_t>(where.free_lists.back(), [](std::uint64_t& count) { --count; });
  const WalkReport report = walk(patient.file());
  CHECK(report.ok);
  CHECK(report.leaked_pages == 1);
  CHECK(report.free_pages == before.free_pages - 1);
}

TEST_CASE("finding: many faults are counted, and the first ones told") {
  Patient patient;
  for (const std::size_t page : patient.where().leaves) {
    patient.change<PageHeader>(page, [](PageHeader& h) { h.flags = 0; });
  }
  const WalkReport report = walk(patient.file());
  CHECK(report.finding_count == patient.where().leaves.size());
  CHECK(report.finding_count > WalkReport::kMaxFindings);
  CHECK(report.findings.size() == WalkReport::kMaxFindings);
}
