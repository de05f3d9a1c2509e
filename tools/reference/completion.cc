#include <string_view>

#include <fmt/format.h>

#include "reference/render.h"

namespace tokcask::reference {
namespace {

// `text` as one word of any of the three shells.
std::string quoted(std::string_view text) {
  std::string result = "'";
  for (const char c : text) {
    if (c == '\'') {
      result += "'\\''";
    } else {
      result += c;
    }
  }
  return result + "'";
}

std::string words(const std::vector<std::string>& words) { return fmt::format("{}", fmt::join(words, " ")); }

std::vector<std::string> option_names(const Command& command) {
  std::vector<std::string> names;
  for (const Argument& option : command.options) {
    names.insert(names.end(), option.names.begin(), option.names.end());
  }
  return names;
}

std::vector<std::string> verb_names(const Command& program) {
  std::vector<std::string> names;
  for (const Command& verb : program.verbs) names.push_back(verb.verb());
  return names;
}

// ---- bash

std::string bash_place(const std::string& pattern, const std::string& values) {
  return fmt::format("    {}) values=({}) ;;\n", pattern, values);
}

std::string bash_words(const std::vector<std::string>& choices) { return "-W " + quoted(words(choices)); }

// What compgen takes to list the values.
std::string bash_values(const Argument& argument) {
  if (!argument.choices.empty()) return bash_words(argument.choices);
  if (argument.paths == Paths::kDirectories) return "-d";
  return argument.paths == Paths::kFiles ? "-f" : "";
}

// The places of a command: its options' names, the value of each option that has one, and its operands.
// `verb`: empty for the program itself.
std::string bash_places(const Command& command, const std::string& verb) {
  std::string text = bash_place(quoted(verb + " -"), bash_words(option_names(command)));
  for (const Argument& option : command.options) {
    if (option.value.empty()) continue;
    std::vector<std::string> patterns;
    for (const std::string& name : option.names) patterns.push_back(quoted(verb + ' ' + name));
    text += bash_place(fmt::format("{}", fmt::join(patterns, " | ")), bash_values(option));
  }
  for (std::size_t i = 0; i < command.operands.size(); ++i) {
    const Argument& operand = command.operands[i];
    const std::string pattern =
        operand.repeated ? quoted(verb + ' ') + "[0-9]*" : quoted(fmt::format("{} {}", verb, i));
    text += bash_place(pattern, bash_values(operand));
  }
  return text;
}

constexpr const char* kBashBegin = R"(# Completion of tokcask for bash, printed by: tokcask completion bash

# Sets `values` to what compgen takes to list what can stand in a place: 'VERB -' is an option, 'VERB --option' the value
# of one, 'VERB 0' the first operand. Fails for a place that there is not, as behind an option without a value.
_tokcask_place() {
  values=()
  case $1 in
)";

constexpr const char* kBashEnd = R"(    *) return 1 ;;
  esac
}

_tokcask() {
  local word=${COMP_WORDS[COMP_CWORD]} verb='' option='' operands=0 ended='' token values
  COMPREPLY=()
  for token in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    if [[ $token == = ]]; then
      continue # --option=value comes as three words
    elif [[ $option ]]; then
      option=
    elif [[ ! $ended && $token == -- ]]; then
      ended=1
    elif [[ ! $ended && $token == -* ]]; then
      if _tokcask_place "$verb $token"; then option=$token; fi
    elif [[ ! $verb ]]; then
      verb=$token
    else
      ((++operands))
    fi
  done
  [[ $word == = ]] && word=
  if [[ $option ]]; then
    _tokcask_place "$verb $option"
  elif [[ ! $ended && $word == -* ]]; then
    _tokcask_place "$verb -"
  else
    _tokcask_place "$verb $operands"
  fi || return 0
  [[ ${values[0]-} == -[df] ]] && compopt -o filenames 2>/dev/null
  mapfile -t COMPREPLY < <(compgen "${values[@]}" -- "$word")
}

complete -F _tokcask tokcask
)";

// ---- zsh

// `text` inside a specification of _arguments or _describe, where colons and brackets part what is in it.
std::string zsh_text(std::string_view text) {
  std::string result;
  for (const char c : text) {
    if (c == ':' || c == '[' || c == ']' || c == '\\') result += '\\';
    result += c;
  }
  return result;
}

// What completes the value, behind its name.
std::string zsh_action(const Argument& argument) {
  if (!argument.choices.empty()) return '(' + words(argument.choices) + ')';
  if (argument.paths == Paths::kDirectories) return "_directories";
  return argument.paths == Paths::kFiles ? "_files" : " ";
}

