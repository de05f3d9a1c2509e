// Shell patterns over paths, as gitignore(5) defines them. Pure functions, no I/O, any thread.
#pragma once

#include <cstddef>
#include <string_view>

namespace tokcask::corpus {

// Whether all of `text` matches `pattern`:
//   ?        one byte other than '/'
//   *        any run of bytes other than '/'
//   [a-z]    one byte of a set other than '/'; '!' or '^' first negates; [:alpha:] and its kin inside
//   \x       x itself
//   **/      at the start or after a slash: any number of whole directories, also none
//   **       at the end, after a slash or alone: everything
// Two or more stars elsewhere are one star. A set that is never closed, an unknown class name and a trailing
// backslash match nothing. Bytes are compared as they are: case counts, and no encoding is assumed.
// Takes time proportional to at most pattern.size() * text.size() for each directory level.
[[nodiscard]] bool glob_match(std::string_view pattern, std::string_view text) noexcept;

// How many leading bytes of `pattern` are free of the special bytes * ? [ and backslash.
[[nodiscard]] std::size_t literal_prefix(std::string_view pattern) noexcept;

}  // namespace tokcask::corpus
