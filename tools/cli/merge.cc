#include <tokcask/merge.h>

#include <chrono>
#include <memory>
#include <vector>

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

namespace tokcask::cli {
namespace {

constexpr const char* kNotes =
    "An entry whose key OUT has with the same tokens is not copied; the later last access of the two is "
    "kept. The same key with other tokens is a conflict: what OUT has, or of the inputs the first named, "
    "stays, and the exit status is 1. A merge that was stopped goes on where it was when it is given again. "
    "The inputs are only read, and may be in use.\n"
    "\n"
    "Examples:\n"
    "  tokcask merge /data/tokens /data/part-1 /data/part-2\n"
    "  tokcask merge /data/tokens /mnt/rank-*/tokens --max-bytes 200G --json";

struct Arguments {
  std::string out;
  std::vector<std::string> inputs;
  Budget budget;
  bool quiet = false;
  bool json = false;
};

struct Merged {
  MergeReport report;
  Stats store;
  double seconds = 0;
};

Json to_json(const Arguments& arguments, const Merged& merged) {
  const MergeReport& report = merged.report;
  Json document = json_document("merge");
  document["path"] = arguments.out;
  document["inputs"] = arguments.inputs;
  document["interrupted"] = report.stopped;
  document["entries"] = report.entries;
  document["merged"] = report.merged;
  document["already_there"] = report.already_there;
  document["newer_access"] = report.newer_access;
  document["conflicts"] = report.conflicts;
  document["damaged"] = report.damaged;
  document["declined"] = report.declined;
  document["evicted"] = merged.store.run.evicted;
  document["bytes_after"] = report.bytes_after;
  document["seconds"] = merged.seconds;
  document["conflicting_keys"] = report.conflicting;
  document["store"] = json_store(merged.store);
  return document;
}

std::string to_text(const Merged& merged) {
  const MergeReport& report = merged.report;
  Table table;
  table.add("entries", format_count(report.entries));
  table.add("merged", format_count(report.merged));
  table.add("already there",
            fmt::format("{} ({} of them used later than known)", format_count(report.already_there),
                        format_count(report.newer_access)));
  table.add("conflicts", format_count(report.conflicts));
  if (report.damaged != 0) table.add("damaged", format_count(report.damaged));
  if (report.declined != 0) {
    table.add("declined", fmt::format("{} (no room: raise --max-bytes)", format_count(report.declined)));
  }
  if (merged.store.run.evicted != 0) table.add("evicted", format_count(merged.store.run.evicted));
  table.add("store", store_text(merged.store));
  table.add("seconds", fmt::format("{:.2f}", merged.seconds));
  return table.text();
}

Merged merge_stores(Session& session, const Arguments& arguments) {
  // The inputs first: a mistake in one must not leave an empty OUT.
  std::vector<TokenizedCache> inputs;
  for (const std::string& path : arguments.inputs) inputs.push_back(open_to_read(path, session.console));
  Merged merged;
  const auto start = std::chrono::steady_clock::now();
  const InterruptGuard interrupt;
  Progress progress(session.console, !arguments.quiet);
  TokenizedCache out = open_to_fill(arguments.out, arguments.budget, session.console);
  bool begun = false;
  MergeOptions options;
  options.on_progress = [&](std::uint64_t done, std::uint64_t total) {
    if (!std::exchange(begun, true)) progress.begin("merging", total);
    progress.advance(done);
    return !progress.stopped();
  };
  merged.report = merge(out, inputs, options);
  merged.store = out.stats();
  out.close();
  merged.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return merged;
}

int merge_verb(Session& session, const Arguments& arguments) {
  const Merged merged = merge_stores(session, arguments);
  const MergeReport& report = merged.report;
  if (!arguments.quiet) {
    print_names(session.console, "entries have other tokens than their key has already, and were left out",
                {report.conflicts, report.conflicting});
  }
  if (arguments.json) {
    print_json(session.console, to_json(arguments, merged));
  } else {
    session.console.data(to_text(merged));
  }
  if (report.stopped) {
    session.console.note(fmt::format("interrupted after {} entries; run the same command to go on",
                                     format_count(report.entries)));
    return kExitInterrupted;
  }
  return report.conflicts == 0 ? kExitOk : kExitFinding;
}

}  // namespace

void add_merge(CLI::App& app, Action& action) {
  const auto arguments = std::make_shared<Arguments>();
  CLI::App* verb = app.add_subcommand("merge", "Put the entries of several stores into one");
  verb->add_option("OUT", arguments->out, "the store to merge into; made if it is not there")
      ->required()
      ->type_name(kDirectory);
  verb->add_option("IN", arguments->inputs, "the stores to take entries from")
      ->required()
      ->type_name(kDirectory);
  add_budget(*verb, arguments->budget);
  verb->add_flag("--quiet", arguments->quiet, "show no progress, and no list of conflicts");
  verb->add_flag("--json", arguments->json, "print one JSON object");
  verb->footer(kNotes);
  verb->callback([arguments, &action] {
    action = [arguments](Session& session) { return merge_verb(session, *arguments); };
  });
}

}  // namespace tokcask::cli
