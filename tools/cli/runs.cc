#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <numeric>
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
  std::size_t last = std::numeric_limits<std::size_t>::max();
  bool json = false;
};

constexpr std::size_t kGap = 2;

// One figure of all runs. Those of the highest rank are left out first where a terminal is too narrow.
struct Column {
  std::string title;
  int rank;
  bool is_text;
  std::vector<std::string> cells;

  [[nodiscard]] std::size_t width() const {
    std::size_t widest = title.size();
    for (const std::string& cell : cells) widest = std::max(widest, cell.size());
    return widest;
  }
  [[nodiscard]] std::string padded(const std::string& text) const {
    return is_text ? fmt::format("{:<{}}", text, width()) : fmt::format("{:>{}}", text, width());
  }
};

std::int64_t now_ns() {
  using namespace std::chrono;
  return duration_cast<nanoseconds>(system_clock::now().time_since_epoch()).count();
}

std::string duration_of(const RunFigures& run) {
  return format_duration((run.ended_ns != 0 ? run.ended_ns : now_ns()) - run.started_ns);
}

std::string tokenizer_of(const RunFigures& run) {
  constexpr std::size_t kEnoughDigits = 8;
  if (run.tokenizer_sha.empty()) return "-";
  return printable(run.tokenizer_sha.substr(0, kEnoughDigits)) + (run.several_tokenizers ? " +" : "");
}

std::vector<Column> columns_of(const std::vector<RunFigures>& runs) {
  std::vector<Column> columns;
  const auto add = [&](std::string title, int rank, bool is_text,
                       const std::function<std::string(const RunFigures&)>& cell) {
    Column column{std::move(title), rank, is_text, {}};
    for (const RunFigures& run : runs) column.cells.push_back(cell(run));
    columns.push_back(std::move(column));
  };
  add("run", 0, false, [](const RunFigures& run) { return std::to_string(run.run_id); });
  add("state", 0, true, [](const RunFigures& run) { return std::string(to_string(run.state)); });
  add("started", 2, true, [](const RunFigures& run) { return format_time(run.started_ns); });
  add("duration", 3, false, duration_of);
  add("tokenizer", 4, true, tokenizer_of);
  add("length", 5, false, [](const RunFigures& run) {
    return run.sequence_len == 0 ? std::string("-") : std::to_string(run.sequence_len);
  });
  add("hits", 0, false, [](const RunFigures& run) { return format_count(run.hits); });
  add("misses", 0, false, [](const RunFigures& run) { return format_count(run.misses); });
  add("hit rate", 1, false, [](const RunFigures& run) { return format_percent(run.hit_rate()); });
  add("stored", 1, false, [](const RunFigures& run) { return format_count(run.puts); });
  add("declined", 6, false, [](const RunFigures& run) { return format_count(run.declined); });
  add("evicted", 6, false, [](const RunFigures& run) { return format_count(run.evicted); });
  add("tokenizing", 7, false,
      [](const RunFigures& run) { return fmt::format("{:.2f} s", run.tokenize_seconds); });
  return columns;
}

std::size_t width_of(const std::vector<Column>& columns) {
  return std::accumulate(columns.begin(), columns.end(), std::size_t{0},
                         [](std::size_t sum, const Column& column) { return sum + column.width() + kGap; }) -
         kGap;
}

// Leaves columns out until the rest fits; returns how many.
std::size_t fit(std::vector<Column>& columns, std::size_t width) {
  const std::size_t all = columns.size();
  while (width_of(columns) > width) {
    const auto least = std::max_element(columns.begin(), columns.end(),
                                        [](const Column& a, const Column& b) { return a.rank < b.rank; });
    if (least->rank == 0) break;
    columns.erase(least);
  }
  return all - columns.size();
}

std::string line_of(const std::vector<Column>& columns,
                    const std::function<std::string(const Column&)>& text) {
  std::string line;
  for (const Column& column : columns) {
    if (!line.empty()) line.append(kGap, ' ');
    line += text(column);
  }
  line.erase(line.find_last_not_of(' ') + 1);
  return line + '\n';
}

void print_table(const std::vector<RunFigures>& runs, Console& console) {
  if (runs.empty()) return console.data("no runs yet\n");
  std::vector<Column> columns = columns_of(runs);
  const std::size_t hidden = console.data_on_terminal() ? fit(columns, Console::width()) : 0;
  std::string text = line_of(columns, [](const Column& column) { return column.padded(column.title); });
  for (std::size_t i = 0; i < runs.size(); ++i) {
    text += line_of(columns, [&](const Column& column) {
      const std::string cell = column.padded(column.cells[i]);
      if (column.title != "state" || runs[i].state == RunState::kEnded) return cell;
      return console.colored(cell, runs[i].state == RunState::kAlive ? Color::kGreen : Color::kRed);
    });
  }
  console.data(text);
  if (hidden != 0) {
    console.note(
        fmt::format("{} more columns have no room here; a wider terminal or --json shows them", hidden));
  }
}

int runs(Session& session, const Arguments& arguments) {
  TokenizedCache cache = open_to_read(arguments.store, session.console);
  std::vector<RunFigures> runs = cache.runs();
  if (runs.size() > arguments.last) runs.resize(arguments.last);
  if (arguments.json) {
    Json document = json_document("runs");
    document["runs"] = Json::array();
    for (const RunFigures& run : runs) document["runs"].push_back(json_run(run));
    print_json(session.console, document);
  } else {
    print_table(runs, session.console);
  }
  return kExitOk;
}

}  // namespace

void add_runs(CLI::App& app, Action& action) {
  const auto arguments = std::make_shared<Arguments>();
  CLI::App* verb = app.add_subcommand("runs", "List the runs of a store, newest first");
  add_store(*verb, arguments->store);
  verb->add_option("-n,--last", arguments->last, "list only the newest N")
      ->type_name("N")
      ->check(CLI::Range(std::uint64_t{1}, std::uint64_t{1} << 32));
  verb->add_flag("--json", arguments->json, "print one JSON object");
  verb->footer(
      "A run is what one process does with a store, and all its workers for it. It is alive, has ended, or "
      "was killed. A + behind the tokenizer: others, or other lengths, were used too. The store keeps the "
      "last 256 runs that did anything.\n"
      "\n"
      "Examples:\n"
      "  tokcask runs /data/tokens\n"
      "  tokcask runs /data/tokens -n 1\n"
      "  tokcask runs /data/tokens --json | jq '.runs[] | [.run_id, .hit_rate]'");
  verb->callback(
      [arguments, &action] { action = [arguments](Session& session) { return runs(session, *arguments); }; });
}

}  // namespace tokcask::cli
