// One entry of a seed-style cache: a .npz file, which is a zip archive with input_ids.npy and
// attention_mask.npy. The only room that includes libzip's header.
//
// The file may be anybody's: nothing is allocated because the file says so, only as bytes really come, and no
// more than kMaxArrayItems of them are taken.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "corpus/file.h"

namespace tokcask::npz {

// Of an array: 32 million, 256 MiB of int64. Deflate makes up to 1,000 bytes of one, so the size of the file
// says little.
inline constexpr std::uint64_t kMaxArrayItems = std::uint64_t{32} << 20;

struct Arrays {
  std::vector<std::int32_t> input_ids;
  std::vector<std::int32_t> attention_mask;  // as long as input_ids
};

// Reads the archive in `file`, whatever integer types its arrays have. Throws Error, with a clause that goes
// on from "it": kDamaged when bytes are not what was written, kInvalidArgument when they are but are not such
// an entry.
[[nodiscard]] Arrays read_npz(corpus::UniqueFd file);

}  // namespace tokcask::npz
