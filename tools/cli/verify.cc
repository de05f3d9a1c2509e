#include <memory>
#include <utility>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <tokcask/cache.h>

#include "cli/cli.h"
#include "cli/output.h"
#include "cli/units.h"
#include "cli/verbs.h"

namespace tokcask::cli {
namespace {

struct Arguments {
  std::string store;
  bool repair = false;
  bool json = false;
};

bool is_clean(const VerifyReport& report) { return report.damaged == 0 && report.structure_ok; }
// As it is now.
bool is_well(const VerifyReport& report) { return is_clean(report) || report.repaired; }

Json to_json(const VerifyReport& report) {
  Json document = json_document("verify");
  document["ok"] = is_well(report);
  document["records"] = report.records;
  document["damaged"] = report.damaged;
  document["structure_ok"] = report.structure_ok;
  document["findings"] = Json::array();
  for (const Damage& damage : report.findings) {
    document["findings"].push_back(
        {{"key", damage.key.empty() ? Json(nullptr) : Json(damage.key)}, {"reason", damage.reason}});
  }
  document["repaired"] = report.repaired;
  document["saved"] = report.saved;
  document["lost"] = report.lost;
  document["kept_as"] = report.kept_as.empty() ? Json(nullptr) : Json(report.kept_as);
  return document;
}

std::string to_text(const VerifyReport& report) {
  Table table;
  table.add("records", format_count(report.records));
  table.add("damaged", format_count(report.damaged));
  table.add("structure", report.structure_ok ? "ok" : "damaged");
  std::string text = table.text();
  for (const Damage& damage : report.findings) {
    text += fmt::format("  {}: {}\n", damage.key.empty() ? "store" : printable(damage.key),
                        printable(damage.reason));
  }
  if (report.findings.size() == VerifyReport::kMaxFindings) {
    text += fmt::format("  (the first {} findings are listed)\n", VerifyReport::kMaxFindings);
  }
  if (report.repaired) {
    text += fmt::format("repaired: {} entries saved, {} lost", format_count(report.saved),
                        format_count(report.lost));
    text += report.kept_as.empty() ? "\n" : fmt::format("; the old file is kept as {}\n", report.kept_as);
  }
  return text;
}

int verify(Session& session, const Arguments& arguments) {
  Options options;
  options.on_message = session.console.sink();
  const VerifyReport report =
      tokcask::verify(arguments.store, {.repair = arguments.repair}, std::move(options));
  if (arguments.json) {
    print_json(session.console, to_json(report));
  } else {
    session.console.data(to_text(report));
  }
  return is_well(report) ? kExitOk : kExitFinding;
}

}  // namespace

void add_verify(CLI::App& app, Action& action) {
  const auto arguments = std::make_shared<Arguments>();
  CLI::App* verb = app.add_subcommand("verify", "Check every page and record of a store");
  add_store(*verb, arguments->store);
  verb->add_flag("--repair", arguments->repair, "make the store whole: keep every entry that is intact");
  verb->add_flag("--json", arguments->json, "print one JSON object");
  verb->footer(
      "The exit status is 1 if anything is damaged; with --repair, if the store is not whole then. The store "
      "may be in use while it is checked.\n"
      "\n"
      "Examples:\n"
      "  tokcask verify /data/tokens\n"
      "  tokcask verify /data/tokens --json | jq .damaged\n"
      "  tokcask verify /data/tokens --repair");
  verb->callback([arguments, &action] {
    action = [arguments](Session& session) { return verify(session, *arguments); };
  });
}

}  // namespace tokcask::cli
