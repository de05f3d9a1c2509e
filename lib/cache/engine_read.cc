// The engine's read side.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <numeric>
#include <utility>

#include "cache/engine.h"
#include "cache/fork.h"

namespace tokcask {

using lmdb::Table;
using rows::MetaKey;
using rows::Tag;

namespace {

constexpr std::size_t kMostDamageTold = 4096;

// Of tables of generations by slot; see Engine::checked_.
bool knows(const std::vector<std::uint32_t>& table, const record::Header& header) {
  return header.slot < table.size() && table[header.slot] == static_cast<std::uint32_t>(header.generation);
}

void remember(std::vector<std::uint32_t>& table, const record::Header& header) {
  // The slot is one of the entry table's, so this is not larger than that.
  if (header.slot >= table.size()) table.resize(header.slot + std::size_t{1});
  table[header.slot] = static_cast<std::uint32_t>(header.generation);
}

}  // namespace

TokenView view_of(std::span<const std::int32_t> ids, std::span<const std::int32_t> mask,
                  std::shared_ptr<const void> owner) {
  const bool ones = mask.empty();
  return {ids, ones ? all_ones(ids.size()) : mask, ones, std::move(owner)};
}

// ---- Snapshots ----

std::shared_ptr<Snapshot> Engine::snapshot() {
  if (outdated()) {
    throw Error(Errc::kIo,
                fmt::format("{}: was replaced, and the new file cannot be opened now", data_.string()));
  }
  if (auto kept = keeper_.find(environment_->last_txnid())) return kept;
  std::shared_ptr<Snapshot> newest;
  std::shared_ptr<Snapshot> stale;  // let go of after the lock
  {
    const std::lock_guard lock(read_mutex_);
    newest = current_.lock();
    if (newest && newest->transaction().id() != environment_->last_txnid()) stale = std::move(newest);
    if (!newest) {
      std::unique_ptr<lmdb::ReadTransaction> transaction;
      if (idle_.empty()) {
        transaction = std::make_unique<lmdb::ReadTransaction>(*environment_);
      } else {
        idle_.back()->renew();
        transaction = std::move(idle_.back());
        idle_.pop_back();
      }
      newest = std::make_shared<Snapshot>(shared_from_this(), std::move(transaction));
      current_ = newest;
    }
  }
  keeper_.keep(newest);
  return newest;
}

void Engine::give_back(std::unique_ptr<lmdb::ReadTransaction> transaction) noexcept {
  if (generation_ != fork_generation()) {
    // The parent's. LMDB's reader table is shared with it: touching the transaction would end the parent's
    // snapshot.
    transaction->abandon();
    return;
  }
  transaction->reset();
  const std::lock_guard lock(read_mutex_);
  try {
    idle_.push_back(std::move(transaction));
  } catch (const std::bad_alloc&) {
    // It ends instead of being kept.
  }
}

// ---- Look-ups ----

Engine::Found Engine::look_up(const lmdb::ReadTransaction& transaction, std::optional<lmdb::Bytes> value,
                              const CacheKey& key, VerifyPolicy policy) const {
  Found found;
  if (!value) return found;
  found.record = record::decode(*value, record::hash_key(key.canonical()), &found.damage);
  if (!found.record) return found;
  const record::Header& header = found.record->header;
  if (knows(checked_, header) || (policy == VerifyPolicy::kOff && knows(seen_, header))) {
    found.checked = true;
    return found;
  }
  // An intact but older record of the same key would pass every check of its own.
  const auto chunk =
      transaction.get(Table::kMeta, MetaKey(Tag::kEntries, header.slot / rows::kEntriesPerChunk).bytes());
  if (!chunk || !rows::is_current(*chunk, header.slot, header.generation)) {
    found.record.reset();
    found.damage = kNotCurrent;
  }
  return found;
}

void Engine::check(std::span<Found> found, VerifyPolicy policy) {
  std::vector<const record::Header*> checked;
  for (Found& f : found) {
    if (!f.record) continue;
    if (f.checked && policy == VerifyPolicy::kFirst) continue;
    // By default the one time in this process that a record is read as a whole.
    if (policy == VerifyPolicy::kOff || record::checksum_ok(*f.record)) {
      checked.push_back(&f.record->header);
    } else {
      f.record.reset();
      f.damage = "its checksum is wrong";
    }
  }
  if (checked.empty()) return;
  const std::lock_guard lock(read_mutex_);
  for (const record::Header* header : checked) {
    remember(policy == VerifyPolicy::kOff ? seen_ : checked_, *header);
  }
}

std::optional<TokenView> Engine::pending_view(const CacheKey& key, const Run& run) {
  const std::lock_guard lock(pending_mutex_);
  const PendingTokens* tokens = nullptr;
  if (const auto active = active_.puts.find(key); active != active_.puts.end()) {
    if (!run.options.observe) active->second.stamp = access_->next_stamp();
    tokens = &active->second.tokens;
  } else if (const auto committing = committing_.puts.find(key); committing != committing_.puts.end()) {
    tokens = &committing->second.tokens;
  } else if (const auto moved = moved_.puts.find(key); moved != moved_.puts.end()) {
    tokens = &moved->second.tokens;
  }
  if (tokens == nullptr) return std::nullopt;
  return tokcask::view_of(tokens->ids(), tokens->mask(), tokens->data);
}

std::optional<TokenView> Engine::get(const CacheKey& key, Run& run) {
  run.note(key);
  if (auto view = pending_view(key, run)) {
    ++run.hits;
    return view;
  }
  try {
    std::shared_ptr<Snapshot> snapshot = this->snapshot();
    Found found;
    {
      const std::lock_guard lock(read_mutex_);
      const lmdb::ReadTransaction& transaction = snapshot->transaction();
      const auto value = transaction.get(Table::kRecords, record::PaddedKey(key.canonical()).bytes());
      found = look_up(transaction, value, key, run.options.verify);
    }
    check({&found, 1}, run.options.verify);
    if (found.record) {
      const std::uint64_t stamp = access_->next_stamp();
      run.used(stamp);
      if (!run.options.observe) access_->touch(found.record->header.slot, stamp);
      ++run.hits;
      return view_of(found, std::move(snapshot));
    }
  } catch (const Error&) {
    // Told of below.
  }
  // What is not there, or damaged, or has to be derived, is the work of look_up_many() alone.
  std::optional<TokenView> view;
  look_up_many({&key, 1}, true, run, [&](std::size_t, TokenView found) { view = std::move(found); });
  return view;
}

std::vector<std::optional<TokenView>> Engine::get_many(std::span<const CacheKey> keys, Run& run) {
  std::vector<std::optional<TokenView>> views(keys.size());
  look_up_many(keys, true, run, [&](std::size_t i, TokenView view) { views[i] = std::move(view); });
  return views;
}

std::vector<bool> Engine::contains_many(std::span<const CacheKey> keys, Run& run) {
  std::vector<bool> found(keys.size());
  look_up_many(keys, false, run, [&](std::size_t i, const TokenView&) { found[i] = true; });
  return found;
}

TokenView Engine::view_of(const Found& found, std::shared_ptr<const void> owner) {
  const record::Record& record = *found.record;
  const std::size_t length = found.served ? found.served->second : record.ids.size();
  return tokcask::view_of(record.ids.first(length),
                          record.mask.empty() ? record.mask : record.mask.first(length), std::move(owner));
}

Engine::Found Engine::derive(const lmdb::ReadTransaction& transaction, Relatives& relatives,
                             const CacheKey& key, const Options& options, Missing& missing) {
  const std::vector<Relatives::Relative> others = relatives.of(key);
  if (const auto server = options.derive_lengths ? relatives.server_of(key, others) : std::nullopt) {
    Found found = look_up(transaction, server->value, server->key, options.verify);
    if (found.record || found.damage != nullptr) {
      found.served.emplace(server->key, server->length);
      missing.reason = MissReason::kDamaged;
      return found;
    }
  }
  missing = why_missing(transaction, key, others);
  return {};
}

void Engine::look_up_many(std::span<const CacheKey> keys, bool with_tokens, Run& run, const Hit& hit) {
  std::size_t hits = 0;
  std::size_t derived = 0;
  for (const CacheKey& key : keys) run.note(key);
  // In key order, neighbours share pages.
  std::vector<std::size_t> order;
  order.reserve(keys.size());
  for (std::size_t i = 0; i < keys.size(); ++i) {
    // Before the snapshot is taken: what is committed meanwhile is in one of the two.
    if (auto view = pending_view(keys[i], run)) {
      ++hits;
      hit(i, *std::move(view));
    } else {
      order.push_back(i);
    }
  }
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return keys[a] < keys[b]; });

  try {
    const std::shared_ptr<Snapshot> snapshot = order.empty() ? nullptr : this->snapshot();
    std::vector<Found> found(order.size());
    std::map<std::size_t, Missing> missing;  // by index of `found`; of what is damaged nothing
    if (snapshot) {
      const std::lock_guard lock(read_mutex_);
      const lmdb::ReadTransaction& transaction = snapshot->transaction();
      const lmdb::Cursor cursor(transaction, Table::kRecords);
      std::optional<Relatives> relatives;  // made for the first miss
      for (std::size_t i = 0; i < order.size(); ++i) {
        const CacheKey& key = keys[order[i]];
        found[i] = look_up(transaction, cursor.find(record::PaddedKey(key.canonical()).bytes()), key,
                           run.options.verify);
        if (found[i].record || found[i].damage != nullptr) continue;
        if (!relatives) relatives.emplace(transaction, declared_);
        Missing why;
        found[i] = derive(transaction, *relatives, key, run.options, why);
        if (!found[i].record) missing.emplace(i, std::move(why));
      }
    }
    // Who only asks what is there has the records read as well where one is known to be damaged.
    if (with_tokens || access_->damage_known()) check(found, run.options.verify);
    const std::uint64_t stamp = access_->next_stamp();
    run.used(stamp);
    for (std::size_t i = 0; i < order.size(); ++i) {
      const Found& f = found[i];
      const CacheKey& key = keys[order[i]];
      if (f.damage != nullptr) report_damage((f.served ? f.served->first : key).canonical(), f.damage);
      if (!f.record) {
        const auto why = missing.find(i);
        run.missed.add(why == missing.end() ? MissReason::kDamaged : why->second.reason, key,
                       why == missing.end() ? std::string_view() : why->second.other_tokenizer);
        continue;
      }
      if (!run.options.observe) access_->touch(f.record->header.slot, stamp);
      ++hits;
      if (f.served) ++derived;
      hit(order[i], view_of(f, snapshot));
    }
  } catch (const Error& error) {
    report_read_error(error);
  }
  if (hits > 0) run.hits += hits;
  if (derived > 0) run.derived += derived;
  if (hits < keys.size()) run.misses += keys.size() - hits;
}

