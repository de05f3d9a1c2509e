// What the command takes, as plain data that its help, its manual page, its page in docs/ and the completion
// of shells are made of. Knows no parser; cli/reference.cc reads it from the one that parses.
#pragma once

#include <string>
#include <vector>

namespace tokcask::reference {

enum class Paths { kNone, kDirectories, kFiles };

// An option with its value, a flag, or an operand.
struct Argument {
  std::vector<std::string> names;    // "-n", "--last", the short ones first; for an operand its one name
  std::string value;                 // what stands for its value: "FILE"; empty for a flag
  std::vector<std::string> choices;  // the only values that it takes; empty: any
  std::string default_value;
  std::string description;
  Paths paths = Paths::kNone;  // what to offer as its value
  bool required = false;
  bool repeated = false;
};

struct Command {
  std::string name;         // as it is called: "tokcask", "tokcask warm"
  std::string description;  // a clause, without a full stop
  std::string notes;        // see notes.h
  std::vector<Argument> operands;
  std::vector<Argument> options;
  std::vector<Command> verbs;

  // The last word of its name.
  [[nodiscard]] std::string verb() const { return name.substr(name.rfind(' ') + 1); }
};

// How it is called, as words: "tokcask runs", "STORE", "[OPTION]...".
[[nodiscard]] std::vector<std::string> synopsis(const Command& command);
// "-n, --last N", "STORE", "IN...".
[[nodiscard]] std::string heading(const Argument& argument);
// Its description with the choices and the default that it has.
[[nodiscard]] std::string sentence(const Argument& argument);

}  // namespace tokcask::reference
