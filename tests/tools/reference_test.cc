// The help, the manual page, the page in docs/ and the completion of shells, beside the parser that they are
// of.
#include "cli/reference.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "cli/verbs.h"
#include "reference/notes.h"
#include "support.h"

using namespace tokcask;
using Strings = std::vector<std::string>;

namespace {

class Parser {
 public:
  Parser() { cli::add_verbs(app_, action_); }

  [[nodiscard]] std::vector<const CLI::App*> verbs() const {
    return app_.get_subcommands([](const CLI::App* verb) { return !verb->get_group().empty(); });
  }
  // Whether it takes `args`. Once for each parser.
  [[nodiscard]] bool takes(Strings args) {
    std::reverse(args.begin(), args.end());
    try {
      app_.parse(args);
    } catch (const CLI::ParseError&) {
      return false;
    }
    return true;
  }

 private:
  cli::Action action_;
  CLI::App app_{"", "tokcask"};
};

Strings names_of(const CLI::App& app) {
  Strings names;
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_positional()) names.push_back(option->get_name());
    for (const std::string& name : option->get_snames()) names.push_back('-' + name);
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

std::string printed(const Strings& args) {
  const test::Outcome outcome = test::run(args);
  REQUIRE(outcome.code == cli::kExitOk);
  REQUIRE(outcome.err.empty());
  return outcome.out;
}

// What stands behind `begin` and before the next `end`.
std::string section(const std::string& text, const std::string& begin, const std::string& end) {
  const std::size_t at = text.find(begin);
  CAPTURE(begin);
  REQUIRE(at != std::string::npos);
  return text.substr(at, text.find(end, at + begin.size()) - at);
}

std::string lines_with(const std::string& text, const std::string& part) {
  std::istringstream stream(text);
  std::string result;
  for (std::string line; std::getline(stream, line);) {
    if (line.find(part) != std::string::npos) result += line + '\n';
  }
  return result;
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  for (std::size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size()) {
    text.replace(at, from.size(), to);
  }
  return text;
}

// Runs a script by bash, with `args`; the lines that it prints.
Strings bash(const std::string& script, const Strings& args) {
  const test::TempDir dir;
  std::string command = "bash '" + dir.write("script", script) + "'";
  for (const std::string& arg : args) command += " '" + arg + "'";
  std::FILE* pipe = ::popen(command.c_str(), "r");
  REQUIRE(pipe != nullptr);
  std::string output;
  for (int c = 0; (c = std::fgetc(pipe)) != EOF;) output += static_cast<char>(c);
  REQUIRE(::pclose(pipe) == 0);
  Strings lines;
  std::istringstream stream(output);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

std::string joined(Strings words) {
  std::sort(words.begin(), words.end());
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

// What bash offers for the last of the words behind "tokcask", in order.
std::string completed(const Strings& words) {
  Strings args{"tokcask"};
  args.insert(args.end(), words.begin(), words.end());
  return joined(bash(printed({"completion", "bash"}) +
                         "COMP_WORDS=(\"$@\") COMP_CWORD=$(($# - 1))\n"
                         "_tokcask\n"
                         "for offer in \"${COMPREPLY[@]}\"; do printf '%s\\n' \"$offer\"; done\n",
                     args));
}

}  // namespace

TEST_CASE("reference: every verb with every option is in the help, the pages and the completions") {
  const std::string man = printed({"reference", "man"});
  const std::string markdown = printed({"reference", "markdown"});
  const std::string bash = printed({"completion", "bash"});
  const std::string zsh = printed({"completion", "zsh"});
  const std::string fish = printed({"completion", "fish"});
  const Parser parser;
  REQUIRE(parser.verbs().size() >= 14);
  for (const CLI::App* verb : parser.verbs()) {
    const std::string& name = verb->get_name();
    const std::string in_man = section(man, ".SS \"tokcask " + replaced(name, "-", "\\-") + "\"\n", "\n.S");
    const std::string in_markdown = section(markdown, "\n## " + name + "\n", "\n## ");
    const std::string in_bash = section(bash, "'" + name + " -') values=(-W '", "\n");
    const std::string in_zsh = section(zsh, "    (" + name + ")\n", ";;\n");
    const std::string in_fish = lines_with(fish, "'__fish_seen_subcommand_from " + name + "'");
    const std::string help = printed({name, "--help"});
    CHECK(fish.find(" -a " + name + " -d ") != std::string::npos);
    CHECK(printed({"--help"}).find("\n  " + name + ' ') != std::string::npos);
    for (const std::string& option : names_of(*verb)) {
      CAPTURE(name);
      CAPTURE(option);
      CHECK(help.find(option) != std::string::npos);
      CHECK(in_man.find(replaced(option, "-", "\\-")) != std::string::npos);
      CHECK(in_markdown.find(option) != std::string::npos);
      CHECK(in_zsh.find(option) != std::string::npos);
      if (!option.starts_with('-')) continue;
      CHECK(in_bash.find(option) != std::string::npos);
      CHECK(in_fish.find(option.starts_with("--") ? " -l " + option.substr(2) : " -s " + option.substr(1)) !=
            std::string::npos);
    }
  }
}

TEST_CASE("reference: what only the build needs is in none of them") {
  for (const Strings& args : std::vector<Strings>{{"--help"}, {"completion", "bash"}, {"reference", "man"}}) {
    CHECK(printed(args).find("reference") == std::string::npos);
  }
}

TEST_CASE("reference: help fits a terminal, and its examples are command lines that are taken") {
  const Parser program;
  for (const CLI::App* verb : program.verbs()) {
    CAPTURE(verb->get_name());
    std::istringstream help(printed({verb->get_name(), "--help"}));
    for (std::string line; std::getline(help, line);) {
      CAPTURE(line);
      CHECK(line.size() <= 80);
    }
    std::string examples;
    for (const reference::Block& block : reference::blocks(verb->get_footer())) {
      for (const std::string& line : block.lines) examples += line + '\n';
    }
    int taken = 0;
    // Each example's arguments on a line of their own, and an empty one behind them.
    Strings args;
    for (const std::string& arg :
         bash("tokcask() { printf '%s\\n' \"$@\" '' >&3; }\njq() { :; }\nsource() { cat; }\n{\n" + examples +
                  "} 3>&1 >/dev/null",
              {})) {
      if (!arg.empty()) {
        args.push_back(arg);
        continue;
      }
      CAPTURE(args);
      CHECK(Parser().takes(args));
      CHECK(args.front() == verb->get_name());
      args.clear();
      ++taken;
    }
    CHECK(taken >= 2);
  }
}

TEST_CASE("reference: the manual page has no line that roff would take for a request") {
  std::istringstream page(printed({"reference", "man"}));
  for (std::string line; std::getline(page, line);) {
    CAPTURE(line);
    CHECK_FALSE(line.starts_with('\''));
    CHECK_FALSE(line.empty());
    if (!line.starts_with('.')) continue;
    const Strings macros{"TH", "SH", "SS", "PP", "TP", "RS", "RE", "EX", "EE"};
    CHECK(std::find(macros.begin(), macros.end(), line.substr(1, 2)) != macros.end());
  }
}

TEST_CASE("reference: the page in docs/ is what the command prints") {
  std::ostringstream page;
  page << std::ifstream(TOKCASK_COMMAND_LINE_PAGE).rdbuf();
  const bool current = page.str() == printed({"reference", "markdown"});
  CHECK_MESSAGE(current,
                "docs/reference/command-line.md is stale; renew it with: "
                "build/release/tools/tokcask reference markdown > docs/reference/command-line.md");
}

TEST_CASE("reference: bash completes verbs, options and their values") {
  Strings verbs;
  const Parser parser;
  for (const CLI::App* verb : parser.verbs()) verbs.push_back(verb->get_name());
  CHECK(completed({""}) == joined(verbs));
  CHECK(completed({"ver"}) == "verify");
  CHECK(completed({"--v"}) == "--version");
  CHECK(completed({"warm", "--se"}) == "--seq-len");
  CHECK(completed({"runs", "-"}) == "--help, --json, --last, -h, -n");
  const std::string formats = "datatrove, mds, megatron, parquet";
  CHECK(completed({"export", "--format", ""}) == formats);
  CHECK(completed({"export", "--format", "="}) == formats);
  CHECK(completed({"export", "--format", "=", "m"}) == "mds, megatron");
  CHECK(completed({"export", "--force", "--order", "p"}) == "path");
  CHECK(completed({"completion", ""}) == "bash, fish, zsh");
  CHECK(completed({"warm", "--seq-len", ""}).empty());
  CHECK(completed({"frobnicate", ""}).empty());
}

TEST_CASE("reference: bash completes paths, of directories alone where a store is wanted") {
  const test::TempDir dir;
  const std::string directory = dir.make_directory("st ore");
  const std::string both = joined({directory, dir.write("st.json", "{}")});
  const std::string start = dir / "st";
  CHECK(completed({"show", start}) == directory);
  CHECK(completed({"warm", "--seq-len", "8", "--hidden", start}) == directory);
  CHECK(completed({"warm", "store", start}) == both);
  CHECK(completed({"warm", "--tokenizer", start}) == both);
  CHECK(completed({"warm", "--tokenizer", "=", start}) == both);
  CHECK(completed({"merge", "out", "in", "in", start}) == directory);
  CHECK(completed({"show", "--", start}) == directory);
  CHECK(completed({"get", "store", start}).empty());
  CHECK(completed({"show", "store", start}).empty());
}

TEST_CASE("reference: notes as blocks, and what is set as typed in their text") {
  const auto blocks = reference::blocks(
      "One\nparagraph.\n\nThe list:\n  a b  first,\n       and more\n  c  second\nExamples:\n  x  y\n    z");
  REQUIRE(blocks.size() == 5);
  CHECK(blocks[0].text == "One paragraph.");
  CHECK(blocks[1].text == "The list");
  CHECK(blocks[2].items ==
        std::vector<std::pair<std::string, std::string>>{{"a b", "first, and more"}, {"c", "second"}});
  CHECK(blocks[3].text == "Examples");
  CHECK(blocks[4].lines == Strings{"x  y", "  z"});

  const auto spans = reference::spans("a store's --dry-run, or 'tokcask x'");
  REQUIRE(spans.size() == 4);
  CHECK(spans[0].text == "a store's ");
  CHECK(spans[1].text == "--dry-run");
  CHECK(spans[1].literal);
  CHECK(spans[2].text == ", or ");
  CHECK(spans[3].text == "tokcask x");
  CHECK(spans[3].literal);
}