void Engine::report_damage(std::string_view key, const char* reason) {
  access_->note_damage(true);
  {
    const std::lock_guard lock(message_mutex_);
    if (damage_told_.size() >= kMostDamageTold || !damage_told_.insert(record::hash_key(key)).second) return;
  }
  message(Severity::kWarning,
          fmt::format("{}: the record of {} is damaged ({}); it counts as a miss, and putting it "
                      "again repairs it",
                      root_.string(), key, reason));
}

void Engine::report_read_error(const Error& error) {
  {
    const std::lock_guard lock(message_mutex_);
    if (std::exchange(read_error_told_, true)) return;
  }
  message(Severity::kWarning, fmt::format("{}; what cannot be read counts as a miss", error.what()));
}

// ---- Rows ----

std::optional<std::vector<std::byte>> Engine::meta_row(const MetaKey& key) {
  const std::shared_ptr<Snapshot> snapshot = this->snapshot();
  const std::lock_guard lock(read_mutex_);
  const auto value = snapshot->transaction().get(Table::kMeta, key.bytes());
  if (!value) return std::nullopt;
  return std::vector(value->begin(), value->end());
}

std::optional<SourceDirectory> Engine::source_directory(std::string_view path) {
  {
    const std::lock_guard lock(pending_mutex_);
    for (const Batch* batch : {&active_, &committing_, &moved_}) {
      if (const auto found = batch->directories.find(path); found != batch->directories.end())
        return found->second;
    }
  }
  const auto row = meta_row(MetaKey::of_path(Tag::kDirectory, path));
  return row ? rows::decode_directory(path, *row) : std::nullopt;
}

