#include <algorithm>
#include <cctype>
#include <string_view>

#include <fmt/format.h>

#include "reference/notes.h"
#include "reference/render.h"

namespace tokcask::reference {
namespace {

// Characters that roff takes for something else, as themselves.
std::string escaped(std::string_view text, bool literal) {
  std::string result;
  for (const char c : text) {
    switch (c) {
      case '\\':
        result += "\\e";
        break;
      case '-':
        result += literal ? "\\-" : "-";
        break;
      case '\'':
        result += literal ? "\\(aq" : "'";
        break;
      case '"':
        result += "\\(dq";
        break;
      case '`':
        result += "\\(ga";
        break;
      case '^':
        result += "\\(ha";
        break;
      case '~':
        result += "\\(ti";
        break;
      default:
        result += c;
    }
  }
  return result;
}

// `text`, without lines that roff would take for requests.
std::string lines(std::string_view text) {
  std::string result;
  char before = '\n';
  for (const char c : text) {
    if (before == '\n' && (c == '.' || c == '\'')) result += "\\&";
    result += before = c;
  }
  return result;
}

std::string literal(std::string_view text) { return "\\fB" + escaped(text, true) + "\\fR"; }

std::string prose(std::string_view text) {
  std::string result;
  for (const Span& span : spans(text))
    result += span.literal ? literal(span.text) : escaped(span.text, false);
  return lines(wrapped(result));
}

// What is typed as it is in bold, what stands for something in italics.
std::string call(std::string_view text) {
  std::string result;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(' '), text.size());
    const std::string_view word = text.substr(0, end);
    const bool placeholder = std::isupper(static_cast<unsigned char>(word.front())) != 0;
    if (!result.empty()) result += ' ';
    if (word.starts_with('[')) {
      result += escaped(word, false);
    } else {
      result += placeholder ? "\\fI" + escaped(word, true) + "\\fR" : literal(word);
    }
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return result;
}

std::string call(const Command& command) {
  return call(fmt::format("{}", fmt::join(synopsis(command), " ")));
}

std::string item(const std::string& term, std::string_view text) {
  return ".TP\n" + term + '\n' + prose(text);
}

std::string arguments(const std::vector<Argument>& arguments) {
  std::string text;
  for (const Argument& argument : arguments) text += item(call(heading(argument)), sentence(argument));
  return text;
}

std::string commands(const std::vector<std::string>& typed) {
  std::string text;
  for (const std::string& line : typed) text += escaped(line, true) + '\n';
  return ".RS 4\n.EX\n" + lines(text) + ".EE\n.RE\n";
}

std::string upper(std::string text) {
  for (char& c : text) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return text;
}

// `title` makes a title of a heading.
template <typename Title>
std::string notes(std::string_view notes, Title title) {
  std::string text;
  for (const Block& block : blocks(notes)) {
    switch (block.kind) {
      case Block::Kind::kText:
        text += ".PP\n" + prose(block.text);
        break;
      case Block::Kind::kHeading:
        text += title(block.text);
        break;
      case Block::Kind::kList:
        for (const auto& [term, description] : block.items) text += item(call(term), description);
        break;
      case Block::Kind::kCommands:
        text += commands(block.lines);
        break;
    }
  }
  return text;
}

std::string verb_section(const Command& verb) {
  std::string text = fmt::format(".SS \"{}\"\n", escaped(verb.name, true));
  text += call(verb) + "\n.PP\n" + prose(verb.description + '.');
  text += arguments(verb.operands) + arguments(verb.options);
  return text + notes(verb.notes, [](const std::string& heading) { return ".PP\n" + prose(heading + ':'); });
}

}  // namespace

std::string man_page(const Command& program, const std::string& version) {
  // Without a date: the page is as old as its version, and the day of a build would make each build another.
  std::string text = fmt::format(".TH {} 1 \"\" \"{}\" \"User Commands\"\n", upper(program.name), version);
  std::string lower = program.description;
  lower.front() = static_cast<char>(std::tolower(static_cast<unsigned char>(lower.front())));
  text += fmt::format(".SH NAME\n{} \\- {}", escaped(program.name, true), prose(lower));
  text += ".SH SYNOPSIS\n" + call(program) + "\n.SH DESCRIPTION\n";
  text += prose(program.description + '.');
  // The program's own sections stand behind its verbs and options, where readers of manual pages look for
  // them.
  std::string sections =
      notes(program.notes, [](const std::string& heading) { return ".SH " + upper(heading) + '\n'; });
  const std::size_t first_section = std::min(sections.find(".SH "), sections.size());
  text += sections.substr(0, first_section) + ".SH COMMANDS\n";
  for (const Command& verb : program.verbs) text += verb_section(verb);
  text += ".SH OPTIONS\n" + arguments(program.options);
  return text + sections.substr(first_section);
}

}  // namespace tokcask::reference
