#include "cli/output.h"

#include <algorithm>

#include <fmt/format.h>

#include "cli/cli.h"
#include "cli/units.h"

namespace tokcask::cli {

Json json_document(std::string_view verb) {
  Json document;
  document["schema_version"] = kSchemaVersion;
  document["command"] = verb;
  return document;
}

Json json_run(const RunFigures& run) {
  if (run.run_id == 0) return nullptr;
  Json object;
  object["run_id"] = run.run_id;
  object["state"] = to_string(run.state);
  object["started_ns"] = run.started_ns;
  object["ended_ns"] = run.ended_ns;
  object["last_active_ns"] = run.last_active_ns;
  object["tokenizer_sha"] = run.tokenizer_sha.empty() ? Json(nullptr) : Json(run.tokenizer_sha);
  object["sequence_len"] = run.sequence_len;
  object["several_tokenizers"] = run.several_tokenizers;
  object["hits"] = run.hits;
  object["derived"] = run.derived;
  object["misses"] = run.misses;
  object["hit_rate"] = run.hit_rate();
  object["puts"] = run.puts;
  object["declined"] = run.declined;
  object["evicted"] = run.evicted;
  object["tokenize_seconds"] = run.tokenize_seconds;
  object["bytes_after"] = run.bytes_after;
  return object;
}

Json json_store(const Stats& store) {
  Json object;
  object["entry_count"] = store.entry_count;
  object["total_bytes"] = store.total_bytes;
  object["payload_bytes"] = store.payload_bytes;
  object["file_bytes"] = store.file_bytes;
  object["max_bytes"] = store.max_bytes;
  return object;
}

std::string store_text(const Stats& store) {
  return fmt::format("{} of {}, {} entries", format_mib(store.file_bytes), format_mib(store.max_bytes),
                     format_count(store.entry_count));
}

void print_json(Console& console, const Json& document) {
  console.data(document.dump(-1, ' ', false, Json::error_handler_t::replace) + '\n');
}

void print_json_error(Console& console, std::string_view message, int code) {
  Json document;
  document["schema_version"] = kSchemaVersion;
  document["error"] = {{"message", message}, {"exit_code", code}};
  print_json(console, document);
}

int exit_code(Errc code) noexcept {
  switch (code) {
    case Errc::kInvalidArgument:
      return kExitUsage;
    case Errc::kDamaged:
      return kExitDamaged;
    case Errc::kNotFound:
      return kExitNoStore;
    case Errc::kBusy:
      return kExitBusy;
    case Errc::kInterrupted:
      return kExitInterrupted;
    case Errc::kIo:
    case Errc::kMissing:  // no verb asks for entries that must be there
    case Errc::kUnsupported:
    case Errc::kReadOnly:
    case Errc::kClosed:
      break;
  }
  return kExitIo;
}

std::string Table::text() const {
  std::size_t widest = 0;
  for (const auto& row : rows_) widest = std::max(widest, row.first.size());
  std::string text;
  for (const auto& [label, value] : rows_) text += fmt::format("{:<{}}  {}\n", label, widest, value);
  return text;
}

void print_names(Console& console, std::string_view title, const corpus::NamedFiles& files) {
  if (files.total == 0) return;
  console.warning(fmt::format("{} {}:", format_count(files.total), title));
  for (const std::string& name : files.names) console.note("  " + printable(name));
  const std::uint64_t more = files.total - files.names.size();
  if (more != 0) console.note(fmt::format("  ... and {} more", format_count(more)));
}

}  // namespace tokcask::cli
