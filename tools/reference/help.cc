#include <algorithm>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include "reference/notes.h"
#include "reference/render.h"

namespace tokcask::reference {
namespace {

constexpr std::size_t kWidestTerm = 22;

using Items = std::vector<std::pair<std::string, std::string>>;

// Terms, and what they are beside them, or below where a term is too wide.
std::string list(const Items& items) {
  std::size_t widest = 0;
  for (const auto& [term, text] : items) {
    if (term.size() <= kWidestTerm) widest = std::max(widest, term.size());
  }
  const std::size_t indent = widest + 4;
  std::string result;
  for (const auto& [term, text] : items) {
    const bool beside = term.size() <= widest;
    result += beside ? fmt::format("  {:<{}}  ", term, widest)
                     : fmt::format("  {}\n{}", term, std::string(indent, ' '));
    result += wrapped(text, indent, indent);
  }
  return result;
}

void add_arguments(std::string& text, std::string_view title, const std::vector<Argument>& arguments) {
  if (arguments.empty()) return;
  Items items;
  for (const Argument& argument : arguments) items.emplace_back(heading(argument), sentence(argument));
  text += fmt::format("\n{}:\n{}", title, list(items));
}

void add_notes(std::string& text, std::string_view notes) {
  for (const Block& block : blocks(notes)) {
    switch (block.kind) {
      case Block::Kind::kText:
        text += '\n' + wrapped(block.text, 0, 0);
        break;
      case Block::Kind::kHeading:
        text += '\n' + block.text + ":\n";
        break;
      case Block::Kind::kList:
        text += list(block.items);
        break;
      case Block::Kind::kCommands:
        for (const std::string& line : block.lines) text += "  " + line + '\n';
        break;
    }
  }
}

}  // namespace

std::string help(const Command& command) {
  std::string text = wrapped(command.description + '.', 0, 0) + '\n';
  text += "Usage: " + wrapped(fmt::format("{}", fmt::join(synopsis(command), " ")), 9, 7);
  if (!command.verbs.empty()) {
    Items verbs;
    for (const Command& verb : command.verbs) verbs.emplace_back(verb.verb(), verb.description);
    text += "\nVerbs:\n" + list(verbs);
  }
  add_arguments(text, "Operands", command.operands);
  add_arguments(text, "Options", command.options);
  add_notes(text, command.notes);
  return text;
}

}  // namespace tokcask::reference
