#include "corpus/gitignore.h"

#include "corpus/glob.h"

namespace tokcask::corpus {
namespace {

// Trailing spaces do not count unless a backslash quotes them.
std::string_view without_trailing_spaces(std::string_view line) noexcept {
  std::size_t kept = 0;
  for (std::size_t i = 0; i < line.size(); ++i) {
    if (line[i] == ' ') continue;
    if (line[i] == '\\') {
      // A lone backslash at the end quotes nothing; what stands before it is kept as it is.
      if (i + 1 == line.size()) return line;
      ++i;
    }
    kept = i + 1;
  }
  return line.substr(0, kept);
}

}  // namespace

PathPattern::PathPattern(std::string_view glob) {
  if (!glob.empty() && glob.back() == '/') {
    directories_only_ = true;
    glob.remove_suffix(1);
  }
  name_only_ = glob.find('/') == std::string_view::npos;
  if (!glob.empty() && glob.front() == '/') glob.remove_prefix(1);
  text_ = glob;
  literal_ = literal_prefix(text_);
  if (literal_ == text_.size()) {
    form_ = Form::kLiteral;
  } else if (name_only_ && text_.front() == '*' && literal_prefix(glob.substr(1)) == text_.size() - 1) {
    form_ = Form::kSuffix;
  }
}

bool PathPattern::matches(std::string_view path, std::string_view name, bool is_directory) const noexcept {
  if (directories_only_ && !is_directory) return false;
  const std::string_view subject = name_only_ ? name : path;
  const std::string_view text = text_;
  switch (form_) {
    case Form::kLiteral:
      return subject == text;
    case Form::kSuffix:
      return subject.ends_with(text.substr(1));
    case Form::kGlob:
      break;
  }
  if (!subject.starts_with(text.substr(0, literal_))) return false;
  // Git compares the literal start first and matches only the rest, so stars that follow it stand at the
  // start of a pattern; a whole-name pattern is matched in one piece.
  return name_only_ ? glob_match(text, subject) : glob_match(text.substr(literal_), subject.substr(literal_));
}

IgnoreFile IgnoreFile::parse(std::string_view content) {
  IgnoreFile file;
  if (content.starts_with("\xEF\xBB\xBF")) content.remove_prefix(3);
  while (!content.empty()) {
    const std::size_t newline = content.find('\n');
    std::string_view line = content.substr(0, newline);
    content.remove_prefix(newline == std::string_view::npos ? content.size() : newline + 1);
    if (line.ends_with('\r')) line.remove_suffix(1);
    line = line.substr(0, line.find('\0'));
    if (line.starts_with('#')) continue;
    line = without_trailing_spaces(line);
    const bool negated = line.starts_with('!');
    if (negated) line.remove_prefix(1);
    if (!line.empty()) file.rules_.push_back({PathPattern(line), negated});
  }
  return file;
}

std::optional<bool> IgnoreFile::decide(std::string_view path, std::string_view name,
                                       bool is_directory) const noexcept {
  for (auto rule = rules_.rbegin(); rule != rules_.rend(); ++rule) {
    if (rule->pattern.matches(path, name, is_directory)) return !rule->negated;
  }
  return std::nullopt;
}

}  // namespace tokcask::corpus
