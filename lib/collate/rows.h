// What the layouts share: checks of rows and arrays, and how a row's labels are written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <tokcask/collate.h>

namespace tokcask::collate {

// `n` rounded up. Error(kInvalidArgument) for a multiple of 0 and for a result that size_t does not hold.
[[nodiscard]] std::size_t round_up(std::size_t n, std::size_t multiple_of);

// What is taken of a row: ids and mask are cut already, parts are those of the whole.
struct Row {
  std::span<const std::int32_t> ids;
  std::span<const std::int32_t> mask;
  PartList parts;
  std::size_t begin = 0;  // of ids in the whole
};

// What the padding takes of each row. Error(kInvalidArgument) for a mask that is not as long as its ids.
[[nodiscard]] std::vector<Row> taken(std::span<const Tokens> rows, const Padding& padding);

// Error(kInvalidArgument), which names the row, where what padding.loss asks for is not there or cannot be
// used.
void check_loss(std::span<const Row> rows, const Padding& padding);

// Error(kInvalidArgument) for an array that is wanted and has not the size of `rows` times `columns`.
void check_size(const char* name, std::size_t size, std::size_t rows, std::size_t columns);

// Asks for a row's ids while another row is being written. Rows of a store lie apart in its map, and the
// processor's own look-ahead ends at each page. Random rows out of 400 MB, 64 of 1,244 ids: 55 us without, 33
// with it; into the first-level cache, where it pushes out what is being written, 46.
void fetch_ahead(const Row& row) noexcept;

// The labels of a row that was checked, to[0] being that of its first token; the first `ignored` of them are
// ignored.
void write_labels(const Row& row, std::size_t ignored, const Padding& padding, std::int64_t* to);

}  // namespace tokcask::collate