std::optional<std::string> Engine::tokenizer_of_file(std::string_view path, const FileIdentity& identity) {
  {
    const std::lock_guard lock(pending_mutex_);
    for (const Batch* batch : {&active_, &committing_, &moved_}) {
      const auto found = batch->tokenizer_files.find(path);
      if (found == batch->tokenizer_files.end()) continue;
      return found->second.identity == identity ? std::optional(found->second.sha) : std::nullopt;
    }
  }
  const auto row = meta_row(MetaKey::of_path(Tag::kTokenizerFile, path));
  return row ? rows::decode_tokenizer_file(path, identity, *row) : std::nullopt;
}

Stats Engine::stats(const Run& run) {
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
  {
    const std::lock_guard lock(pending_mutex_);
    for (const Batch* batch : {&active_, &committing_}) {
      stats.entry_count += batch->new_entries;
      stats.total_bytes += batch->new_bytes;
      stats.pending += batch->puts.size();
    }
    if (active_.tokenizer_sha) stats.tokenizer_sha = *active_.tokenizer_sha;
  }
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
  {
    const std::shared_ptr<Snapshot> snapshot = this->snapshot();
    const std::lock_guard lock(read_mutex_);
    for (const rows::RunRow& row : read_runs(snapshot->transaction())) {
      if (!known(row)) runs.push_back(figures_of(row));
    }
  }
  std::stable_sort(runs.begin(), runs.end(),
                   [](const RunFigures& a, const RunFigures& b) { return a.run_id > b.run_id; });
  if (runs.size() > rows::kRunsKept) runs.resize(rows::kRunsKept);
  return runs;
}

}  // namespace tokcask
