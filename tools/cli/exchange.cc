// `export` and `import`.
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "cli/cli.h"
#include "cli/interrupt.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/reference.h"
#include "cli/units.h"
#include "cli/verbs.h"
#include "corpus/utf8.h"

namespace tokcask::cli {
namespace {

constexpr const char* kExportNotes =
    "What becomes of OUT:\n"
    "  megatron   OUT.bin and OUT.idx, one document per entry, for Megatron's IndexedDataset\n"
    "  parquet    the file OUT: input_ids, attention_mask, section_id, tokenizer_sha, sequence_len\n"
    "  mds        the directory OUT, for MosaicML Streaming: tokens and the three of the key\n"
    "  datatrove  OUT.ds, OUT.ds.index and OUT.ds.metadata, as its DocumentTokenizer writes them\n"
    "\n"
    "Nothing stands under these names before it is whole. Ids are uint16 where all fit (megatron, "
    "datatrove), otherwise they have 32 bits. A mask that is not all ones is kept by parquet and refused by "
    "the others unless --drop-masks is given. Entries of several tokenizers are never mixed. Records that "
    "are damaged or went away meanwhile are left out, and the exit status is then 1. The store may be in "
    "use; no hit and no access is recorded.\n"
    "\n"
    "The pip-installed command has the formats; parquet and mds need an extra: 'pip install "
    "tokcask[parquet]' or 'pip install tokcask[mds]'.\n"
    "\n"
    "Examples:\n"
    "  tokcask export /data/tokens --format megatron /data/code \\\n"
    "      --order shuffle --seed 7 --eod 0\n"
    "  tokcask export /data/tokens --format parquet tokens.parquet \\\n"
    "      --tokenizer 3f2a --seq-len 2048\n"
    "  tokcask export /data/tokens --format mds /data/code-mds --order path --json";

constexpr const char* kImportNotes =
    "What is read of IN:\n"
    "  megatron  IN.bin and IN.idx, one entry per document; they tell no keys, so --tokenizer and --seq-len "
    "must be given\n"
    "  parquet   the file IN with a column input_ids of lists of integers, and, where it has them, "
    "attention_mask, section_id, tokenizer_sha and sequence_len; what it lacks is as for megatron\n"
    "\n"
    "The section of a document is the hash of its ids (content), so that equal documents are one entry and "
    "importing again changes nothing; or NAME-NUMBER of its file and place (index).\n"
    "\n"
    "A document longer than its sequence length is refused. An entry that STORE has with the same tokens is "
    "left; with other tokens it is a conflict, left too unless --replace is given, and the exit status is 1. "
    "An import that was stopped goes on when it is given again.\n"
    "\n"
    "Examples:\n"
    "  tokcask import --format parquet tokens.parquet /data/tokens\n"
    "  tokcask import --format megatron /data/code /data/tokens \\\n"
    "      --tokenizer tokenizer.json --seq-len 2048 --eod 0 --json";

struct ExportArguments {
  std::string store;
  std::string out;
  std::string format;
  std::string order = "key";
  std::uint64_t seed = 0;
  std::optional<std::string> dtype;
  std::optional<std::int32_t> eod;
  std::optional<std::string> tokenizer;
  std::optional<std::int32_t> sequence_len;
  bool drop_masks = false;
  bool force = false;
  bool quiet = false;
  bool json = false;
};

struct ImportArguments {
  std::string input;
  std::string store;
  std::string format;
  std::optional<std::string> tokenizer;
  std::optional<std::int32_t> sequence_len;
  std::string section = "content";
  std::optional<std::int32_t> eod;
  Budget budget;
  bool replace = false;
  bool quiet = false;
  bool json = false;
};

// Draws progress and passes warnings on.
class ConsoleMonitor final : public FormatMonitor {
 public:
  ConsoleMonitor(Console& console, bool shown) : console_(console), progress_(console, shown) {}

  void warning(std::string_view text) override { console_.warning(text); }
  [[nodiscard]] bool advance(std::string_view phase, std::uint64_t done, std::uint64_t total) override {
    if (phase != phase_) progress_.begin(phase_ = phase, total);
    progress_.advance(done);
    return !progress_.stopped();
  }

