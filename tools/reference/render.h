// A command for people and for shells. Pure functions.
#pragma once

#include <string>

#include "reference/command.h"

namespace tokcask::reference {

// What --help prints: of the program its verbs, of a verb all that it takes. At most 80 columns.
[[nodiscard]] std::string help(const Command& command);

// The manual page of a program with all its verbs, in the man macros of roff. `version` as "tokcask 1.0.0".
[[nodiscard]] std::string man_page(const Command& program, const std::string& version);

// The page of a program with all its verbs in docs/.
[[nodiscard]] std::string markdown(const Command& program);

// A script that makes the shell complete the program's command lines. To be evaluated by the shell, or to lie
// where it looks for such scripts.
[[nodiscard]] std::string bash_completion(const Command& program);
[[nodiscard]] std::string zsh_completion(const Command& program);
[[nodiscard]] std::string fish_completion(const Command& program);

}  // namespace tokcask::reference
