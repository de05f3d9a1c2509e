// The verbs of the command, one file each. Each adds its own options and help to the parser; choosing it sets
// the action to run once the whole command line is known to be well-formed.
#pragma once

#include <functional>
#include <string>

#include "cli/console.h"
#include "cli/formats.h"
#include "tokenize/tokenizer.h"

namespace CLI {
class App;
}

namespace tokcask::cli {

struct Session {
  Console& console;
  const TokenizerLoader& load;
  const FormatRunner& formats;  // empty: none
};

// Returns the exit code. May throw; see run().
using Action = std::function<int(Session&)>;

// All of them, and what the program itself takes.
void add_verbs(CLI::App& app, Action& action);

// What many of them take.
void add_store(CLI::App& verb, std::string& store);
void add_store_to_fill(CLI::App& verb, std::string& store);
struct Budget {
  std::string max_bytes;  // as parse_size() takes it; empty: what the store was last given
  bool shrink = false;
};
void add_budget(CLI::App& verb, Budget& budget);

void add_warm(CLI::App& app, Action& action);
void add_show(CLI::App& app, Action& action);
void add_explain(CLI::App& app, Action& action);
void add_runs(CLI::App& app, Action& action);
void add_get(CLI::App& app, Action& action);
void add_prune(CLI::App& app, Action& action);
void add_clear(CLI::App& app, Action& action);
void add_compact(CLI::App& app, Action& action);
void add_copy(CLI::App& app, Action& action);
void add_verify(CLI::App& app, Action& action);
void add_merge(CLI::App& app, Action& action);
void add_export(CLI::App& app, Action& action);
void add_import(CLI::App& app, Action& action);
void add_import_npz(CLI::App& app, Action& action);
void add_completion(CLI::App& app, Action& action);
void add_reference(CLI::App& app, Action& action);

}  // namespace tokcask::cli
