// Command lines, parsed but not run.
#include <sstream>

#include <CLI/CLI.hpp>

#include <tokcask/error.h>

#include "cli/console.h"
#include "cli/units.h"
#include "cli/verbs.h"
#include "corpus/utf8.h"
#include "target.h"

namespace tokcask::fuzz {
namespace {

// Arguments, each ended by a line feed.
std::vector<std::string> seeds() {
  return {
      "warm\nstore\ncorpus\n--tokenizer\nbytes\n--seq-len\n64\n--include\n*.c\n--exclude\nx/\n--jobs\n2\n"
      "--max-bytes\n1G\n--hidden\n--no-ignore\n--rehash\n--quiet\n--json\n",
      "show\nstore\n--html\npage.html\n--json\n",
      "runs\nstore\n",
      "get\nstore\ns|t|1\n",
      "explain\nstore\ns|t|1\n--json\n",
      "prune\nstore\n--older-than\n30d\n",
      "clear\nstore\n--force\n",
      "compact\nstore\n",
      "verify\nstore\n--json\n",
      "merge\nout\nin\nin2\n--max-bytes=5M\n",
      "export\nstore\nout\n--format\nmegatron\n--order\nshuffle\n--seed\n7\n--eod\n0\n--dtype\nuint16\n",
      "import\nin\nstore\n--format\nparquet\n--section\nindex\n--max-bytes\n1G\n",
      "import-npz\ndir\nstore\n--replace\n",
      "completion\nbash\n",
      "--help\n",
      "--version\n",
      "warm\n--help\n",
      "warm\n--seq-len=-1\n--\n-x\n"};
}

void parse(const std::vector<std::string>& arguments) {
  CLI::App app("", "tokcask");
  cli::Action action;
  cli::add_verbs(app, action);
  try {
    app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
    require(static_cast<bool>(action), "a command line that is right has something to do");
  } catch (const CLI::ParseError& error) {
    std::ostringstream data;
    std::ostringstream messages;
    static_cast<void>(app.exit(error, data, messages));
  }
}

template <class Parse>
void parse_amount(Parse parse, const std::string& text) {
  try {
    static_cast<void>(parse(text));
  } catch (const Error& error) {
    require(error.code() == Errc::kInvalidArgument, "what is no amount is an invalid argument");
  }
}

void run(std::string_view input) {
  Feed feed(input);
  std::vector<std::string> arguments;
  while (!feed.rest().empty() && arguments.size() < 64) arguments.emplace_back(feed.until('\n'));
  parse(arguments);
  for (const std::string& argument : arguments) {
    parse_amount(cli::parse_duration, argument);
    parse_amount(cli::parse_size, argument);
    require(corpus::is_utf8(cli::printable(argument)), "what is printed is UTF-8");
  }
}

}  // namespace

const Target command_target{.name = "command", .seeds = seeds, .run = run, .rounds = 1500};

}  // namespace tokcask::fuzz
