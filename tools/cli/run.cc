#include <algorithm>
#include <exception>
#include <new>
#include <sstream>

#include <CLI/CLI.hpp>

#include "cli/cli.h"
#include "cli/interrupt.h"
#include "cli/output.h"
#include "cli/verbs.h"

namespace tokcask::cli {
namespace {

constexpr const char* kDescription =
    "tokcask keeps the tokens of a corpus in one memory-mapped store, so that each text is tokenized once.";

constexpr const char* kFooter =
    "Examples:\n"
    "  tokcask warm /data/tokens ./src --tokenizer tokenizer.json --seq-len 2048\n"
    "  tokcask show /data/tokens\n"
    "  tokcask prune /data/tokens --older-than 30d\n"
    "\n"
    "Exit codes: 0 done, 1 a check found something or a key is not there, 2 usage, 65 damaged data,\n"
    "66 no such store or input, 74 I/O, 75 busy, 130 interrupted. Data goes to standard output, messages\n"
    "to standard error. 'tokcask VERB --help' tells more.";

bool wants_json(const std::vector<std::string>& args) {
  const auto end = std::find(args.begin(), args.end(), "--");
  return std::find(args.begin(), end, "--json") != end;
}

int fail(Console& console, bool json, std::string_view message, int code) noexcept {
  try {
    console.error(printable(message));
    if (json) print_json_error(console, message, code);
  } catch (const std::exception&) {
    // Standard output may be what failed; the exit code still tells.
  }
  return code;
}

// Help and the version are data; anything else the parser ends with is a mistake in the command line.
int answer_parser(Console& console, const CLI::App& app, const CLI::ParseError& ending, bool json) {
  std::ostringstream data;
  std::ostringstream messages;
  if (app.exit(ending, data, messages) == 0) {
    console.data(data.str());
    return kExitOk;
  }
  const auto chosen = app.get_subcommands();
  const std::string program = chosen.empty() ? "tokcask" : "tokcask " + chosen.front()->get_name();
  fail(console, json, ending.what(), kExitUsage);
  console.note("Run '" + program + " --help' to see what it takes.");
  return kExitUsage;
}

int parse_and_act(Console& console, const std::vector<std::string>& args, const TokenizerLoader& load,
                  const FormatRunner& formats, bool json) {
  CLI::App app(kDescription, "tokcask");
  Action action;
  add_verbs(app, action);
  try {
    app.parse(std::vector<std::string>(args.rbegin(), args.rend()));
  } catch (const CLI::ParseError& ending) {
    return answer_parser(console, app, ending, json);
  }
  Session session{console, load, formats};
  return action(session);
}

}  // namespace

void add_verbs(CLI::App& app, Action& action) {
  app.require_subcommand(1);
  app.set_version_flag("--version", std::string("tokcask ") + TOKCASK_VERSION);
  app.footer(kFooter);
  add_warm(app, action);
  add_show(app, action);
  add_runs(app, action);
  add_get(app, action);
  add_explain(app, action);
  add_prune(app, action);
  add_clear(app, action);
  add_compact(app, action);
  add_verify(app, action);
  add_merge(app, action);
  add_export(app, action);
  add_import(app, action);
  add_import_npz(app, action);
}

int run(const std::vector<std::string>& args, const TokenizerLoader& load, const FormatRunner& formats) {
  fill_standard_descriptors();
  const IgnoreBrokenPipe no_sigpipe;
  Console console;
  const bool json = wants_json(args);
  try {
    return parse_and_act(console, args, load, formats, json);
  } catch (const Error& error) {
    return fail(console, json, error.what(), exit_code(error.code()));
  } catch (const std::bad_alloc&) {
    return fail(console, json, "out of memory", kExitIo);
  } catch (const std::exception& error) {
    return fail(console, json, error.what(), kExitIo);
  } catch (...) {
    return fail(console, json, "an exception of unknown type", kExitIo);
  }
}

}  // namespace tokcask::cli
