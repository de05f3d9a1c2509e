#include <memory>
#include <string>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "cli/cli.h"
#include "cli/output.h"
#include "cli/reference.h"
#include "cli/store.h"
#include "cli/units.h"
#include "cli/verbs.h"

namespace tokcask::cli {
namespace {

struct Arguments {
  std::string store;
  std::string to;
  bool json = false;
};

int copy(Session& session, const Arguments& arguments) {
  TokenizedCache cache = open_to_read(arguments.store, session.console);
  const CopyReport report = cache.copy(arguments.to);
  cache.close();
  if (report.damaged > 0) {
    session.console.warning(
        fmt::format("{} damaged records were left out; they could not have been served", report.damaged));
  }
  if (arguments.json) {
    Json document = json_document("copy");
    document["file_bytes"] = report.bytes;
    document["entry_count"] = report.entries;
    document["damaged"] = report.damaged;
    print_json(session.console, document);
    return kExitOk;
  }
  Table table;
  table.add("entries", format_count(report.entries));
  table.add("size", format_mib(report.bytes));
  session.console.data(table.text());
  return kExitOk;
}

}  // namespace

void add_copy(CLI::App& app, Action& action) {
  const auto arguments = std::make_shared<Arguments>();
  CLI::App* verb = app.add_subcommand("copy", "Write a copy of a store that may be in use");
  add_store(*verb, arguments->store);
  verb->add_option("TO", arguments->to,
                   "the directory of the copy; made if it is not there, and holds no store")
      ->required()
      ->type_name(kDirectory);
  verb->add_flag("--json", arguments->json, "print one JSON object");
  verb->footer(
      "The copy holds what was committed when it began, without gaps. Readers and writers go on meanwhile. "
      "Other programs that copy the files of a store in use give no whole store.\n"
      "\n"
      "Examples:\n"
      "  tokcask copy /data/tokens /backup/tokens\n"
      "  tokcask copy /data/tokens /backup/tokens --json");
  verb->callback(
      [arguments, &action] { action = [arguments](Session& session) { return copy(session, *arguments); }; });
}

}  // namespace tokcask::cli
