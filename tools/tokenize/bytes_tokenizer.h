// The tokenizer that is built in: the ids are the bytes of the text, 0 to 255.
//
// It needs no file and knows no merges, so that a store can be warmed and checked without anything else.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "tokenize/tokenizer.h"

namespace tokcask::cli {

// What `--tokenizer` calls it.
inline constexpr std::string_view kBytesTokenizerName = "bytes";

// Its identity, known without making one.
[[nodiscard]] std::string bytes_tokenizer_sha256();

[[nodiscard]] std::unique_ptr<Tokenizer> make_bytes_tokenizer();

}  // namespace tokcask::cli
