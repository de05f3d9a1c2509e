#include "reference/command.h"

#include <fmt/format.h>

namespace tokcask::reference {
namespace {

std::string alternatives(const std::vector<std::string>& choices) {
  std::string text;
  for (std::size_t i = 0; i < choices.size(); ++i) {
    if (i != 0) text += i + 1 == choices.size() ? " or " : ", ";
    text += choices[i];
  }
  return text;
}

std::string with_value(const std::string& name, const Argument& argument) {
  return argument.value.empty() ? name : name + ' ' + argument.value;
}

}  // namespace

std::vector<std::string> synopsis(const Command& command) {
  std::vector<std::string> words{command.name};
  if (!command.verbs.empty()) words.emplace_back("VERB");
  for (const Argument& operand : command.operands) words.push_back(heading(operand));
  for (const Argument& option : command.options) {
    if (option.required) words.push_back(with_value(option.names.back(), option));
  }
  words.emplace_back("[OPTION]...");
  return words;
}

std::string heading(const Argument& argument) {
  if (argument.names.front().front() != '-') return argument.names.front() + (argument.repeated ? "..." : "");
  return with_value(fmt::format("{}", fmt::join(argument.names, ", ")), argument);
}

std::string sentence(const Argument& argument) {
  const bool operand = argument.names.front().front() != '-';
  std::vector<std::string> facts;
  if (argument.required && !operand) facts.emplace_back("required");
  if (!argument.choices.empty()) facts.push_back(alternatives(argument.choices));
  if (!argument.default_value.empty()) facts.push_back("default: " + argument.default_value);
  if (argument.repeated && !operand) facts.emplace_back("may be repeated");
  if (facts.empty()) return argument.description;
  return fmt::format("{} ({})", argument.description, fmt::join(facts, "; "));
}

}  // namespace tokcask::reference
