#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

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
  std::optional<std::string> older_than;
  std::optional<std::string> tokenizer;
  std::optional<std::int32_t> sequence_len;
  std::optional<unsigned> keep_last_runs;
  bool dry_run = false;
  bool json = false;
};

// The tokenizer whose sha begins with `prefix`.
std::string whole_sha(TokenizedCache& cache, const std::string& prefix) {
  std::vector<std::string> found;
  for (const std::string& sha : cache.tokenizers()) {
    if (sha == prefix) return sha;
    if (sha.starts_with(prefix)) found.push_back(sha);
  }
  if (found.size() == 1) return found.front();
  if (found.empty()) {
    throw Error(Errc::kInvalidArgument,
                fmt::format("--tokenizer: no tokenizer of this store begins with {}", printable(prefix)));
  }
  throw Error(Errc::kInvalidArgument,
              fmt::format("--tokenizer: {} tokenizers of this store begin with {}; give more of it",
                          found.size(), printable(prefix)));
}

PruneOptions options_of(TokenizedCache& cache, const Arguments& arguments) {
  PruneOptions options;
  if (arguments.older_than) options.older_than = parse_duration(*arguments.older_than);
  if (arguments.tokenizer) options.tokenizer_sha = whole_sha(cache, *arguments.tokenizer);
  options.sequence_len = arguments.sequence_len;
  options.keep_last_runs = arguments.keep_last_runs;
  options.dry_run = arguments.dry_run;
  return options;
}

Json json_of(const PruneOptions& options, const PruneReport& report, const Stats& stats) {
  Json document = json_document("prune");
  if (options.older_than) {
    document["older_than_seconds"] =
        std::chrono::duration_cast<std::chrono::seconds>(*options.older_than).count();
  }
  if (options.tokenizer_sha) document["tokenizer_sha"] = *options.tokenizer_sha;
  if (options.sequence_len) document["sequence_len"] = *options.sequence_len;
  if (options.keep_last_runs) document["keep_last_runs"] = *options.keep_last_runs;
  document["dry_run"] = options.dry_run;
  document["removed"] = report.removed;
  document["removed_bytes"] = report.bytes;
  document["entry_count"] = stats.entry_count;
  document["total_bytes"] = stats.total_bytes;
  document["file_bytes"] = stats.file_bytes;
  return document;
}

int prune(Session& session, const Arguments& arguments) {
  if (!arguments.older_than && !arguments.tokenizer && !arguments.sequence_len && !arguments.keep_last_runs) {
    throw Error(Errc::kInvalidArgument,
                "nothing says which entries to remove: give --older-than, --tokenizer, --seq-len or "
                "--keep-last-runs");
  }
  TokenizedCache cache = arguments.dry_run ? open_to_read(arguments.store, session.console)
                                           : open_to_change(arguments.store, session.console);
  const PruneOptions options = options_of(cache, arguments);
  const PruneReport report = cache.prune(options);
  const Stats stats = cache.stats();
  cache.close();
  if (arguments.json) {
    print_json(session.console, json_of(options, report, stats));
    return kExitOk;
  }
  Table table;
  table.add(options.dry_run ? "would remove" : "removed", format_count(report.removed));
  table.add("bytes", format_mib(report.bytes));
  table.add(options.dry_run ? "of" : "left", format_count(stats.entry_count));
  session.console.data(table.text());
  if (report.removed > 0 && !options.dry_run) {
    session.console.note(
        fmt::format("the file keeps its size for later entries; 'tokcask compact {}' gives it back",
                    printable(arguments.store)));
  }
  return kExitOk;
}

}  // namespace

void add_prune(CLI::App& app, Action& action) {
  const auto arguments = std::make_shared<Arguments>();
  CLI::App* verb = app.add_subcommand("prune", "Remove the entries that all the given conditions hold for");
  add_store(*verb, arguments->store);
  verb->add_option("--older-than", arguments->older_than,
                   "last used longer ago than this, as in 30d, 12h, 45m or 10s")
      ->type_name("AGE");
  verb->add_option("--tokenizer", arguments->tokenizer,
                   "made with this tokenizer: its sha, or how that begins")
      ->type_name("SHA");
  verb->add_option("--seq-len", arguments->sequence_len, "made for this sequence length")
      ->check(CLI::PositiveNumber)
      ->type_name("N");
  verb->add_option("--keep-last-runs", arguments->keep_last_runs,
                   "not used since the start of the oldest of the newest N runs")
      ->check(CLI::PositiveNumber)
      ->type_name("N");
  verb->add_flag("--dry-run", arguments->dry_run, "remove nothing, and tell how many these are");
  verb->add_flag("--json", arguments->json, "print one JSON object");
  verb->footer(
      "At least one condition must be given. The file keeps its size; later entries use the space, and "
      "'tokcask compact' gives it back.\n"
      "\n"
      "Examples:\n"
      "  tokcask prune /data/tokens --older-than 30d\n"
      "  tokcask prune /data/tokens --tokenizer 3f2a --seq-len 2048 --dry-run\n"
      "  tokcask prune /data/tokens --keep-last-runs 5 --json");
  verb->callback([arguments, &action] {
    action = [arguments](Session& session) { return prune(session, *arguments); };
  });
}

}  // namespace tokcask::cli
