#include <chrono>
#include <memory>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "cli/cli.h"
#include "cli/interrupt.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/reference.h"
#include "cli/store.h"
#include "cli/units.h"
#include "cli/verbs.h"
#include "npz/import.h"

namespace tokcask::cli {
namespace {

constexpr const char* kNotes =
    "DIR has manifest.json and entries/XX/*.npz, each with input_ids and attention_mask. It is only read. "
    "Keys and last accesses are kept. An entry that STORE has with the same tokens is left; with other "
    "tokens it is a conflict, left too unless --replace is given, and the exit status is 1. Entries whose "
    "files are missing, damaged or malformed are counted and left out. An import that was stopped goes on "
    "when it is given again.\n"
    "\n"
    "Examples:\n"
    "  tokcask import-npz ~/.dlm/store/tokenized-cache /data/tokens\n"
    "  tokcask import-npz ./tokenized-cache /data/tokens --max-bytes 50G --json";

struct Arguments {
  std::string directory;
  std::string store;
  bool replace = false;
  Budget budget;
  bool quiet = false;
  bool json = false;
};

struct Imported {
  std::uint64_t entries = 0;
  npz::ImportFigures figures;
  double seconds = 0;
};

Json to_json(const Arguments& arguments, const Imported& imported) {
  const npz::ImportFigures& figures = imported.figures;
  Json document = json_document("import-npz");
  document["path"] = arguments.store;
  document["directory"] = arguments.directory;
  document["interrupted"] = figures.interrupted;
  document["entries"] = imported.entries;
  document["imported"] = figures.imported;
  document["already_there"] = figures.already_there;
  document["newer_access"] = figures.newer_access;
  document["replaced"] = figures.replaced;
  document["conflicts"] = figures.conflicts.total;
  document["missing"] = figures.missing.total;
  document["damaged"] = figures.damaged.total;
  document["malformed"] = figures.malformed.total;
  document["orphans"] = figures.orphans.total;
  document["declined"] = figures.declined;
  document["evicted"] = figures.store.run.evicted;
  document["bytes_after"] = figures.store.total_bytes;
  document["seconds"] = imported.seconds;
  document["conflicting_keys"] = figures.conflicts.names;
  document["missing_files"] = figures.missing.names;
  document["damaged_files"] = figures.damaged.names;
  document["malformed_entries"] = figures.malformed.names;
  document["orphaned_files"] = figures.orphans.names;
  document["store"] = json_store(figures.store);
  return document;
}

std::string to_text(const Imported& imported) {
  const npz::ImportFigures& figures = imported.figures;
  Table table;
  const auto add_if = [&](const char* label, std::uint64_t count, const char* more = "") {
    if (count != 0) table.add(label, format_count(count) + more);
  };
  table.add("entries", format_count(imported.entries));
  table.add("imported", format_count(figures.imported));
  table.add("already there",
            fmt::format("{} ({} of them used later than known)", format_count(figures.already_there),
                        format_count(figures.newer_access)));
  add_if("replaced", figures.replaced);
  table.add("conflicts", format_count(figures.conflicts.total));
  add_if("missing", figures.missing.total);
  add_if("damaged", figures.damaged.total);
  add_if("malformed", figures.malformed.total);
  add_if("orphans", figures.orphans.total, " (files that the manifest does not know)");
  add_if("declined", figures.declined, " (no room: raise --max-bytes)");
  add_if("evicted", figures.store.run.evicted);
  table.add("store", store_text(figures.store));
  table.add("seconds", fmt::format("{:.2f}", imported.seconds));
  return table.text();
}

Imported import(Session& session, const Arguments& arguments) {
  const auto start = std::chrono::steady_clock::now();
  // Before there is a store: a mistake in DIR must not leave an empty one.
  const npz::Manifest manifest = npz::read_manifest(arguments.directory);
  const InterruptGuard interrupt;
  Progress progress(session.console, !arguments.quiet);
  TokenizedCache cache = open_to_fill(arguments.store, arguments.budget, session.console);
  Imported imported;
  imported.entries = manifest.entries();
  imported.figures = npz::import_entries(cache, manifest, {arguments.directory, arguments.replace}, progress);
  cache.close();
  imported.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return imported;
}

void print_skipped(Console& console, const npz::ImportFigures& figures) {
  print_names(console, "entries have other tokens in the store and were left out", figures.conflicts);
  print_names(console, "entries have no file and were left out", figures.missing);
  print_names(console, "entries are damaged and were left out", figures.damaged);
  print_names(console, "entries are malformed and were left out", figures.malformed);
}

int import_verb(Session& session, const Arguments& arguments) {
  const Imported imported = import(session, arguments);
  const npz::ImportFigures& figures = imported.figures;
  if (!arguments.quiet) print_skipped(session.console, figures);
  if (arguments.json) {
    print_json(session.console, to_json(arguments, imported));
  } else {
    session.console.data(to_text(imported));
  }
  if (figures.interrupted) {
    session.console.note("interrupted; run the same command to go on");
    return kExitInterrupted;
  }
  return figures.conflicts.total == 0 ? kExitOk : kExitFinding;
}

}  // namespace

void add_import_npz(CLI::App& app, Action& action) {
  const auto arguments = std::make_shared<Arguments>();
  CLI::App* verb = app.add_subcommand("import-npz", "Take over a cache of .npz files with a manifest.json");
  verb->add_option("DIR", arguments->directory, "the directory that holds manifest.json")
      ->required()
      ->type_name(kDirectory);
  add_store_to_fill(*verb, arguments->store);
  verb->add_flag("--replace", arguments->replace, "take the tokens of DIR where the store has others");
  add_budget(*verb, arguments->budget);
  verb->add_flag("--quiet", arguments->quiet, "show no progress, and no list of entries that were left out");
  verb->add_flag("--json", arguments->json, "print one JSON object");
  verb->footer(kNotes);
  verb->callback([arguments, &action] {
    action = [arguments](Session& session) { return import_verb(session, *arguments); };
  });
}

}  // namespace tokcask::cli
