#include <unistd.h>

#include <memory>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "cli/cli.h"
#include "cli/output.h"
#include "cli/store.h"
#include "cli/units.h"
#include "cli/verbs.h"

namespace tokcask::cli {
namespace {

struct Arguments {
  std::string store;
  bool force = false;
  bool json = false;
};

// One line from standard input, without reading beyond it.
std::string read_answer() {
  constexpr std::size_t kLongest = 64;
  std::string answer;
  char byte = 0;
  while (answer.size() < kLongest && ::read(STDIN_FILENO, &byte, 1) == 1 && byte != '\n') answer += byte;
  return answer;
}

bool confirmed(Session& session, const Arguments& arguments) {
  if (arguments.force) return true;
  TokenizedCache cache = open_to_read(arguments.store, session.console);
  const Stats stats = cache.stats();
  cache.close();
  if (::isatty(STDIN_FILENO) != 1 || ::isatty(STDERR_FILENO) != 1) {
    throw Error(Errc::kInvalidArgument, "it removes every entry: give --force to do that without a question");
  }
  session.console.note(fmt::format("Remove all {} entries ({}) of {}? [y/N]", format_count(stats.entry_count),
                                   format_mib(stats.total_bytes), printable(arguments.store)));
  const std::string answer = read_answer();
  return answer == "y" || answer == "Y" || answer == "yes";
}

int clear(Session& session, const Arguments& arguments) {
  std::uint64_t removed = 0;
  const bool agreed = confirmed(session, arguments);
  if (agreed) {
    TokenizedCache cache = open_to_change(arguments.store, session.console);
    removed = cache.clear();
    cache.close();
  }
  if (arguments.json) {
    Json document = json_document("clear");
    document["cleared"] = agreed;
    document["removed"] = removed;
    print_json(session.console, document);
  } else if (agreed) {
    session.console.data(fmt::format("removed  {}\n", format_count(removed)));
  } else {
    session.console.note("nothing removed");
  }
  return kExitOk;
}

}  // namespace

void add_clear(CLI::App& app, Action& action) {
  const auto arguments = std::make_shared<Arguments>();
  CLI::App* verb = app.add_subcommand("clear", "Remove every entry of a store");
  add_store(*verb, arguments->store);
  verb->add_flag("--force", arguments->force,
                 "do not ask first; needed where there is no terminal to ask on");
  verb->add_flag("--json", arguments->json, "print one JSON object");
  verb->footer(
      "The space is given back at once. To remove some entries only, see 'tokcask prune --help'.\n"
      "\n"
      "Examples:\n"
      "  tokcask clear /data/tokens\n"
      "  tokcask clear /data/tokens --force --json");
  verb->callback([arguments, &action] {
    action = [arguments](Session& session) { return clear(session, *arguments); };
  });
}

}  // namespace tokcask::cli
