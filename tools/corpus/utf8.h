// What kind of content a file holds. Pure functions, no I/O, any thread.
#pragma once

#include <string_view>

namespace tokcask::corpus {

// Whether `bytes` is well-formed UTF-8 by the Unicode Standard, table 3-7: no overlong forms, no surrogates,
// nothing above U+10FFFF, no truncated sequence. Empty is well-formed.
[[nodiscard]] bool is_utf8(std::string_view bytes) noexcept;

enum class TextKind { kText, kBinary, kNotUtf8 };

// A NUL byte anywhere makes content binary; it is looked for first, so that UTF-16 counts as binary.
[[nodiscard]] TextKind classify(std::string_view content) noexcept;

}  // namespace tokcask::corpus
