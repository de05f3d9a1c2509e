// The header of a NumPy array file (.npy): which integers follow it, and how many. Pure functions.
//
//   6 bytes "\x93NUMPY", u8 major version (1 to 3), u8 minor version (0), the header's length (u16 in version
//   1, u32 after that, little-endian), the header: a Python dictionary in ASCII with exactly the keys descr,
//   fortran_order and shape, then spaces and a newline.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace tokcask::npz {

inline constexpr std::size_t kNpyPrefixBytes = 8;
// NumPy refuses longer ones too unless it is told otherwise.
inline constexpr std::size_t kMaxNpyHeaderBytes = 10'000;

// A one-dimensional array of integers, which is all that there is to be read.
struct NpyArray {
  unsigned item_bytes = 0;  // 1, 2, 4 or 8
  bool is_signed = false;
  bool big_endian = false;
  std::uint64_t count = 0;
};

// How many bytes follow the first kNpyPrefixBytes before the header: its length field. Throws
// Error(kInvalidArgument), a clause that goes on from "it", for what is not the start of a .npy file.
[[nodiscard]] std::size_t npy_length_bytes(std::string_view prefix);

// The header's text as an array. Throws Error(kInvalidArgument) likewise.
[[nodiscard]] NpyArray parse_npy_header(std::string_view text);

}  // namespace tokcask::npz