 private:
  Console& console_;
  Progress progress_;
  std::string phase_;
};

template <typename T>
void set_if(Json& request, const char* name, const std::optional<T>& value) {
  if (value) request[name] = *value;
}

// The figures of the run, behind the fields that every verb's object begins with; nothing when it was
// stopped.
std::optional<Json> run_formats(Session& session, const std::string& verb, const Json& request, bool quiet) {
  if (!session.formats) {
    throw Error(Errc::kInvalidArgument,
                "this program has no formats; install the Python package tokcask, which brings the same "
                "command with them");
  }
  for (const auto& [name, value] : request.items()) {
    if (value.is_string() && !corpus::is_utf8(value.get_ref<const std::string&>())) {
      throw Error(Errc::kInvalidArgument, fmt::format("{} is not UTF-8", name));
    }
  }
  const auto start = std::chrono::steady_clock::now();
  const InterruptGuard interrupt;
  std::string figures;
  {
    ConsoleMonitor monitor(session.console, !quiet);
    figures = session.formats(verb, request.dump(), monitor);
  }
  if (figures.empty()) return std::nullopt;
  Json document = json_document(verb);
  document.update(Json::parse(figures));
  document["seconds"] = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return document;
}

void add_if(Table& table, const Json& document, const char* field, const char* label, const char* more = "") {
  const auto count = document.at(field).get<std::uint64_t>();
  if (count != 0) table.add(label, format_count(count) + more);
}

int export_verb(Session& session, const ExportArguments& arguments) {
  Json request;
  request["store"] = arguments.store;
  request["out"] = arguments.out;
  request["format"] = arguments.format;
  request["order"] = arguments.order;
  request["seed"] = arguments.seed;
  set_if(request, "dtype", arguments.dtype);
  set_if(request, "eod", arguments.eod);
  set_if(request, "tokenizer", arguments.tokenizer);
  set_if(request, "sequence_len", arguments.sequence_len);
  request["drop_masks"] = arguments.drop_masks;
  request["overwrite"] = arguments.force;
  const std::optional<Json> document = run_formats(session, "export", request, arguments.quiet);
  if (!document) {
    session.console.note("interrupted; nothing was exported");
    return kExitInterrupted;
  }
  if (arguments.json) {
    print_json(session.console, *document);
  } else {
    Table table;
    table.add("records", format_count(document->at("records")));
    table.add("tokens", fmt::format("{} as {}", format_count(document->at("tokens")),
                                    document->at("dtype").get<std::string>()));
    add_if(table, *document, "damaged", "damaged", " (left out)");
    add_if(table, *document, "gone", "gone", " (went away meanwhile)");
    add_if(table, *document, "empty", "empty", " (left out: the format cannot hold them)");
    add_if(table, *document, "masks_dropped", "masks dropped");
    table.add("bytes", format_size(document->at("bytes")));
    for (const Json& file : document->at("files")) table.add("file", printable(file.get<std::string>()));
    table.add("seconds", fmt::format("{:.2f}", document->at("seconds").get<double>()));
    session.console.data(table.text());
  }
  return document->at("damaged") == 0 && document->at("gone") == 0 ? kExitOk : kExitFinding;
}

int import_verb(Session& session, const ImportArguments& arguments) {
  Json request;
  request["source"] = arguments.input;
  request["store"] = arguments.store;
  request["format"] = arguments.format;
  set_if(request, "tokenizer", arguments.tokenizer);
  set_if(request, "sequence_len", arguments.sequence_len);
  request["section"] = arguments.section;
  set_if(request, "eod", arguments.eod);
  if (!arguments.budget.max_bytes.empty()) request["max_bytes"] = parse_size(arguments.budget.max_bytes);
  if (arguments.budget.shrink) request["shrink"] = true;
  request["replace"] = arguments.replace;
  const std::optional<Json> document = run_formats(session, "import", request, arguments.quiet);
  if (!document) {
    session.console.note("interrupted; run the same command to go on");
    return kExitInterrupted;
  }
  const auto conflicts = document->at("conflicts").get<std::uint64_t>();
  if (!arguments.quiet) {
    print_names(session.console, "entries have other tokens in the store and were left out",
                {conflicts, document->at("conflicting_keys")});
  }
  if (arguments.json) {
    print_json(session.console, *document);
  } else {
    Table table;
    table.add("records", format_count(document->at("records")));
    table.add("tokens", format_count(document->at("tokens")));
    table.add("imported", format_count(document->at("imported")));
    table.add("already there", format_count(document->at("already_there")));
    add_if(table, *document, "replaced", "replaced");
    table.add("conflicts", format_count(conflicts));
    add_if(table, *document, "declined", "declined", " (no room: raise --max-bytes)");
    add_if(table, *document, "evicted", "evicted");
    table.add("seconds", fmt::format("{:.2f}", document->at("seconds").get<double>()));
    session.console.data(table.text());
  }
  return conflicts == 0 ? kExitOk : kExitFinding;
}

}  // namespace

void add_export(CLI::App& app, Action& action) {
  const auto arguments = std::make_shared<ExportArguments>();
  CLI::App* verb =
      app.add_subcommand("export", "Write the entries of a store in a format that other programs read");
  add_store(*verb, arguments->store);
  verb->add_option("OUT", arguments->out, "where to write; see below")->required()->type_name(kFile);
  verb->add_option("--format", arguments->format, "what to write")
      ->required()
      ->check(CLI::IsMember({"megatron", "parquet", "mds", "datatrove"}))
      ->type_name("FORMAT");
  verb->add_option(
          "--order", arguments->order,
          "by key; by the path of the file that warm read, other entries last; or at random, as --seed says")
      ->check(CLI::IsMember({"key", "path", "shuffle"}))
      ->type_name("ORDER")
      ->capture_default_str();
  verb->add_option("--seed", arguments->seed, "where the random order of --order shuffle starts")
      ->type_name("N")
      ->capture_default_str();
  verb->add_option("--eod", arguments->eod, "append this token to each entry")
      ->check(CLI::NonNegativeNumber)
      ->type_name("ID");
  verb->add_option("--tokenizer", arguments->tokenizer,
                   "take only entries of this tokenizer: its file, its sha, or how that begins")
      ->type_name("FILE|SHA");
  verb->add_option("--seq-len", arguments->sequence_len, "take only entries made for this sequence length")
      ->check(CLI::PositiveNumber)
      ->type_name("N");
  verb->add_option("--dtype", arguments->dtype,
                   "write this type rather than what fits; an id that does not fit is an error; int32 is for "
                   "megatron, uint32 for datatrove")
      ->check(CLI::IsMember({"uint16", "int32", "uint32"}))
      ->type_name("TYPE");
  verb->add_flag("--drop-masks", arguments->drop_masks, "leave out masks where the format has none");
  verb->add_flag("--force", arguments->force, "replace what is there");
  verb->add_flag("--quiet", arguments->quiet, "show no progress");
  verb->add_flag("--json", arguments->json, "print one JSON object");
  verb->footer(kExportNotes);
  verb->callback([arguments, &action] {
    action = [arguments](Session& session) { return export_verb(session, *arguments); };
  });
}

void add_import(CLI::App& app, Action& action) {
  const auto arguments = std::make_shared<ImportArguments>();
  CLI::App* verb = app.add_subcommand("import", "Take over tokens from files of Megatron or Parquet");
  verb->add_option("IN", arguments->input, "what to read; for megatron without .bin and .idx")
      ->required()
      ->type_name(kFile);
  add_store_to_fill(*verb, arguments->store);
  verb->add_option("--format", arguments->format, "what to read")
      ->required()
      ->check(CLI::IsMember({"megatron", "parquet"}))
      ->type_name("FORMAT");
  verb->add_option("--tokenizer", arguments->tokenizer, "what made the tokens: its file, or its sha")
      ->type_name("FILE|SHA");
  verb->add_option("--seq-len", arguments->sequence_len, "the sequence length that they were made for")
      ->check(CLI::PositiveNumber)
      ->type_name("N");
  verb->add_option("--section", arguments->section, "what sections are named by")
      ->check(CLI::IsMember({"content", "index"}))
      ->type_name("RULE")
      ->capture_default_str();
  verb->add_option("--eod", arguments->eod, "take this token off the end of each document, where it is there")
      ->check(CLI::NonNegativeNumber)
      ->type_name("ID");
  verb->add_flag("--replace", arguments->replace, "take the tokens of IN where the store has others");
  add_budget(*verb, arguments->budget);
  verb->add_flag("--quiet", arguments->quiet, "show no progress, and no list of conflicts");
  verb->add_flag("--json", arguments->json, "print one JSON object");
  verb->footer(kImportNotes);
  verb->callback([arguments, &action] {
    action = [arguments](Session& session) { return import_verb(session, *arguments); };
  });
}

}  // namespace tokcask::cli
