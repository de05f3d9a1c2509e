// The patterns of a .gitignore file, by the rules of gitignore(5).
//
// Plain values; matching is const and may be done from any thread.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tokcask::corpus {

// One pattern. A pattern without a slash (other than a trailing one) is compared with the last component of a
// path, any other with the whole path relative to where the pattern was given.
class PathPattern {
 public:
  // A pattern without the syntax of a .gitignore line: '!', '#' and spaces stand for themselves.
  explicit PathPattern(std::string_view glob);

  // `path` is relative, with '/' between components and neither a leading nor a trailing one.
  [[nodiscard]] bool matches(std::string_view path, std::string_view name, bool is_directory) const noexcept;

 private:
  enum class Form { kLiteral, kSuffix, kGlob };

  std::string text_;         // without the trailing slash, and without a leading one
  std::size_t literal_ = 0;  // bytes at the start of text_ that are compared as they are
  Form form_ = Form::kGlob;
  bool directories_only_ = false;
  bool name_only_ = false;
};

// All patterns of one file. The last one that matches decides.
class IgnoreFile {
 public:
  // Never fails: a line that cannot match anything is simply never a match.
  static IgnoreFile parse(std::string_view content);

  // true: ignored; false: re-included by a '!' pattern; nothing: no pattern matches. `path` is relative to
  // the directory that holds the file.
  [[nodiscard]] std::optional<bool> decide(std::string_view path, std::string_view name,
                                           bool is_directory) const noexcept;
  [[nodiscard]] bool empty() const noexcept { return rules_.empty(); }

 private:
  struct Rule {
    PathPattern pattern;
    bool negated;
  };
  std::vector<Rule> rules_;
};

}  // namespace tokcask::corpus
