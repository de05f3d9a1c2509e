#include <memory>
#include <string>

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
  bool json = false;
};

int compact(Session& session, const Arguments& arguments) {
  TokenizedCache cache = open_to_change(arguments.store, session.console);
  const CompactReport report = cache.compact();
  cache.close();
  if (report.damaged > 0) {
    session.console.warning(
        fmt::format("{} damaged records were left out; they could not have been served", report.damaged));
  }
  if (arguments.json) {
    Json document = json_document("compact");
    document["bytes_before"] = report.bytes_before;
    document["bytes_after"] = report.bytes_after;
    document["entry_count"] = report.entries;
    document["damaged"] = report.damaged;
    print_json(session.console, document);
    return kExitOk;
  }
  Table table;
  table.add("before", format_mib(report.bytes_before));
  table.add("after", format_mib(report.bytes_after));
  table.add("entries", format_count(report.entries));
  session.console.data(table.text());
  return kExitOk;
}

}  // namespace

void add_compact(CLI::App& app, Action& action) {
  const auto arguments = std::make_shared<Arguments>();
  CLI::App* verb = app.add_subcommand("compact", "Write a store anew without gaps, to give space back");
  add_store(*verb, arguments->store);
  verb->add_flag("--json", arguments->json, "print one JSON object");
  verb->footer(
      "It needs the store alone: exit code 75, and a message that says who has the store open, while anybody "
      "has. It takes the space of the new file beside the old one.\n"
      "\n"
      "Examples:\n"
      "  tokcask compact /data/tokens\n"
      "  tokcask compact /data/tokens --json");
  verb->callback([arguments, &action] {
    action = [arguments](Session& session) { return compact(session, *arguments); };
  });
}

}  // namespace tokcask::cli
