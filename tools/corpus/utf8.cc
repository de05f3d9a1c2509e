#include "corpus/utf8.h"

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace tokcask::corpus {
namespace {

// The first position at or after `at` that is not ASCII, or `size`.
std::size_t skip_ascii(const char* data, std::size_t at, std::size_t size) noexcept {
  constexpr std::uint64_t kHighBits = 0x8080'8080'8080'8080U;
  while (size - at >= 4 * sizeof(std::uint64_t)) {
    std::uint64_t words[4];
    std::memcpy(words, data + at, sizeof words);
    if (((words[0] | words[1] | words[2] | words[3]) & kHighBits) != 0) break;
    at += sizeof words;
  }
  while (at < size && static_cast<unsigned char>(data[at]) < 0x80) ++at;
  return at;
}

struct Lead {
  std::size_t length;  // of the whole sequence; 0 for a byte that cannot start one
  unsigned char low;   // bounds of the second byte, where overlong forms, surrogates and
  unsigned char high;  // values above U+10FFFF are told apart
};

constexpr Lead lead_of(unsigned char byte) noexcept {
  if (byte >= 0xC2 && byte <= 0xDF) return {2, 0x80, 0xBF};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};
  if (byte == 0xED) return {3, 0x80, 0x9F};
  if (byte >= 0xE1 && byte <= 0xEF) return {3, 0x80, 0xBF};
  if (byte == 0xF0) return {4, 0x90, 0xBF};
  if (byte >= 0xF1 && byte <= 0xF3) return {4, 0x80, 0xBF};
  if (byte == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

}  // namespace

bool is_utf8(std::string_view bytes) noexcept {
  const char* data = bytes.data();
  const std::size_t size = bytes.size();
  std::size_t at = 0;
  while ((at = skip_ascii(data, at, size)) < size) {
    const auto byte_at = [&](std::size_t offset) { return static_cast<unsigned char>(data[at + offset]); };
    const Lead lead = lead_of(byte_at(0));
    if (lead.length == 0 || size - at < lead.length) return false;
    if (byte_at(1) < lead.low || byte_at(1) > lead.high) return false;
    for (std::size_t i = 2; i < lead.length; ++i) {
      if ((byte_at(i) & 0xC0) != 0x80) return false;
    }
    at += lead.length;
  }
  return true;
}

TextKind classify(std::string_view content) noexcept {
  if (!content.empty() && std::memchr(content.data(), 0, content.size()) != nullptr) return TextKind::kBinary;
  return is_utf8(content) ? TextKind::kText : TextKind::kNotUtf8;
}

}  // namespace tokcask::corpus
