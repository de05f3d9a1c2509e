// The block of a record's parts, as <tokcask/parts.h> reads and builds it. A format, no I/O.
//
//   offset  size field
//        0     4 bytes of the block, a multiple of 8
//        4     4 parts: 1 to 64
//        8    16 for each part, by kind and then by name:
//                u8 kind, u8 type of elements (arrays; else 0), u16 bytes of the name, u32 where the name is;
//                spans and arrays: u32 where the data are, u32 elements; else i64 or f64, the number
//        .     . data of spans (u32 begin, u32 end) and arrays, each at a multiple of 8; then the names;
//        zeros
//
// All little-endian; places are counted from the start of the block.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tokcask::record {

struct PartsHeader {
  std::uint32_t bytes = 0;
  std::uint32_t count = 0;
};
static_assert(sizeof(PartsHeader) == 8);

struct PartRow {
  std::uint8_t kind = 0;
  std::uint8_t type = 0;
  std::uint16_t name_bytes = 0;
  std::uint32_t name_at = 0;
  union {
    struct {
      std::uint32_t at;
      std::uint32_t elements;
    } data;
    std::int64_t integer;
    double real;
  } value{};
};
static_assert(sizeof(PartRow) == 16);

inline constexpr std::size_t kMaxPartsBytes = std::size_t{1} << 30;

}  // namespace tokcask::record
