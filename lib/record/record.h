// The record: what lies in LMDB under a canonical key. A format, no I/O.
//
//   offset size field
//        0    4 magic "TKR1"
//        4    2 version (1)
//        6    2 flags: bit 0 = an irregular attention mask is stored, bit 1 = parts are stored
//        8    4 length: number of tokens
//       12    4 slot: the entry's place in the metadata and access tables
//       16    8 generation: store-wide number of the put that wrote this record
//       24    8 key hash: XXH3-64 of the canonical key
//       32    8 checksum: XXH3-64 of all that follows, without the last zeros, seeded with XXH3-64 of the
//       header with this field 0 40    8 created: nanoseconds since the Unix epoch 48  4*n input_ids, int32
//        .  4*n attention_mask, int32, only with flag bit 0; starts at the next multiple of 64 after the ids
//        .    . zero bytes up to a multiple of 8
//        .    . the block of parts (record/parts.h), only with flag bit 1
//
// All little-endian. 48 + LMDB's 16-byte overflow page header put the payload of a record in overflow pages
// at page + 64. Sizes that are multiples of 8 keep inline records 8-byte aligned (see DESIGN.md).
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include <tokcask/key.h>
#include <tokcask/tokens.h>

namespace tokcask::record {

static_assert(std::endian::native == std::endian::little, "the on-disk format is little-endian");

inline constexpr std::uint32_t kMagic = 0x31524B54;  // "TKR1"
inline constexpr std::uint16_t kVersion = 1;
inline constexpr std::uint16_t kFlagMask = 1;
inline constexpr std::uint16_t kFlagParts = 2;
inline constexpr std::size_t kHeaderBytes = 48;
inline constexpr std::size_t kMaskAlignment = 64;
inline constexpr std::size_t kMaxTokens = std::size_t{1} << 28;
// More would be a flag of the entry's row, and no one write(2) of LMDB's can be that long.
inline constexpr std::size_t kMaxPayloadBytes = std::size_t{1} << 30;

struct Header {
  std::uint32_t magic = kMagic;
  std::uint16_t version = kVersion;
  std::uint16_t flags = 0;
  std::uint32_t length = 0;
  std::uint32_t slot = 0;
  std::uint64_t generation = 0;
  std::uint64_t key_hash = 0;
  std::uint64_t checksum = 0;
  std::uint64_t created_ns = 0;
};
static_assert(sizeof(Header) == kHeaderBytes);

constexpr std::size_t round_up(std::size_t n, std::size_t to) { return (n + to - 1) / to * to; }

// Offset of a stored mask from the start of the payload.
constexpr std::size_t mask_offset(std::size_t length) {
  return round_up(length * sizeof(std::int32_t), kMaskAlignment);
}
// Bytes of ids, and of the mask where one is stored.
constexpr std::size_t token_bytes(std::size_t length, bool mask) {
  const std::size_t ids = length * sizeof(std::int32_t);
  return mask ? mask_offset(length) + ids : ids;
}
// Bytes of payload: those, and `parts` bytes of parts, at a multiple of 8.
constexpr std::size_t payload_bytes(std::size_t length, bool mask, std::size_t parts = 0) {
  const std::size_t tokens = token_bytes(length, mask);
  return parts == 0 ? tokens : round_up(tokens, 8) + parts;
}
constexpr std::size_t record_bytes(std::size_t length, bool mask, std::size_t parts = 0) {
  return round_up(kHeaderBytes + payload_bytes(length, mask, parts), 8);
}
// The same of tokens whose mask is left out when it is all ones.
inline std::size_t payload_bytes(const Tokens& tokens) {
  return payload_bytes(tokens.input_ids.size(), !tokens.attention_mask.empty(), tokens.parts.bytes().size());
}
inline std::size_t record_bytes(const Tokens& tokens) {
  return round_up(kHeaderBytes + payload_bytes(tokens), 8);
}

std::uint64_t hash_key(std::string_view canonical) noexcept;

// The key as LMDB holds it: the canonical key, then NUL bytes up to a multiple of 8. The order is the same,
// because a canonical key holds no NUL.
class PaddedKey {
 public:
  explicit PaddedKey(std::string_view canonical) noexcept;
  [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return {bytes_.data(), size_}; }

 private:
  std::array<std::byte, CacheKey::kMaxCanonicalBytes> bytes_;
  std::size_t size_;
};
// The canonical key that was padded.
std::string_view unpadded(std::span<const std::byte> key) noexcept;

// Writes the payload into `out`, which has exactly payload_bytes(tokens) bytes.
void write_payload(const Tokens& tokens, std::span<std::byte> out) noexcept;
// The tokens whose payload lies at `payload`, where write_payload(tokens) wrote it.
Tokens payload_at(const Tokens& tokens, const std::byte* payload) noexcept;
// Writes a whole record into `out`, which has exactly record_bytes(tokens) bytes. Fills the header's magic,
// version, flags, length and checksum; slot, generation, key_hash and created are taken.
void encode(Header header, const Tokens& tokens, std::span<std::byte> out) noexcept;

// A record whose header is plausible for its size and key. Points into the bytes it was made from.
struct Record {
  Header header;
  std::span<const std::int32_t> ids;
  std::span<const std::int32_t> mask;  // empty: all ones
  PartList parts;
  [[nodiscard]] Tokens tokens() const noexcept { return {ids, mask, parts}; }
  [[nodiscard]] std::size_t bytes() const noexcept { return record_bytes(tokens()); }
};

// Reads a record without trusting it: never looks outside `bytes`, which must be 4-byte aligned. Returns
// nothing, and why in `*reason`, when it is not a record of this key.
std::optional<Record> decode(std::span<const std::byte> bytes, std::uint64_t key_hash,
                             const char** reason) noexcept;

// The same of the record that `bytes` begin with.
std::optional<Record> decode_prefix(std::span<const std::byte> bytes, const char** reason) noexcept;

// The record without parts at `bytes` that a header of these fields says: length, flags, slot and generation.
// Reads nothing; for who has seen before that it is there.
Record assume(const Header& header, const std::byte* bytes) noexcept;

// Whether header and payload are the bytes that encode() wrote.
bool checksum_ok(const Record& record) noexcept;

}  // namespace tokcask::record

namespace tokcask {

// A view of tokens; an empty mask stands for ones.
TokenView view_of(const Tokens& tokens, std::shared_ptr<const void> owner);

}  // namespace tokcask
