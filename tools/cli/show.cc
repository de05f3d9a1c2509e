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
  bool json = false;
};

Json to_json(const std::string& path, const Stats& stats) {
  Json document = json_document("show");
  document["path"] = path;
  document["entry_count"] = stats.entry_count;
  document["total_bytes"] = stats.total_bytes;
  document["payload_bytes"] = stats.payload_bytes;
  document["file_bytes"] = stats.file_bytes;
  document["max_bytes"] = stats.max_bytes;
  document["tokenizer_sha"] = stats.tokenizer_sha.empty() ? Json(nullptr) : Json(stats.tokenizer_sha);
  document["last_run"] = json_run(stats.last_run);
  return document;
}

std::string run_text(const RunFigures& run) {
  if (run.run_id == 0) return "none yet\n";
  Table table;
  table.add("  number", format_count(run.run_id));
  table.add("  started", format_time(run.started_ns));
  table.add(run.state == RunState::kKilled ? "  killed" : "  ended",
            run.ended_ns == 0 ? "not yet" : format_time(run.ended_ns));
  if (!run.tokenizer_sha.empty()) {
    table.add("  tokenizer", fmt::format("{}, {} tokens{}", printable(run.tokenizer_sha), run.sequence_len,
                                         run.several_tokenizers ? ", and others" : ""));
  }
  table.add("  hits", fmt::format("{} ({})", format_count(run.hits), format_percent(run.hit_rate())));
  table.add("  misses", format_count(run.misses));
  table.add("  stored", format_count(run.puts));
  if (run.declined != 0) table.add("  declined", format_count(run.declined));
  if (run.evicted != 0) table.add("  evicted", format_count(run.evicted));
  table.add("  tokenizing", fmt::format("{:.2f} s", run.tokenize_seconds));
  return '\n' + table.text();
}

std::string to_text(const std::string& path, const Stats& stats) {
  constexpr std::size_t kBarColumns = 30;
  const double share = stats.max_bytes == 0
                           ? 0.0
                           : static_cast<double>(stats.file_bytes) / static_cast<double>(stats.max_bytes);
  Table table;
  table.add("store", printable(path));
  table.add("entries", format_count(stats.entry_count));
  table.add("payload", format_mib(stats.payload_bytes));
  table.add("live pages", format_mib(stats.total_bytes));
  table.add("file", format_mib(stats.file_bytes));
  table.add("budget", format_mib(stats.max_bytes));
  table.add("used", fmt::format("{} {:.1f} %", format_bar(stats.file_bytes, stats.max_bytes, kBarColumns),
                                share * 100.0));
  table.add("tokenizer", stats.tokenizer_sha.empty() ? "not recorded" : printable(stats.tokenizer_sha));
  return table.text() + "last run  " + run_text(stats.last_run);
}

int show(Session& session, const Arguments& arguments) {
  TokenizedCache cache = open_to_read(arguments.store, session.console);
  const Stats stats = cache.stats();
  const std::string path = cache.root().string();
  if (arguments.json) {
    print_json(session.console, to_json(path, stats));
  } else {
    session.console.data(to_text(path, stats));
  }
  return kExitOk;
}

}  // namespace

void add_show(CLI::App& app, Action& action) {
  const auto arguments = std::make_shared<Arguments>();
  CLI::App* verb = app.add_subcommand("show", "Tell what a store holds, and how its last run went");
  verb->add_option("STORE", arguments->store, "the store's directory")->required();
  verb->add_flag("--json", arguments->json, "print one JSON object");
  verb->footer(
      "Examples:\n"
      "  tokcask show /data/tokens\n"
      "  tokcask show /data/tokens --json | jq .last_run.hit_rate");
  verb->callback(
      [arguments, &action] { action = [arguments](Session& session) { return show(session, *arguments); }; });
}

}  // namespace tokcask::cli
