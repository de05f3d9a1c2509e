// Zip archives and NumPy arrays made byte by byte, so that each byte can be wrong.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tokcask::test {

struct ZipMember {
  std::string name;
  std::string content;       // as it lies in the archive
  std::uint16_t method = 0;  // 0: stored, 8: deflate
  std::uint16_t flags = 0;
  std::int64_t size = -1;      // uncompressed; -1: that of `content`
  std::int64_t checksum = -1;  // CRC-32; -1: that of `content`
};

[[nodiscard]] std::string zip_bytes(const std::vector<ZipMember>& members);

// A .npy file with this header's text, padded as NumPy does, and these bytes behind it.
[[nodiscard]] std::string npy_bytes(std::string_view header, std::string_view data, int major = 1);

// An array of int64.
[[nodiscard]] std::string npy_of(const std::vector<std::int64_t>& values);

// An archive as the seed writes it, but stored.
[[nodiscard]] std::string npz_of(const std::vector<std::int64_t>& ids, const std::vector<std::int64_t>& mask);

}  // namespace tokcask::test
