// From the parser to what its help, manual page and completion are made of: the parser is their one source.
#pragma once

#include <memory>
#include <string>

#include "reference/command.h"

namespace CLI {
class App;
class FormatterBase;
}  // namespace CLI

namespace tokcask::cli {

// What values stand for, as an option's or operand's type name. Completion offers directories where it begins
// with DIR, and files too where it begins with FILE.
inline constexpr const char* kDirectory = "DIR";
inline constexpr const char* kFile = "FILE";

// `app` as it is called by `name`, with its verbs. What is in the group without a name is hidden, and left
// out.
[[nodiscard]] reference::Command describe(const CLI::App& app, const std::string& name);

// Makes --help say what reference::help() does.
[[nodiscard]] std::shared_ptr<CLI::FormatterBase> help_formatter();

}  // namespace tokcask::cli
