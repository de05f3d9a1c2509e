#include <string_view>

#include <fmt/format.h>

#include "reference/notes.h"
#include "reference/render.h"

namespace tokcask::reference {
namespace {

std::string code(std::string_view text) { return fmt::format("`{}`", text); }

// Every one of `special` with a backslash before it.
std::string escaped(std::string_view text, std::string_view special) {
  std::string result;
  for (const char c : text) {
    if (special.find(c) != std::string_view::npos) result += '\\';
    result += c;
  }
  return result;
}

std::string prose(std::string_view text) {
  std::string result;
  for (const Span& span : spans(text))
    result += span.literal ? code(span.text) : escaped(span.text, "\\`*_<>[]");
  return result;
}

std::string row(const std::string& first, std::string_view second) {
  return fmt::format("| {} | {} |\n", escaped(first, "|"), escaped(prose(second), "|"));
}

std::string table(std::string_view first, std::string_view second) {
  return fmt::format("\n| {} | {} |\n|---|---|\n", first, second);
}

std::string arguments(std::string_view title, const std::vector<Argument>& arguments) {
  if (arguments.empty()) return {};
  std::string text = table(title, "");
  for (const Argument& argument : arguments) text += row(code(heading(argument)), sentence(argument));
  return text;
}

std::string commands(const std::vector<std::string>& lines) {
  return fmt::format("\n```sh\n{}\n```\n", fmt::join(lines, "\n"));
}

// `title` makes a title of a heading.
template <typename Title>
std::string notes(std::string_view notes, Title title) {
  std::string text;
  for (const Block& block : blocks(notes)) {
    switch (block.kind) {
      case Block::Kind::kText:
        text += '\n' + prose(block.text) + '\n';
        break;
      case Block::Kind::kHeading:
        text += title(block.text);
        break;
      case Block::Kind::kList:
        text += table("", "");
        for (const auto& [term, description] : block.items) text += row(code(term), description);
        break;
      case Block::Kind::kCommands:
        text += commands(block.lines);
        break;
    }
  }
  return text;
}

std::string usage(const Command& command) {
  return commands({fmt::format("{}", fmt::join(synopsis(command), " "))});
}

}  // namespace

std::string markdown(const Command& program) {
  std::string text = "# Command line\n\n" + prose(program.description) + ".\n" + usage(program);
  text += table("verb", "");
  for (const Command& verb : program.verbs) {
    text += row(fmt::format("[{}](#{})", code(verb.verb()), verb.verb()), verb.description);
  }
  text += arguments("option", program.options) +
          notes(program.notes, [](const std::string& heading) { return fmt::format("\n## {}\n", heading); });
  for (const Command& verb : program.verbs) {
    text += fmt::format("\n## {}\n\n{}.\n{}", verb.verb(), prose(verb.description), usage(verb));
    text += arguments("operand", verb.operands) + arguments("option", verb.options) +
            notes(verb.notes, [](const std::string& heading) { return fmt::format("\n{}:\n", heading); });
  }
  return text;
}

}  // namespace tokcask::reference
