#include "tokenize/bytes_tokenizer.h"

#include <tokcask/key.h>

namespace tokcask::cli {
namespace {

// Hashed to make the identity; a change of what the tokenizer returns needs a new version here.
constexpr std::string_view kDescription =
    "tokcask byte-level tokenizer, version 1: one id per byte of UTF-8 text, the byte's value, 0 to 255; "
    "no special tokens; truncation keeps the first max_length ids";

class BytesTokenizer final : public Tokenizer {
 public:
  [[nodiscard]] std::string sha256() const override { return bytes_tokenizer_sha256(); }

  [[nodiscard]] TokenizerTraits traits() const override {
    return {.cuts_at_length = true, .cuts_to_prefix = true};
  }

  [[nodiscard]] std::vector<std::vector<std::int32_t>> encode_batch(std::span<const std::string_view> texts,
                                                                    std::size_t max_length) override {
    std::vector<std::vector<std::int32_t>> batch;
    batch.reserve(texts.size());
    for (const std::string_view text : texts) {
      std::vector<std::int32_t>& ids = batch.emplace_back();
      const std::string_view kept = text.substr(0, max_length);
      ids.reserve(kept.size());
      for (const char byte : kept) ids.push_back(static_cast<unsigned char>(byte));
    }
    return batch;
  }
};

}  // namespace

std::string bytes_tokenizer_sha256() { return sha256_hex(kDescription); }

std::unique_ptr<Tokenizer> make_bytes_tokenizer() { return std::make_unique<BytesTokenizer>(); }

}  // namespace tokcask::cli
