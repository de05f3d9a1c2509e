// What all verbs share in speaking to people and to programs.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include <tokcask/error.h>
#include <tokcask/stats.h>

#include "cli/console.h"
#include "corpus/walk.h"

namespace tokcask::cli {

using Json = nlohmann::ordered_json;

// Raised with every change that could break a program that reads the objects; new fields do not.
inline constexpr int kSchemaVersion = 1;

// The start of a verb's object: schema_version and command.
[[nodiscard]] Json json_document(std::string_view verb);
// {"run_id", "hits", ...}, or null for a run that never was.
[[nodiscard]] Json json_run(const RunFigures& run);

// What a store holds after a command that fills it.
[[nodiscard]] Json json_store(const Stats& store);
[[nodiscard]] std::string store_text(const Stats& store);

// One line on standard output. Strings that are not UTF-8 (file names) get replacement characters.
void print_json(Console& console, const Json& document);

// A failure as {"schema_version", "error": {"message", "exit_code"}}.
void print_json_error(Console& console, std::string_view message, int code);

// The exit code that an Error of this kind ends a command with.
[[nodiscard]] int exit_code(Errc code) noexcept;

// "label   value" lines with the values aligned under each other.
class Table {
 public:
  void add(std::string label, std::string value) { rows_.emplace_back(std::move(label), std::move(value)); }
  [[nodiscard]] std::string text() const;

 private:
  std::vector<std::pair<std::string, std::string>> rows_;
};

// `title`, the names under it, and how many more there are. Nothing for an empty list.
void print_names(Console& console, std::string_view title, const corpus::NamedFiles& files);

}  // namespace tokcask::cli
