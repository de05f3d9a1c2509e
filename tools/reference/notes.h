// The notes of a command, as they are written in the source:
//
//   Text, in lines of any length.
//
//   A heading:
//     term  what it is; longer text goes on in lines
//           that are indented more
//   Examples:
//     tokcask show /data/tokens
//
// An empty line ends a paragraph. A line that ends with a colon, with an indented one behind it, is a
// heading. What is indented is a list of terms, or under "Examples" commands to be shown as they are.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tokcask::reference {

struct Block {
  enum class Kind { kText, kHeading, kList, kCommands };
  Kind kind;
  std::string text;                                        // of text; of a heading, without its colon
  std::vector<std::pair<std::string, std::string>> items;  // of a list
  std::vector<std::string> lines;                          // of commands, without their indentation
};

[[nodiscard]] std::vector<Block> blocks(std::string_view notes);

// Words of running text, and whether they are to be set as they are typed: options, and what stands in
// 'quotes'.
struct Span {
  std::string text;
  bool literal;
};
[[nodiscard]] std::vector<Span> spans(std::string_view text);

// `text` in lines of at most 80 columns, each ended by a line feed. All but the first begin with `indent`
// spaces; the first is behind `used` columns of something else.
[[nodiscard]] std::string wrapped(std::string_view text, std::size_t indent = 0, std::size_t used = 0);

}  // namespace tokcask::reference
