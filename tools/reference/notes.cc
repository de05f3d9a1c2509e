#include "reference/notes.h"

#include <algorithm>
#include <cctype>

namespace tokcask::reference {
namespace {

constexpr std::string_view kIndent = "  ";
constexpr std::size_t kColumns = 80;

std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    lines.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

std::string_view trimmed(std::string_view line) {
  line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
  return line;
}

// A line of a list: a new term, or more of the last one's text.
void add_item(Block& list, std::string_view line) {
  line.remove_prefix(kIndent.size());
  if (line.starts_with(' ') && !list.items.empty()) {
    list.items.back().second.append(" ").append(trimmed(line));
    return;
  }
  const std::size_t gap = std::min(line.find(kIndent), line.size());
  list.items.emplace_back(line.substr(0, gap), trimmed(line.substr(gap)));
}

bool is_word(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0; }

// How long the literal is that `rest` begins with, quotes included; 0 if it is none. `before`: what stands
// there.
std::size_t literal_length(std::string_view rest, char before) {
  if (is_word(before) || before == '-') return 0;
  if (rest.starts_with("--") && rest.size() > 2 && is_word(rest[2])) {
    const auto* end =
        std::find_if_not(rest.begin(), rest.end(), [](char c) { return is_word(c) || c == '-'; });
    return static_cast<std::size_t>(end - rest.begin());
  }
  if (!rest.starts_with('\'')) return 0;
  const std::size_t end = rest.find('\'', 1);
  return end == std::string_view::npos ? 0 : end + 1;
}

}  // namespace

std::vector<Block> blocks(std::string_view notes) {
  std::vector<Block> blocks;
  bool goes_on = false;  // whether the next line belongs to the last block
  const std::vector<std::string_view> lines = lines_of(notes);
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const std::string_view line = lines[i];
    if (line.empty()) {
      goes_on = false;
    } else if (line.starts_with(kIndent)) {
      const bool examples = !blocks.empty() && (blocks.back().text == "Examples" ||
                                                blocks.back().kind == Block::Kind::kCommands);
      const Block::Kind kind = examples ? Block::Kind::kCommands : Block::Kind::kList;
      if (blocks.empty() || blocks.back().kind != kind) blocks.push_back({kind, {}, {}, {}});
      if (examples) {
        blocks.back().lines.emplace_back(line.substr(kIndent.size()));
      } else {
        add_item(blocks.back(), line);
      }
      goes_on = false;
    } else if (line.ends_with(':') && i + 1 < lines.size() && lines[i + 1].starts_with(kIndent)) {
      blocks.push_back({Block::Kind::kHeading, std::string(line.substr(0, line.size() - 1)), {}, {}});
      goes_on = false;
    } else if (goes_on) {
      blocks.back().text.append(" ").append(line);
    } else {
      blocks.push_back({Block::Kind::kText, std::string(line), {}, {}});
      goes_on = true;
    }
  }
  return blocks;
}

std::vector<Span> spans(std::string_view text) {
  std::vector<Span> spans;
  std::size_t plain = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t length = literal_length(text.substr(at), at == 0 ? ' ' : text[at - 1]);
    if (length == 0) {
      ++at;
      continue;
    }
    if (at != plain) spans.push_back({std::string(text.substr(plain, at - plain)), false});
    const bool quoted = text[at] == '\'';
    spans.push_back({std::string(quoted ? text.substr(at + 1, length - 2) : text.substr(at, length)), true});
    plain = at += length;
  }
  if (plain != text.size()) spans.push_back({std::string(text.substr(plain)), false});
  return spans;
}

std::string wrapped(std::string_view text, std::size_t indent, std::size_t used) {
  std::string result;
  std::size_t column = used;
  bool fresh = true;  // nothing of the text stands in the line yet
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(' '), text.size());
    if (!fresh && column + 1 + end > kColumns) {
      result += '\n' + std::string(indent, ' ');
      column = indent;
      fresh = true;
    }
    if (!fresh) {
      result += ' ';
      ++column;
    }
    result += text.substr(0, end);
    column += end;
    fresh = false;
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return result + '\n';
}

}  // namespace tokcask::reference
