// CacheKey: what one tokenization is stored under.
//
// A plain value, immutable once made. Safe to copy and to share between threads.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include <tokcask/export.h>

namespace tokcask {

// Section, tokenizer and sequence length together name one tokenization. A change to any of the three is a
// different key, so an entry can never be served for a text, a tokenizer or a length it was not made with.
//
// The contract of keys: a key is made of content, so under one key there is one sequence of tokens, for ever.
// Whoever puts other tokens under a key gets those of the last put, as long as the store's file is whole.
// After damage to the file a look-up may give the tokens of any of the puts.
//
// Canonical form, which is also the LMDB key: `section_id|tokenizer_sha|sequence_len`, the length in decimal
// without sign or leading zero. Neither string may be empty or hold '|', NUL, or any control character, and
// the whole may be at most kMaxCanonicalBytes long.
class TOKCASK_API CacheKey {
 public:
  // LMDB's key limit (511) rounded down to the multiple of 8 that keys are padded to.
  static constexpr std::size_t kMaxCanonicalBytes = 504;
  static constexpr std::int64_t kMaxSequenceLen = INT32_MAX;

  // Throws Error(kInvalidArgument) naming the part that breaks a rule.
  CacheKey(std::string_view section_id, std::string_view tokenizer_sha, std::int64_t sequence_len);

  // The inverse of canonical(). Throws Error(kInvalidArgument) for anything else.
  static CacheKey parse(std::string_view canonical);

  [[nodiscard]] const std::string& canonical() const& noexcept TOKCASK_LIFETIMEBOUND { return canonical_; }
  [[nodiscard]] std::string canonical() && noexcept { return std::move(canonical_); }
  // They point into the key, so a key without a name has none: it is gone at the end of the statement.
  [[nodiscard]] std::string_view section_id() const& noexcept TOKCASK_LIFETIMEBOUND;
  [[nodiscard]] std::string_view tokenizer_sha() const& noexcept TOKCASK_LIFETIMEBOUND;
  void section_id() const&& = delete;
  void tokenizer_sha() const&& = delete;
  [[nodiscard]] std::int32_t sequence_len() const noexcept { return sequence_len_; }

  friend bool operator==(const CacheKey& a, const CacheKey& b) noexcept {
    return a.canonical_ == b.canonical_;
  }
  friend auto operator<=>(const CacheKey& a, const CacheKey& b) noexcept {
    return a.canonical_ <=> b.canonical_;
  }

 private:
  std::string canonical_;
  std::uint32_t section_bytes_;
  std::uint32_t sha_bytes_;
  std::int32_t sequence_len_;
};

// The identity of a piece of text: the first 32 hex digits, 128 bits, of SHA-256 over `kind`, a NUL byte, and
// the text's bytes. `kind` says what will be made of the text ("file": the tokenizer applied to it as it is,
// as `tokcask warm` does), so that one text tokenized by two recipes has two identities.
[[nodiscard]] TOKCASK_API std::string section_id(std::string_view text, std::string_view kind = "text");

// SHA-256 of `bytes` as 64 lower-case hex digits.
[[nodiscard]] TOKCASK_API std::string sha256_hex(std::string_view bytes);

}  // namespace tokcask
