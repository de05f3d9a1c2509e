// Best fit decreasing, over lengths alone.
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <map>
#include <utility>

#include <tokcask/collate.h>
#include <tokcask/error.h>

namespace tokcask {
namespace {

constexpr std::uint32_t kNone = std::numeric_limits<std::uint32_t>::max();

// The rows with tokens, longest first, equals in their order: length in the upper half, complemented, and the
// row in the lower.
std::vector<std::uint64_t> longest_first(std::span<const std::uint32_t> lengths, std::size_t capacity) {
  std::vector<std::uint64_t> order;
  order.reserve(lengths.size());
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    if (lengths[i] > capacity) {
      throw Error(Errc::kInvalidArgument,
                  fmt::format("row {} has {} tokens, which do not fit into {}", i, lengths[i], capacity));
    }
    if (lengths[i] != 0) order.push_back(std::uint64_t{~lengths[i]} << 32 | i);
  }
  std::ranges::sort(order);
  return order;
}

// The bins with space left, by space; those of one space in the order in which they came to it.
class OpenBins {
 public:
  // Takes out the bin to put `length` into; kNone where none has the space. `*space` is what it has.
  std::uint32_t take(std::size_t length, std::size_t* space) {
    const auto found = by_space_.lower_bound(length);
    if (found == by_space_.end()) return kNone;
    *space = found->first;
    Queue& queue = found->second;
    const std::uint32_t bin = queue.first;
    if (bin == queue.last) {
      by_space_.erase(found);
    } else {
      queue.first = next_[bin];
    }
    return bin;
  }

  void add(std::uint32_t bin, std::size_t space) {
    if (next_.size() <= bin) next_.resize(bin + 1);
    const auto [found, is_new] = by_space_.try_emplace(space, Queue{bin, bin});
    if (is_new) return;
    next_[found->second.last] = bin;
    found->second.last = bin;
  }

 private:
  struct Queue {
    std::uint32_t first;
    std::uint32_t last;
  };
  std::map<std::size_t, Queue> by_space_;
  std::vector<std::uint32_t> next_;  // by bin: the one behind it in its queue
};

}  // namespace

Packing pack_best_fit_decreasing(std::span<const std::uint32_t> lengths, std::size_t capacity) {
  if (capacity == 0) throw Error(Errc::kInvalidArgument, "packing into bins of 0 tokens");
  if (lengths.size() >= kNone)
    throw Error(Errc::kInvalidArgument, fmt::format("{} rows to pack", lengths.size()));
  const std::vector<std::uint64_t> order = longest_first(lengths, capacity);

  Packing packing;
  std::vector<std::uint32_t> bins;  // by place in `order`
  bins.reserve(order.size());
  OpenBins open;
  for (const std::uint64_t entry : order) {
    const std::size_t length = lengths[static_cast<std::uint32_t>(entry)];
    std::size_t space = capacity;
    std::uint32_t bin = open.take(length, &space);
    if (bin == kNone) {
      bin = static_cast<std::uint32_t>(packing.bin_ends.size());
      packing.bin_ends.push_back(0);
    }
    ++packing.bin_ends[bin];
    if (space > length) open.add(bin, space - length);
    bins.push_back(bin);
  }

  // Counts become beginnings, and those, as the rows are laid down, ends.
  std::size_t begin = 0;
  for (std::size_t& end : packing.bin_ends) end = std::exchange(begin, begin + end);
  packing.rows.resize(order.size());
  for (std::size_t i = 0; i < order.size(); ++i) {
    packing.rows[packing.bin_ends[bins[i]]++] = static_cast<std::uint32_t>(order[i]);
  }
  return packing;
}

}  // namespace tokcask
