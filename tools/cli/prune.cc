#include <chrono>
#include <memory>

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
  std::string older_than;
  bool json = false;
};

int prune(Session& session, const Arguments& arguments) {
  const std::chrono::nanoseconds age = parse_duration(arguments.older_than);
  TokenizedCache cache = open_to_change(arguments.store, session.console);
  const std::uint64_t removed = cache.prune(age);
  cache.flush();
  const Stats stats = cache.stats();
  cache.close();
  if (arguments.json) {
    Json document = json_document("prune");
    document["older_than_seconds"] = std::chrono::duration_cast<std::chrono::seconds>(age).count();
    document["removed"] = removed;
    document["entry_count"] = stats.entry_count;
    document["total_bytes"] = stats.total_bytes;
    document["file_bytes"] = stats.file_bytes;
    print_json(session.console, document);
  } else {
    Table table;
    table.add("removed", format_count(removed));
    table.add("left", format_count(stats.entry_count));
    session.console.data(table.text());
  }
  return kExitOk;
}

}  // namespace

void add_prune(CLI::App& app, Action& action) {
  const auto arguments = std::make_shared<Arguments>();
  CLI::App* verb = app.add_subcommand("prune", "Remove the entries that were not used for some time");
  verb->add_option("STORE", arguments->store, "the store's directory")->required();
  verb->add_option("--older-than", arguments->older_than, "age of the last access: 30d, 12h, 45m or 10s")
      ->required()
      ->type_name("AGE");
  verb->add_flag("--json", arguments->json, "print one JSON object");
  verb->footer(
      "The file keeps its size; later entries use the space.\n"
      "Examples:\n"
      "  tokcask prune /data/tokens --older-than 30d\n"
      "  tokcask prune /data/tokens --older-than 12h --json");
  verb->callback([arguments, &action] {
    action = [arguments](Session& session) { return prune(session, *arguments); };
  });
}

}  // namespace tokcask::cli
