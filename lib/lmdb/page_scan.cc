#include "lmdb/page_scan.h"

#include <algorithm>

#include "lmdb/page_layout.h"
#include "lmdb/walker.h"

namespace tokcask::lmdb {

namespace {

using namespace layout;
using Bytes = std::span<const std::byte>;

constexpr std::size_t kUsualPageBytes = 4096;

bool is_kind(std::uint16_t flags) {
  return flags == kBranchPage || flags == kLeafPage || flags == kOverflowPage;
}

std::uint64_t pages_in_place(Bytes file, std::size_t page_bytes) {
  std::uint64_t count = 0;
  for (std::uint64_t page = kMetaPages; page < file.size() / page_bytes; ++page) {
    const auto header = load<PageHeader>(file.data() + page * page_bytes);
    if (header.number == page && is_kind(header.flags)) ++count;
  }
  return count;
}

// What lies at `offset` of a leaf page, if that can be a node.
void scan_node(Bytes file, Bytes page, std::size_t offset, const ScanSink& sink) {
  if (offset < sizeof(PageHeader) || offset > page.size() - sizeof(NodeHeader)) return;
  const auto header = load<NodeHeader>(page.data() + offset);
  const bool outside = header.flags == kNodeOverflow;
  if (header.flags != 0 && !outside) return;
  const std::size_t data_bytes = outside ? sizeof(std::uint64_t) : header.value_bytes();
  const std::size_t room = page.size() - offset - sizeof header;
  if (header.key_bytes == 0 || header.key_bytes > room || data_bytes > room - header.key_bytes) return;
  ScannedNode node;
  node.key = page.subspan(offset + sizeof header, header.key_bytes);
  const Bytes data = page.subspan(offset + sizeof header + header.key_bytes, data_bytes);
  if (!outside) {
    node.value = data;
  } else {
    node.overflow_page = load<std::uint64_t>(data.data());
    const std::uint64_t pages = file.size() / page.size();
    if (node.overflow_page < kMetaPages) return;
    if (node.overflow_page < pages) {
      const Bytes rest = file.subspan(node.overflow_page * page.size() + sizeof(PageHeader));
      if (header.value_bytes() <= rest.size()) node.value = rest.first(header.value_bytes());
    }
  }
  sink.node(node);
}

void scan_leaf(Bytes file, Bytes page, const ScanSink& sink) {
  const auto header = load<PageHeader>(page.data());
  if (header.lower < sizeof header || header.lower > page.size()) return;
  const std::size_t nodes = (header.lower - sizeof header) / sizeof(std::uint16_t);
  for (std::size_t i = 0; i < nodes; ++i) {
    scan_node(file, page, load<std::uint16_t>(page.data() + sizeof header + i * sizeof(std::uint16_t)), sink);
  }
}

}  // namespace

std::size_t guess_page_bytes(Bytes file) {
  for (const auto& meta : meta_pages(file)) {
    if (meta) return meta->free.pad;
  }
  std::size_t best = kUsualPageBytes;
  std::uint64_t most = pages_in_place(file, best);
  for (std::size_t bytes = kMinPageBytes; bytes <= kMaxPageBytes; bytes *= 2) {
    const std::uint64_t count = pages_in_place(file, bytes);
    // Small pages are more in number, so what counts is the part of the file that they make up.
    if (count * bytes > most * best) {
      best = bytes;
      most = count;
    }
  }
  return best;
}

void scan_pages(Bytes file, std::size_t page_bytes, const ScanSink& sink) {
  const std::uint64_t pages = file.size() / page_bytes;
  for (std::uint64_t number = 0; number < pages;) {
    const Bytes page = file.subspan(number * page_bytes, page_bytes);
    const auto header = load<PageHeader>(page.data());
    std::uint64_t step = 1;
    if (header.flags == kLeafPage) scan_leaf(file, page, sink);
    if (header.flags == kOverflowPage) {
      step = sink.overflow(number, header, file.subspan(number * page_bytes + sizeof(PageHeader)));
    }
    number += std::max<std::uint64_t>(step, 1);
  }
}

}  // namespace tokcask::lmdb
