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
  std::string key;
  bool json = false;
};

Json to_json(const CacheKey& key, const Explanation& explanation) {
  Json document = json_document("explain");
  document["key"] = key.canonical();
  document["found"] = explanation.found;
  document["derived"] = explanation.derived;
  document["reason"] = explanation.found ? Json(nullptr) : Json(to_string(explanation.reason));
  document["text"] = explanation.text;
  document["when_ns"] = explanation.when_ns == 0 ? Json(nullptr) : Json(explanation.when_ns);
  document["run_id"] = explanation.run_id == 0 ? Json(nullptr) : Json(explanation.run_id);
  Json related = Json::array();
  for (const EntryInfo& info : explanation.related) {
    related.push_back({{"key", info.key.canonical()},
                       {"tokens", info.tokens},
                       {"created_ns", info.created_ns},
                       {"last_access_ns", info.last_access_ns},
                       {"bytes", info.bytes}});
  }
  document["related"] = std::move(related);
  return document;
}

std::string to_text(const Explanation& explanation) {
  Table table;
  table.add(explanation.found ? "hit" : "miss", explanation.text);
  for (const EntryInfo& info : explanation.related) {
    table.add("  beside", fmt::format("{} ({} tokens, stored {})", printable(info.key.canonical()),
                                      format_count(info.tokens),
                                      format_time(static_cast<std::int64_t>(info.created_ns))));
  }
  return table.text();
}

int explain(Session& session, const Arguments& arguments) {
  const CacheKey key = CacheKey::parse(arguments.key);
  TokenizedCache cache = open_to_read(arguments.store, session.console);
  const Explanation explanation = cache.explain(key);
  if (arguments.json) {
    print_json(session.console, to_json(key, explanation));
  } else {
    session.console.data(to_text(explanation));
  }
  return explanation.found ? kExitOk : kExitFinding;
}

}  // namespace

void add_explain(CLI::App& app, Action& action) {
  const auto arguments = std::make_shared<Arguments>();
  CLI::App* verb =
      app.add_subcommand("explain", "Tell why a look-up of a key finds nothing, or what it finds");
  add_store(*verb, arguments->store);
  verb->add_option("KEY", arguments->key, "'section_id|tokenizer_sha|sequence_len', quoted for the shell")
      ->required();
  verb->add_flag("--json", arguments->json, "print one JSON object");
  verb->footer(
      "The reasons: never stored, other tokenizer, other length, evicted, pruned, declined, cleared, "
      "damaged. The exit status is 1 if nothing is found. Counts no hit and records no access.\n"
      "\n"
      "Examples:\n"
      "  tokcask explain /data/tokens \"$SECTION|$SHA|2048\"\n"
      "  tokcask explain /data/tokens \"$SECTION|$SHA|2048\" --json | jq -r .reason");
  verb->callback([arguments, &action] {
    action = [arguments](Session& session) { return explain(session, *arguments); };
  });
}

}  // namespace tokcask::cli
