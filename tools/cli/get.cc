#include <memory>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "cli/cli.h"
#include "cli/output.h"
#include "cli/store.h"
#include "cli/verbs.h"

namespace tokcask::cli {
namespace {

struct Arguments {
  std::string store;
  std::string key;
  bool json = false;
};

int answer_miss(Session& session, const Arguments& arguments, const Explanation& explanation) {
  session.console.note(
      fmt::format("tokcask: no entry under {}: {}", printable(arguments.key), explanation.text));
  if (arguments.json) {
    Json document = json_document("get");
    document["key"] = arguments.key;
    document["found"] = false;
    document["reason"] = to_string(explanation.reason);
    document["text"] = explanation.text;
    print_json(session.console, document);
  }
  return kExitFinding;
}

// Spans and numbers as they are, of arrays their type and length.
Json to_json(const PartList& parts) {
  Json spans = Json::object(), scalars = Json::object(), arrays = Json::object();
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const Part part = parts[i];
    const std::string name(part.name);
    switch (part.kind) {
      case PartKind::kSpans: {
        Json pairs = Json::array();
        for (const Span& span : part.spans) pairs.push_back({span.begin, span.end});
        spans[name] = std::move(pairs);
        break;
      }
      case PartKind::kInteger:
        scalars[name] = part.integer;
        break;
      case PartKind::kReal:
        scalars[name] = part.real;
        break;
      case PartKind::kArray:
        arrays[name] = {{"type", to_string(part.array.type)}, {"length", part.array.size()}};
        break;
    }
  }
  return {{"spans", std::move(spans)}, {"scalars", std::move(scalars)}, {"arrays", std::move(arrays)}};
}

Json to_json(const CacheKey& key, const TokenView& view) {
  Json document = json_document("get");
  document["key"] = key.canonical();
  document["found"] = true;
  document["length"] = view.size();
  document["input_ids"] = view.input_ids();
  document["mask_is_all_ones"] = view.mask_is_all_ones();
  if (!view.mask_is_all_ones()) document["attention_mask"] = view.attention_mask();
  if (!view.parts().empty()) document["parts"] = to_json(view.parts());
  return document;
}

int get(Session& session, const Arguments& arguments) {
  const CacheKey key = CacheKey::parse(arguments.key);
  TokenizedCache cache = open_to_read(arguments.store, session.console);
  const auto view = cache.get(key);
  if (!view) return answer_miss(session, arguments, cache.explain(key));
  if (arguments.json) {
    print_json(session.console, to_json(key, *view));
  } else {
    session.console.data(fmt::format("{}\n", fmt::join(view->input_ids(), " ")));
  }
  return kExitOk;
}

}  // namespace

void add_get(CLI::App& app, Action& action) {
  const auto arguments = std::make_shared<Arguments>();
  CLI::App* verb = app.add_subcommand("get", "Print the token ids of one entry");
  add_store(*verb, arguments->store);
  verb->add_option("KEY", arguments->key, "'section_id|tokenizer_sha|sequence_len', quoted for the shell")
      ->required();
  verb->add_flag(
      "--json", arguments->json,
      "print one JSON object; attention_mask is in it where it is not all ones, parts where there are any");
  verb->footer(
      "The exit status is 1 if there is no such entry, and a message tells why; 'tokcask explain' tells "
      "more.\n"
      "\n"
      "Examples:\n"
      "  tokcask get /data/tokens \"$SECTION|$SHA|2048\"\n"
      "  tokcask get /data/tokens \"$SECTION|$SHA|2048\" --json | jq .length");
  verb->callback(
      [arguments, &action] { action = [arguments](Session& session) { return get(session, *arguments); }; });
}

}  // namespace tokcask::cli