std::string zsh_option(const Argument& option) {
  std::string text;
  for (const std::string& name : option.names) {
    std::string spec = option.repeated ? "*" : '(' + words(option.names) + ')';
    spec += name;
    if (!option.value.empty()) spec += name.starts_with("--") ? "=" : "+";
    spec += '[' + zsh_text(option.description) + ']';
    if (!option.value.empty()) spec += ':' + zsh_text(option.value) + ':' + zsh_action(option);
    text += " \\\n        " + quoted(spec);
  }
  return text;
}

std::string zsh_verb(const Command& verb) {
  std::string text = fmt::format("    ({})\n      _arguments", verb.verb());
  for (const Argument& option : verb.options) text += zsh_option(option);
  for (const Argument& operand : verb.operands) {
    text += " \\\n        " + quoted(fmt::format("{}:{}:{}", operand.repeated ? "*" : "",
                                                 zsh_text(operand.names.front()), zsh_action(operand)));
  }
  return text + "\n      ;;\n";
}

// ---- fish

std::string fish_line(const std::string& condition, const std::string& rest) {
  return fmt::format("complete -c tokcask -n {} {}\n", quoted(condition), rest);
}

// What completes the value; `argument` has one.
std::string fish_values(const Argument& argument) {
  if (!argument.choices.empty()) return " -a " + quoted(words(argument.choices));
  if (argument.paths == Paths::kDirectories) return " -a '(__fish_complete_directories)'";
  return argument.paths == Paths::kFiles ? " -F" : "";
}

std::string fish_option(const std::string& condition, const Argument& option) {
  std::string rest;
  for (const std::string& name : option.names) {
    rest += name.starts_with("--") ? "-l " + name.substr(2) : "-s " + name.substr(1);
    rest += ' ';
  }
  if (!option.value.empty()) rest += option.paths == Paths::kNone ? "-x " : "-r ";
  return fish_line(condition, rest + "-d " + quoted(option.description) +
                                  (option.value.empty() ? "" : fish_values(option)));
}

}  // namespace

std::string bash_completion(const Command& program) {
  std::string text =
      kBashBegin + bash_places(program, "") + bash_place("' 0'", bash_words(verb_names(program)));
  for (const Command& verb : program.verbs) text += bash_places(verb, verb.verb());
  return text + kBashEnd;
}

std::string zsh_completion(const Command& program) {
  std::string text =
      "#compdef tokcask\n"
      "# Completion of tokcask for zsh, printed by: tokcask completion zsh\n"
      "\n"
      "_tokcask() {\n"
      "  local curcontext=$curcontext state state_descr line\n"
      "  typeset -A opt_args\n"
      "  local -a verbs=(\n";
  for (const Command& verb : program.verbs) {
    text += "    " + quoted(verb.verb() + ':' + zsh_text(verb.description)) + '\n';
  }
  text += "  )\n  _arguments -C";
  for (const Argument& option : program.options) text += zsh_option(option);
  text +=
      " \\\n        '1: :->verb' \\\n        '*:: :->rest'\n"
      "  case $state in\n"
      "  (verb) _describe -t verbs verb verbs ;;\n"
      "  (rest)\n"
      "    case $line[1] in\n";
  for (const Command& verb : program.verbs) text += zsh_verb(verb);
  return text +
         "    esac\n"
         "  esac\n"
         "}\n"
         "\n"
         "# As a file that zsh found and loads at the first use, or evaluated at the start of a shell.\n"
         "if [[ $funcstack[1] == _tokcask ]]; then _tokcask \"$@\"; else compdef _tokcask tokcask; fi\n";
}

std::string fish_completion(const Command& program) {
  constexpr const char* kNoVerb = "__fish_use_subcommand";
  std::string text =
      "# Completion of tokcask for fish, printed by: tokcask completion fish\n"
      "complete -c tokcask -f\n";
  for (const Argument& option : program.options) text += fish_option(kNoVerb, option);
  for (const Command& verb : program.verbs) {
    text += fish_line(kNoVerb, "-a " + verb.verb() + " -d " + quoted(verb.description));
  }
  for (const Command& verb : program.verbs) {
    const std::string condition = "__fish_seen_subcommand_from " + verb.verb();
    for (const Argument& option : verb.options) text += fish_option(condition, option);
    // fish does not count operands: what one of them takes is offered for all.
    for (const Argument& operand : verb.operands) {
      const std::string values = fish_values(operand);
      if (!values.empty()) text += fish_line(condition, values.substr(1));
    }
  }
  return text;
}

}  // namespace tokcask::reference
