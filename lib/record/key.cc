#include <fmt/format.h>
#include <openssl/evp.h>

#include <array>
#include <charconv>
#include <memory>

#include <tokcask/error.h>
#include <tokcask/key.h>

namespace tokcask {

namespace {

constexpr char kSeparator = '|';

void check_part(std::string_view part, std::string_view name) {
  if (part.empty()) {
    throw Error(Errc::kInvalidArgument, fmt::format("{} is empty; a key needs all three parts", name));
  }
  for (const char c : part) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == kSeparator || byte < 0x20 || byte == 0x7f) {
      throw Error(Errc::kInvalidArgument,
                  fmt::format("{} holds byte 0x{:02x}; '|' and control characters cannot be part of a key",
                              name, byte));
    }
  }
}

using DigestContext = std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)>;

std::array<unsigned char, 32> sha256(std::initializer_list<std::string_view> parts) {
  std::array<unsigned char, 32> digest{};
  const DigestContext context(EVP_MD_CTX_new(), &EVP_MD_CTX_free);
  bool ok = context && EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr) == 1;
  for (const std::string_view part : parts) {
    ok = ok && EVP_DigestUpdate(context.get(), part.data(), part.size()) == 1;
  }
  ok = ok && EVP_DigestFinal_ex(context.get(), digest.data(), nullptr) == 1;
  if (!ok) throw Error(Errc::kIo, "SHA-256 is not available from libcrypto");
  return digest;
}

std::string hex(const unsigned char* bytes, std::size_t count) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  out.reserve(2 * count);
  for (std::size_t i = 0; i < count; ++i) {
    out.push_back(kDigits[bytes[i] >> 4]);
    out.push_back(kDigits[bytes[i] & 15]);
  }
  return out;
}

}  // namespace

Error::~Error() = default;

CacheKey::CacheKey(std::string_view section_id, std::string_view tokenizer_sha, std::int64_t sequence_len) {
  check_part(section_id, "section_id");
  check_part(tokenizer_sha, "tokenizer_sha");
  if (sequence_len < 1 || sequence_len > kMaxSequenceLen) {
    throw Error(Errc::kInvalidArgument,
                fmt::format("sequence_len is {}; it must be from 1 to {}", sequence_len, kMaxSequenceLen));
  }
  std::array<char, 24> digits{};
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), sequence_len).ptr;
  const auto digit_count = static_cast<std::size_t>(end - digits.data());
  const std::size_t total = section_id.size() + tokenizer_sha.size() + digit_count + 2;
  if (total > kMaxCanonicalBytes) {
    throw Error(Errc::kInvalidArgument,
                fmt::format("the key is {} bytes long; at most {} fit, so shorten section_id ({} bytes) or "
                            "tokenizer_sha ({} bytes)",
                            total, kMaxCanonicalBytes, section_id.size(), tokenizer_sha.size()));
  }
  canonical_.reserve(total);
  canonical_.append(section_id);
  canonical_.push_back(kSeparator);
  canonical_.append(tokenizer_sha);
  canonical_.push_back(kSeparator);
  canonical_.append(digits.data(), digit_count);
  section_bytes_ = static_cast<std::uint32_t>(section_id.size());
  sha_bytes_ = static_cast<std::uint32_t>(tokenizer_sha.size());
  sequence_len_ = static_cast<std::int32_t>(sequence_len);
}

CacheKey CacheKey::parse(std::string_view canonical) {
  const auto fail = [&](std::string_view why) {
    return Error(Errc::kInvalidArgument,
                 fmt::format("not a key: {}; a key reads section_id|tokenizer_sha|sequence_len", why));
  };
  const std::size_t first = canonical.find(kSeparator);
  const std::size_t last = canonical.rfind(kSeparator);
  if (first == std::string_view::npos || first == last) throw fail("it needs two '|'");
  const std::string_view digits = canonical.substr(last + 1);
  std::int64_t length = 0;
  const auto [end, ec] = std::from_chars(digits.data(), digits.data() + digits.size(), length);
  if (ec != std::errc() || end != digits.data() + digits.size()) throw fail("sequence_len is not a number");
  CacheKey key(canonical.substr(0, first), canonical.substr(first + 1, last - first - 1), length);
  if (key.canonical() != canonical) throw fail("sequence_len has a sign or a leading zero");
  return key;
}

std::string_view CacheKey::section_id() const& noexcept {
  return std::string_view(canonical_).substr(0, section_bytes_);
}

std::string_view CacheKey::tokenizer_sha() const& noexcept {
  return std::string_view(canonical_).substr(section_bytes_ + 1, sha_bytes_);
}

std::string section_id(std::string_view text, std::string_view kind) {
  const auto digest = sha256({kind, std::string_view("\0", 1), text});
  return hex(digest.data(), 16);
}

std::string sha256_hex(std::string_view bytes) {
  const auto digest = sha256({bytes});
  return hex(digest.data(), digest.size());
}

}  // namespace tokcask
