// What the engine tells of the store beside its entries: rows, figures, runs.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "engine/engine.h"

namespace tokcask {

using lmdb::Table;
using rows::MetaKey;
using rows::Tag;

std::optional<std::vector<std::byte>> Engine::meta_row(const MetaKey& key) {
  const Reading reading = read();
  const auto value = reading.transaction().get(Table::kMeta, key.bytes());
  if (!value) return std::nullopt;
  return std::vector(value->begin(), value->end());
}

std::optional<SourceDirectory> Engine::source_directory(std::string_view path) {
  if (auto pending = committer_.source_directory(path)) return pending;
  const auto row = meta_row(MetaKey::of_path(Tag::kDirectory, path));
  return row ? rows::decode_directory(path, *row) : std::nullopt;
}

std::optional<std::string> Engine::tokenizer_of_file(std::string_view path, const FileIdentity& identity) {
  if (auto pending = committer_.tokenizer_of_file(path, identity))
    return pending->empty() ? std::nullopt : std::move(pending);
  const auto row = meta_row(MetaKey::of_path(Tag::kTokenizerFile, path));
  return row ? rows::decode_tokenizer_file(path, identity, *row) : std::nullopt;
}

DeclaredTraits Engine::declared() {
  const std::lock_guard lock(declared_mutex_);
  return declared_;
}

void Engine::declare_tokenizer(std::string_view sha, const TokenizerTraits& traits, bool here_only) {
  const auto stored = meta_row(MetaKey::of_path(Tag::kTraits, sha));
  if (stored && rows::decode_traits(sha, *stored) == traits) return;
  {
    const std::lock_guard lock(declared_mutex_);
    declared_.insert_or_assign(std::string(sha), traits);
  }
  if (!here_only) committer_.put_traits(sha, traits);
}

Stats Engine::stats(const Session& run) {
  Stats stats;
  const auto stored = meta_row(MetaKey(Tag::kStore, 0));
  const auto store = stored ? rows::read_row<rows::StoreRow>(*stored) : std::nullopt;
  if (!store)
    throw Error(Errc::kDamaged, fmt::format("{}: the store row is gone; run verify", root_.string()));
  stats.entry_count = store->entry_count;
  stats.total_bytes = store->total_bytes;
  stats.payload_bytes = store->payload_bytes;
  stats.file_bytes = environment_->file_bytes();
  stats.max_bytes = budget_of(*store, run.options.max_bytes);
  stats.last_max_bytes = store->max_bytes;
  stats.tokenizer_sha =
      std::string(store->tokenizer_sha, strnlen(store->tokenizer_sha, sizeof store->tokenizer_sha));
  committer_.add_to(stats);
  stats.not_taken = run.not_taken;
  stats.run = run.figures();
  stats.last_run = last_run(store->last_run_id);
  return stats;
}

// ---- Runs ----

RunFigures Engine::figures_of(const rows::RunRow& row) const {
  RunFigures run;
  run.run_id = row.run_id;
  run.started_ns = row.started_ns;
  run.ended_ns = row.ended_ns;
  run.last_active_ns = row.last_active_ns;
  run.hits = row.hits;
  run.derived = row.derived;
  run.misses = row.misses;
  run.puts = row.puts;
  run.declined = row.declined;
  run.evicted = row.evicted;
  run.tokenize_seconds = row.tokenize_seconds;
  run.bytes_after = row.bytes_after;
  run.tokenizer_sha.assign(row.tokenizer_sha, strnlen(row.tokenizer_sha, sizeof row.tokenizer_sha));
  run.sequence_len = row.sequence_len;
  run.several_tokenizers = (row.flags & rows::RunRow::kSeveralTokenizers) != 0;
  if (row.ended_ns != 0) {
    run.state = (row.flags & rows::RunRow::kKilled) != 0 ? RunState::kKilled : RunState::kEnded;
  } else if (access_->why_private().empty()) {
    // A run that is alive is in the table. This one is not there any more, or the table was lost.
    run.state = RunState::kKilled;
    run.ended_ns = std::max(row.last_active_ns, row.started_ns);
  }
  return run;
}

RunFigures Engine::last_run(std::uint64_t last_stored) {
  RunFigures last;
  for (shm::RunTable::Entry& entry : access_->runs().entries()) {
    if (entry.activity != 0 && entry.figures.run_id >= std::max(last.run_id, last_stored)) {
      last = std::move(entry.figures);
    }
  }
  if (last.run_id != 0 || last_stored == 0) return last;
  const auto value = meta_row(MetaKey(Tag::kRun, last_stored));
  const auto row = value ? rows::read_row<rows::RunRow>(*value) : std::nullopt;
  return row ? figures_of(*row) : last;
}

std::vector<RunFigures> Engine::runs() {
  access_->runs().sweep();
  std::vector<RunFigures> runs;
  for (shm::RunTable::Entry& entry : access_->runs().entries()) {
    if (entry.activity != 0) runs.push_back(std::move(entry.figures));
  }
  const auto known = [&](const rows::RunRow& row) {
    return std::any_of(runs.begin(), runs.end(), [&](const RunFigures& run) {
      return run.run_id == row.run_id && run.started_ns == row.started_ns;
    });
  };
  for (const rows::RunRow& row : read_runs(read().transaction())) {
    if (!known(row)) runs.push_back(figures_of(row));
  }
  std::stable_sort(runs.begin(), runs.end(),
                   [](const RunFigures& a, const RunFigures& b) { return a.run_id > b.run_id; });
  if (runs.size() > rows::kRunsKept) runs.resize(rows::kRunsKept);
  return runs;
}

// ---- What is committed ----

std::vector<std::string> Engine::tokenizers() {
  std::vector<std::string> found;
  const lmdb::ReadTransaction transaction(*environment_);
  TokenizerNames names;
  const std::uint32_t count = read_store_row(transaction).tokenizer_count;
  names.refresh(transaction, count);
  for (std::uint32_t number = 1; number <= count; ++number) {
    if (!names.name(number).empty()) found.emplace_back(names.name(number));
  }
  return found;
}

std::vector<CacheKey> Engine::keys(std::optional<std::string_view> tokenizer_sha,
                                   std::optional<std::int32_t> sequence_len) {
  std::vector<CacheKey> keys;
  const lmdb::ReadTransaction transaction(*environment_);
  const lmdb::Cursor cursor(transaction, Table::kRecords);
  for (auto entry = cursor.first(); entry; entry = cursor.next()) {
    auto key = key_of(entry->key);
    // Damage, which verify tells of. Nothing can be looked up under it.
    if (!key) continue;
    if (tokenizer_sha && key->tokenizer_sha() != *tokenizer_sha) continue;
    if (sequence_len && key->sequence_len() != *sequence_len) continue;
    keys.push_back(*std::move(key));
  }
  return keys;
}

std::vector<std::string> Engine::source_directories() {
  std::vector<std::string> paths;
  const lmdb::ReadTransaction transaction(*environment_);
  const lmdb::Cursor cursor(transaction, Table::kMeta);
  const auto tag = static_cast<std::byte>(Tag::kDirectory);
  for (auto row = cursor.seek({&tag, 1}); row && row->key[0] == tag; row = cursor.next()) {
    // A damaged row is as none, as it is for source_directory().
    if (auto path = rows::path_of_directory(row->value)) paths.push_back(*std::move(path));
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

}  // namespace tokcask
