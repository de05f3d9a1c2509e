// A list of keys in little space: what a data set's keys take in a pickle and in shared memory. A format, no
// I/O.
//
// Most keys of one list differ in their section alone, which is 32 hex digits, or 16 of older programs: such
// a key takes 16 or 8 bytes, and a list of one million 16 MB instead of 106. Layout, little-endian, every
// part at a multiple of 8 bytes:
//
//   u32 version (1), u32 flags (bit 0: there are suffix numbers; bit 1: wide), u64 number of suffixes, u64
//   number of keys, u64 bytes of text
//   sections    u64 per key: the section id's 16 lower-case hex digits as a number; for one that is in the
//               text its place there: offset * 65536 + bytes. In a wide list, which has a section of 32
//               digits, two u64 per key: the first is as before, the second the last 16 of 32 digits, or 0
//   numbers     u32 per key: which suffix follows the section in the canonical key, "|sha|len"; the top bit
//               says that the section is in the text, the next one, in a wide list, that it has 16 digits.
//               Left out when all keys have suffix 0 and none of these bits
//   text        the suffixes, each with a u32 of its bytes before it; then the sections that are neither
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <tokcask/key.h>

namespace tokcask::record {

// The keys in their order, repeated ones too. At most 2^32 - 1; Error(kInvalidArgument) for more.
std::vector<std::byte> pack_keys(std::span<const CacheKey> keys);

// Reads a packed list in place; the bytes must outlive it. They may lie in memory that others can write to:
// what changes there gives other keys, or empty ones, and nothing outside is read.
//
// Threads: immutable.
class KeyList {
 public:
  // Nothing if `bytes` (8-byte aligned) are not a packed list. Every place in it is checked here, but the
  // text itself only when a key is made of it.
  static std::optional<KeyList> of(std::span<const std::byte> bytes);

  [[nodiscard]] std::size_t size() const noexcept { return sections_.size() / words_; }
  [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return bytes_; }

  // Writes the canonical key into `key`. No check of its characters: for look-ups. Empty if the bytes have
  // changed and give none.
  void canonical(std::size_t index, std::string& key) const;
  // Throws Error(kInvalidArgument) when the text is not that of a key.
  [[nodiscard]] CacheKey key(std::size_t index) const { return CacheKey::parse(canonical(index)); }
  [[nodiscard]] std::string canonical(std::size_t index) const;

  // The first key of each pair of tokenizer and length.
  [[nodiscard]] std::vector<std::size_t> first_of_each_kind() const;

  // All indices, in the order of the keys as far as that is cheap to tell: neighbours in the store are
  // neighbours here, which is all that it is for.
  [[nodiscard]] std::vector<std::uint32_t> in_store_order() const;

 private:
  KeyList() = default;
  [[nodiscard]] std::uint32_t suffix_of(std::size_t index) const noexcept {
    return suffix_numbers_.empty() ? 0 : suffix_numbers_[index];
  }

  // Hex digits of a section that is not in the text.
  [[nodiscard]] std::size_t digits_of(std::uint32_t number) const noexcept;

  std::span<const std::byte> bytes_;
  std::span<const std::uint64_t> sections_;  // `words_` for each key
  std::size_t words_ = 1;
  std::span<const std::uint32_t> suffix_numbers_;
  std::string_view text_;
  std::vector<std::string_view> suffixes_;
};

}  // namespace tokcask::record
