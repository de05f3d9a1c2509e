#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "cli/cli.h"
#include "cli/output.h"
#include "cli/page.h"
#include "cli/reference.h"
#include "cli/store.h"
#include "cli/units.h"
#include "cli/verbs.h"

namespace tokcask::cli {
namespace {

struct Arguments {
  std::string store;
  std::string html;
  bool json = false;
};

Json json_groups(const StoreSurvey& survey) {
  Json groups = Json::array();
  for (const SurveyGroup& group : survey.groups) {
    Json object;
    object["tokenizer_sha"] = group.tokenizer_sha;
    object["sequence_len"] = group.sequence_len;
    object["entries"] = group.entries;
    object["tokens"] = group.tokens;
    object["bytes"] = group.bytes;
    object["first_stored_ns"] = group.first_stored_ns;
    object["last_stored_ns"] = group.last_stored_ns;
    groups.push_back(std::move(object));
  }
  return groups;
}

Json json_lengths(const StoreSurvey& survey) {
  Json bins = Json::array();
  for (const LengthBin& bin : survey.lengths)
    bins.push_back({{"up_to", bin.up_to}, {"entries", bin.entries}, {"bytes", bin.bytes}});
  return bins;
}

Json json_ages(const StoreSurvey& survey) {
  Json bins = Json::array();
  const auto add = [&](std::string label, Json under, const AgeBin& bin) {
    bins.push_back({{"label", std::move(label)},
                    {"under_seconds", std::move(under)},
                    {"entries", bin.entries},
                    {"bytes", bin.bytes}});
  };
  for (const AgeBin& bin : survey.last_access)
    add(age_label(bin), bin.under_seconds == AgeBin::kNoLimit ? Json(nullptr) : Json(bin.under_seconds), bin);
  add("unknown", nullptr, survey.last_access_unknown);
  return bins;
}

Json to_json(const StorePage& page) {
  const Stats& stats = page.stats;
  Json document = json_document("show");
  document["path"] = page.path;
  document["entry_count"] = stats.entry_count;
  document["total_bytes"] = stats.total_bytes;
  document["payload_bytes"] = stats.payload_bytes;
  document["file_bytes"] = stats.file_bytes;
  document["max_bytes"] = stats.max_bytes;
  document["tokenizer_sha"] = stats.tokenizer_sha.empty() ? Json(nullptr) : Json(stats.tokenizer_sha);
  document["last_run"] = json_run(stats.last_run);
  document["groups"] = json_groups(page.survey);
  document["length_histogram"] = json_lengths(page.survey);
  document["last_access_histogram"] = json_ages(page.survey);
  return document;
}

// Replaces `file` at once, so that nobody sees half of it. Never writes through a link that lies in the way.
void write_file(const std::string& file, std::string_view content) {
  const std::string unfinished = fmt::format("{}.unfinished-{}", file, ::getpid());
  ::unlink(unfinished.c_str());
  const int fd = ::open(unfinished.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  int error = fd < 0 ? errno : write_all(fd, content);
  if (fd >= 0 && ::close(fd) != 0 && error == 0) error = errno;
  if (error == 0 && ::rename(unfinished.c_str(), file.c_str()) != 0) error = errno;
  if (error == 0) return;
  ::unlink(unfinished.c_str());
  throw Error(Errc::kIo, fmt::format("{}: cannot write the report: {}", file, std::strerror(error)));
}

int show(Session& session, const Arguments& arguments) {
  TokenizedCache cache = open_to_read(arguments.store, session.console);
  StorePage page{cache.root().string(), cache.stats(), cache.survey(), {}};
  // The budget that counts is the one that the store was written with, not that of a handle which only looks.
  if (page.stats.last_max_bytes != 0) page.stats.max_bytes = page.stats.last_max_bytes;
  page.runs = cache.runs();
  if (!arguments.html.empty()) {
    write_file(arguments.html, page_html(page));
    session.console.note(fmt::format("wrote {}", printable(arguments.html)));
  }
  if (arguments.json) {
    print_json(session.console, to_json(page));
  } else if (arguments.html.empty()) {
    session.console.data(page_text(page, Console::data_look()));
  }
  return kExitOk;
}

}  // namespace

void add_show(CLI::App& app, Action& action) {
  const auto arguments = std::make_shared<Arguments>();
  CLI::App* verb = app.add_subcommand("show", "Tell what a store holds, and how its last runs went");
  add_store(*verb, arguments->store);
  verb->add_option("--html", arguments->html, "write the page with plots to FILE instead, as HTML")
      ->type_name(kFile);
  verb->add_flag("--json", arguments->json, "print one JSON object");
  verb->footer(
      "It tells how full the store is, its entries by tokenizer, sequence length, size and last use, and the "
      "hit rates of its runs. Counts no hit and records no access.\n"
      "\n"
      "Examples:\n"
      "  tokcask show /data/tokens\n"
      "  tokcask show /data/tokens --html tokens.html\n"
      "  tokcask show /data/tokens --json | jq .last_run.hit_rate");
  verb->callback(
      [arguments, &action] { action = [arguments](Session& session) { return show(session, *arguments); }; });
}

}  // namespace tokcask::cli
