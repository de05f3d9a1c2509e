#include <algorithm>
#include <exception>
#include <new>
#include <sstream>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "cli/cli.h"
#include "cli/interrupt.h"
#include "cli/output.h"
#include "cli/reference.h"
#include "cli/verbs.h"

namespace tokcask::cli {
namespace {

constexpr const char* kDescription = "Tokenize each text once, and keep its tokens in a memory-mapped store";

constexpr const char* kNotes =
    "Data goes to standard output, messages and progress to standard error. 'tokcask VERB --help' tells more "
    "of a verb.\n"
    "\n"
    "Exit status:\n"
    "  0    done\n"
    "  1    a check found something, or a key is not there\n"
    "  2    the command line is wrong\n"
    "  65   damaged data\n"
    "  66   no such store or input\n"
    "  74   input or output failed\n"
    "  75   busy: another process is writing to the store\n"
    "  130  interrupted\n"
    "\n"
    "Environment:\n"
    "  NO_COLOR  no color, even on a terminal, where this is set and not empty\n"
    "\n"
    "Files:\n"
    "  STORE/data.mdb              the entries, in a file of LMDB's; all that is worth a backup\n"
    "  STORE/data.mdb.set-aside-N  what once was data.mdb and could not be used; one is kept\n"
    "  STORE/locks, STORE/*.lock   locks, and who reads what\n"
    "  STORE/*.shm                 shared memory; lost ones cost speed only\n"
    "\n"
    "Examples:\n"
    "  tokcask warm /data/tokens ./src --tokenizer tokenizer.json --seq-len 2048\n"
    "  tokcask show /data/tokens\n"
    "  tokcask prune /data/tokens --older-than 30d";

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

int fail_usage(Console& console, const CLI::App& app, bool json, std::string_view message) {
  const auto verbs = app.get_subcommands();
  const std::string verb = verbs.empty() ? "" : verbs.front()->get_name();
  fail(console, json, verb.empty() ? std::string(message) : fmt::format("{}: {}", verb, message), kExitUsage);
  console.note(fmt::format("Run 'tokcask{}{} --help' to see what it takes.", verb.empty() ? "" : " ", verb));
  return kExitUsage;
}

// The parser has no good words for what it does not know.
std::string complaint(const CLI::App& app, const CLI::ParseError& ending) {
  const bool has_verb = !app.get_subcommands().empty();
  const std::vector<std::string> rest = app.remaining(true);
  if (rest.empty()) return has_verb ? ending.what() : "a verb is missing";
  const std::string& unknown = rest.front();
  if (unknown.starts_with('-')) return fmt::format("there is no option '{}'", unknown);
  return has_verb ? fmt::format("'{}' is one operand too many", unknown)
                  : fmt::format("there is no verb '{}'", unknown);
}

// Help and the version are data; anything else the parser ends with is a mistake in the command line.
int answer_parser(Console& console, const CLI::App& app, const CLI::ParseError& ending, bool json) {
  std::ostringstream data;
  std::ostringstream messages;
  if (app.exit(ending, data, messages) == 0) {
    console.data(data.str());
    return kExitOk;
  }
  return fail_usage(console, app, json, complaint(app, ending));
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
  try {
    return action(session);
  } catch (const Error& error) {
    if (error.code() != Errc::kInvalidArgument) throw;
    return fail_usage(console, app, json, error.what());
  }
}

}  // namespace

void add_verbs(CLI::App& app, Action& action) {
  app.require_subcommand(1);
  app.formatter(help_formatter());
  app.set_help_flag("-h,--help", "print this help");
  app.set_version_flag("--version", "tokcask " TOKCASK_VERSION, "print the version");
  app.footer(kNotes);
  add_warm(app, action);
  add_show(app, action);
  add_runs(app, action);
  add_get(app, action);
  add_explain(app, action);
  add_prune(app, action);
  add_clear(app, action);
  add_compact(app, action);
  add_copy(app, action);
  add_verify(app, action);
  add_merge(app, action);
  add_export(app, action);
  add_import(app, action);
  add_import_npz(app, action);
  add_completion(app, action);
  add_reference(app, action);
}

void add_store(CLI::App& verb, std::string& store) {
  verb.add_option("STORE", store, "the store's directory")->required()->type_name(kDirectory);
}

void add_store_to_fill(CLI::App& verb, std::string& store) {
  verb.add_option("STORE", store, "the store's directory; made if it is not there")
      ->required()
      ->type_name(kDirectory);
}

void add_budget(CLI::App& verb, Budget& budget) {
  CLI::Option* const max_bytes =
      verb.add_option("--max-bytes", budget.max_bytes, "hard cap on the size of the store, as in 500M or 10G")
          ->type_name("SIZE")
          ->default_str("what it was last given; 10G for a new one");
  verb.add_flag(
          "--shrink", budget.shrink,
          "where more is stored than --max-bytes, remove what was used least lately; without it that is "
          "an error")
      ->needs(max_bytes);
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
