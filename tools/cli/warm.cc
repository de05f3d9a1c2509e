#include "warm/warm.h"

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

namespace tokcask::cli {
namespace {

constexpr const char* kNotes =
    "Files that are unchanged since the last time are not read. Binary files, those that are not UTF-8, and "
    "what .gitignore files name are left out. So are files of rows (.jsonl, .ndjson, .parquet, .arrow, "
    ".json.gz), "
    "unless a GLOB of --include matches their name: each file is one text. Rows are for pretokenize_rows() "
    "of the "
    "Python package.\n"
    "\n"
    "An entry whose record was found damaged, by a look-up or by verify, is made again; one that nobody has "
    "found yet is found with --rehash.\n"
    "\n"
    "A GLOB without a slash is compared with the name of a file or directory, one with a slash with the path "
    "below CORPUS; *, ?, [a-z] and ** mean what they mean in a .gitignore file.\n"
    "\n"
    "Ctrl-C stops it, and the same command goes on from there.\n"
    "\n"
    "Examples:\n"
    "  tokcask warm /data/tokens ./src --tokenizer tokenizer.json --seq-len 2048\n"
    "  tokcask warm /data/tokens ./src --tokenizer bytes --seq-len 512 \\\n"
    "      --include '*.py' --exclude 'build/'\n"
    "  tokcask warm /data/tokens ./src --tokenizer tokenizer.json --seq-len 2048 \\\n"
    "      --max-bytes 50G --json";

struct Arguments {
  std::string store;
  std::string corpus;
  std::string tokenizer;
  std::int64_t sequence_len = 0;
  std::vector<std::string> include;
  std::vector<std::string> exclude;
  bool hidden = false;
  bool no_ignore = false;
  unsigned jobs = 0;
  Budget budget;
  bool rehash = false;
  bool quiet = false;
  bool json = false;
};

std::vector<corpus::PathPattern> patterns(const std::vector<std::string>& globs) {
  std::vector<corpus::PathPattern> patterns;
  for (const std::string& glob : globs) {
    if (glob.empty()) throw Error(Errc::kInvalidArgument, "a glob must not be empty");
    patterns.emplace_back(glob);
  }
  return patterns;
}

warm::WarmOptions warm_options(const Arguments& arguments) {
  if (arguments.sequence_len < 1 || arguments.sequence_len > CacheKey::kMaxSequenceLen) {
    throw Error(Errc::kInvalidArgument, fmt::format("--seq-len {} is not between 1 and {}",
                                                    arguments.sequence_len, CacheKey::kMaxSequenceLen));
  }
  warm::WarmOptions options;
  options.corpus = arguments.corpus;
  options.tokenizer = arguments.tokenizer;
  options.sequence_len = static_cast<std::int32_t>(arguments.sequence_len);
  options.walk.include = patterns(arguments.include);
  options.walk.exclude = patterns(arguments.exclude);
  options.walk.hidden = arguments.hidden;
  options.walk.ignore_files = !arguments.no_ignore;
  options.jobs = arguments.jobs;
  options.rehash = arguments.rehash;
  return options;
}

Json skipped_json(const warm::WarmFigures& figures) {
  Json skipped;
  skipped["hidden"] = figures.skipped.hidden;
  skipped["ignored"] = figures.skipped.ignored;
  skipped["excluded"] = figures.skipped.excluded;
  skipped["rows"] = figures.skipped.rows;
  skipped["binary"] = figures.binary;
  skipped["not_utf8"] = figures.not_utf8.total;
  skipped["unreadable"] = figures.skipped.unreadable.total;
  skipped["special"] = figures.skipped.special;
  skipped["too_large"] = figures.too_large;
  skipped["repeated_directories"] = figures.skipped.repeated;
  skipped["store"] = figures.skipped.store;
  return skipped;
}

Json to_json(const Arguments& arguments, const warm::WarmFigures& figures) {
  const Stats& store = figures.store;
  const warm::WarmSeconds& seconds = figures.seconds;
  Json document = json_document("warm");
  document["path"] = arguments.store;
  document["corpus"] = arguments.corpus;
  document["tokenizer_sha"] = figures.tokenizer_sha;
  document["sequence_len"] = arguments.sequence_len;
  document["interrupted"] = figures.interrupted;
  document["files"] = figures.files;
  document["sections"] = figures.sections;
  document["hits"] = figures.hits;
  document["derived"] = figures.derived;
  document["misses"] = figures.misses;
  Json reasons;
  for (std::size_t i = 0; i < kMissReasons; ++i) {
    reasons[std::string(to_string(static_cast<MissReason>(i)))] = figures.miss_reasons[i];
  }
  document["miss_reasons"] = std::move(reasons);
  document["hit_rate"] = figures.hit_rate();
  document["stored"] = figures.stored;
  document["declined"] = figures.declined;
  document["tokens"] = figures.tokens;
  document["files_read"] = figures.files_read;
  document["tokenizer_loaded"] = figures.tokenizer_loaded;
  document["bytes_after"] = store.total_bytes;
  document["seconds"] = {{"scan", seconds.scan},
                         {"tokenize", seconds.tokenize},
                         {"store", seconds.store},
                         {"total", seconds.total}};
  document["skipped"] = skipped_json(figures);
  document["not_utf8_files"] = figures.not_utf8.names;
  document["unreadable_files"] = figures.skipped.unreadable.names;
  document["store"] = json_store(store);
  return document;
}

std::string skipped_text(const warm::WarmFigures& figures) {
  std::string text;
  const auto add = [&](std::uint64_t count, std::string_view what) {
    if (count != 0) text += fmt::format("{}{} {}", text.empty() ? "" : ", ", format_count(count), what);
  };
  add(figures.skipped.hidden, "hidden");
  add(figures.skipped.ignored, "ignored by .gitignore");
  add(figures.skipped.excluded, "excluded");
  add(figures.skipped.rows, "of rows (JSONL, Parquet, Arrow)");
  add(figures.binary, "binary");
  add(figures.not_utf8.total, "not UTF-8");
  add(figures.skipped.unreadable.total, "unreadable");
  add(figures.skipped.special, "not regular files");
  add(figures.too_large, "too large");
  add(figures.skipped.repeated, "directories met again");
  add(figures.skipped.store, "of the store itself");
  return text.empty() ? "none" : text;
}

std::string to_text(const warm::WarmFigures& figures) {
  const warm::WarmSeconds& seconds = figures.seconds;
  Table table;
  table.add("files",
            fmt::format("{} ({} read)", format_count(figures.files), format_count(figures.files_read)));
  table.add("skipped", skipped_text(figures));
  table.add("sections", format_count(figures.sections));
  table.add("hits",
            fmt::format("{} ({}){}", format_count(figures.hits), format_percent(figures.hit_rate()),
                        figures.derived == 0 ? ""
                                             : fmt::format(", {} of them from another sequence length",
                                                           format_count(figures.derived))));
  table.add("misses", format_count(figures.misses));
  table.add("tokens", fmt::format("{} new", format_count(figures.tokens)));
  if (figures.declined != 0) {
    table.add("declined", fmt::format("{} (no room: raise --max-bytes)", format_count(figures.declined)));
  }
  table.add("store", store_text(figures.store));
  table.add("seconds", fmt::format("{:.2f} (scan {:.2f}, tokenize {:.2f}, store {:.2f})", seconds.total,
                                   seconds.scan, seconds.tokenize, seconds.store));
  return table.text();
}

void report_interruption(Console& console, const warm::WarmFigures& figures) {
  console.note(fmt::format("interrupted: {} of {} sections stored; run the same command to go on",
                           format_count(figures.hits + figures.stored), format_count(figures.sections)));
}

int warm_store(Session& session, const Arguments& arguments) {
  const warm::WarmOptions options = warm_options(arguments);
  warm::WarmFigures figures;
  {
    const InterruptGuard interrupt;
    Progress progress(session.console, !arguments.quiet);
    TokenizedCache cache = open_to_fill(arguments.store, arguments.budget, session.console);
    figures = warm::warm(cache, options, session.load, progress);
    cache.close();
  }
  if (!arguments.quiet) {
    print_names(session.console, "files are not UTF-8 and were left out", figures.not_utf8);
    print_names(session.console, "files or directories could not be read", figures.skipped.unreadable);
  }
  if (arguments.json) {
    print_json(session.console, to_json(arguments, figures));
  } else {
    session.console.data(to_text(figures));
  }
  if (!figures.interrupted) return kExitOk;
  report_interruption(session.console, figures);
  return kExitInterrupted;
}

void add_options(CLI::App& verb, Arguments& arguments) {
  add_store_to_fill(verb, arguments.store);
  verb.add_option("CORPUS", arguments.corpus, "a directory of text files, or one file")
      ->required()
      ->type_name(kFile);
  verb.add_option("--tokenizer", arguments.tokenizer,
                  "a tokenizer file, or 'bytes' for the built-in byte-level tokenizer")
      ->required()
      ->type_name(kFile);
  verb.add_option("--seq-len", arguments.sequence_len, "keep at most this many tokens of each file")
      ->required()
      ->type_name("N");
  verb.add_option("--include", arguments.include,
                  "take only files that match, or lie in a directory that does")
      ->allow_extra_args(false)
      ->type_name("GLOB");
  verb.add_option("--exclude", arguments.exclude, "leave out files and directories that match")
      ->allow_extra_args(false)
      ->type_name("GLOB");
  verb.add_flag("--hidden", arguments.hidden, "take files and directories whose names begin with a dot, too");
  verb.add_flag("--no-ignore", arguments.no_ignore,
                "do not obey .gitignore files; with --hidden, enter .git too");
  verb.add_option("--jobs", arguments.jobs,
                  "threads to read and tokenize on, at most 1024; 0: one for each core")
      ->check(CLI::Range(0U, 1024U))
      ->type_name("N")
      ->default_str("0");
  add_budget(verb, arguments.budget);
  verb.add_flag("--rehash", arguments.rehash,
                "read every file, even those that look unchanged, and every record of theirs");
  verb.add_flag("--quiet", arguments.quiet, "show no progress, and no list of files that were left out");
  verb.add_flag("--json", arguments.json, "print one JSON object");
}

}  // namespace

void add_warm(CLI::App& app, Action& action) {
  const auto arguments = std::make_shared<Arguments>();
  CLI::App* verb = app.add_subcommand("warm", "Tokenize what is new or changed in a corpus, and store it");
  add_options(*verb, *arguments);
  verb->footer(kNotes);
  verb->callback([arguments, &action] {
    action = [arguments](Session& session) { return warm_store(session, *arguments); };
  });
}

}  // namespace tokcask::cli
