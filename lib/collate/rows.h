// What the layouts share: checks of rows and arrays, and how a row's labels are written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include <tokcask/collate.h>

namespace tokcask::collate {

// `n` rounded up. Error(kInvalidArgument) for a multiple of 0 and for a result that size_t does not hold.
[[nodiscard]] std::size_t round_up(std::size_t n, std::size_t multiple_of);

// Error(kInvalidArgument) for a row whose mask is neither empty nor as long as its ids.
void check_masks(std::span<const Tokens> rows);

// Error(kInvalidArgument) for an array that is wanted and has not the size of `rows` times `columns`.
void check_size(const char* name, std::size_t size, std::size_t rows, std::size_t columns);

// Asks for a row's ids while another row is being written. Rows of a store lie apart in its map, and the
// processor's own look-ahead ends at each page. Random rows out of 400 MB, 64 of 1,244 ids: 55 us without, 33
// with it; into the first-level cache, where it pushes out what is being written, 46.
void fetch_ahead(const Tokens& row) noexcept;

// The labels of a row, to[0] being that of token 0; the first `ignored` of them are ignored.
void write_labels(const Tokens& row, std::size_t ignored, const Padding& padding, std::int64_t* to);

}  // namespace tokcask::collate
