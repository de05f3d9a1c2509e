#include "engine/prepared.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "os/file_limit.h"
#include "tables/section_entries.h"

namespace tokcask {

namespace {

// Fewer look-ups by key than this are never worth a new table.
constexpr std::uint64_t kFewLookUps = 4096;
constexpr std::uint64_t kShareByKey = 4;  // one in so many

// Of a place that was checked; never 0. Places lie in memory that others can write to, and one that has
// changed since is checked again. One that changed in more than a bit is taken for the same once in 32,768
// times.
std::uint16_t fingerprint(const shm::Place& place) {
  const std::uint64_t size = place.length | std::uint64_t{place.slot} << 32;
  const std::uint64_t mixed = place.offset_and_flags * 0x9e3779b97f4a7c15U +
                              place.generation * 0xc2b2ae3d27d4eb4fU + size * 0x165667b19e3779f9U;
  return static_cast<std::uint16_t>(mixed >> 48 | 1U);
}

// More look-ups by key than this are worth a new table of so many items.
std::uint64_t worth_a_table(std::size_t items) { return std::max(kFewLookUps, items / kShareByKey); }

// What tables that are not in use may take on the disk, for the next run: beside a store of short texts one
// of all its keys takes a tenth of data.mdb, usually a hundredth.
std::uint64_t keep_bytes(const Engine& engine) { return engine.environment().file_bytes() / 8; }

}  // namespace

struct Prepared::Epoch {
  std::shared_ptr<const Table> table;
  shm::Uuid file{};  // transactions are a file's
  std::uint64_t txnid = 0;
  bool of_file = false;  // the table is of this file, too
  bool exact = false;    // the table is of this very transaction
  bool usable = false;   // the table is of this file, and not of a later transaction
  std::uint64_t file_bytes = 0;
  // The entry rows of each chunk of slots in this transaction; null: not looked for yet.
  mutable std::vector<std::atomic<const std::byte*>> chunks;
};

Prepared::Table::Table(std::unique_ptr<const shm::KeyTable> shared, const record::KeyList& keys)
    : shared_(std::move(shared)), keys_(keys), checked_(shared_->places().size()) {}

std::shared_ptr<const Prepared::Table> Prepared::attach(const Engine& engine, const record::KeyList& keys) {
  auto shared = shm::KeyTable::attach(engine.root(), engine.file_uuid(), keys.bytes(), keep_bytes(engine));
  // Its checksum was right a moment ago.
  const auto own = shared ? record::KeyList::of(shared->keys()) : std::nullopt;
  if (!own || own->size() != keys.size() || shared->places().size() != keys.size()) return nullptr;
  return std::make_shared<const Table>(std::move(shared), *own);
}

std::shared_ptr<const Prepared::Table> Prepared::publish(Engine& engine, const Resolution& made,
                                                         const record::KeyList& keys) {
  const WithoutFileLimitSignal quiet;
  auto shared = shm::KeyTable::publish(engine.root(), {engine.file_uuid(), made.txnid, made.data_mtime_ns,
                                                       made.places, keys.bytes(), keep_bytes(engine)});
  if (!shared->why_private().empty()) {
    engine.message(Severity::kInfo,
                   fmt::format("{}: cannot share a table of keys with processes that are not "
                               "forked, so each makes its own: {}",
                               engine.root().string(), shared->why_private()));
  }
  const auto own = record::KeyList::of(shared->keys());
  if (!own || own->size() != keys.size()) {
    throw Error(Errc::kDamaged,
                fmt::format("{}: a table of keys was damaged while it was made", engine.root().string()));
  }
  return std::make_shared<const Table>(std::move(shared), *own);
}

Prepared::Prepared(std::shared_ptr<const Table> table) : newest_(table.get()), table_(std::move(table)) {}

std::shared_ptr<const Prepared::Table> Prepared::table() const {
  const std::lock_guard lock(mutex_);
  return table_;
}

std::shared_ptr<const Prepared::Epoch> Prepared::epoch_of(Engine& engine,
                                                          const lmdb::ReadTransaction& transaction) {
  const std::uint64_t txnid = transaction.id();
  const std::lock_guard lock(mutex_);
  if (!epoch_ || epoch_->txnid != txnid || epoch_->table != table_ || epoch_->file != engine.file_uuid()) {
    auto epoch = std::make_shared<Epoch>();
    epoch->table = table_;
    epoch->file = engine.file_uuid();
    epoch->txnid = txnid;
    const std::uint64_t made = table_->shared().txnid();
    epoch->of_file = table_->shared().store() == engine.file_uuid();
    // A table of an earlier run: of this transaction too only if nothing was written to the file since, be it
    // by somebody who put an older copy of it in its place.
    epoch->exact = epoch->of_file && made == txnid &&
                   table_->shared().data_mtime_ns() == engine.environment().modified_ns();
    epoch->usable = epoch->of_file && made <= txnid && engine.environment().map() != nullptr;
    epoch->file_bytes = engine.environment().file_bytes();
    if (epoch->usable && !epoch->exact) {
      epoch->chunks = std::vector<std::atomic<const std::byte*>>(
          read_store_row(transaction).slot_count / rows::kEntriesPerChunk + 1);
    }
    epoch_ = std::move(epoch);
  }
  return epoch_;
}

bool Prepared::is_current(const lmdb::ReadTransaction& transaction, const Epoch& epoch,
                          const record::Header& header) {
  const std::size_t number = header.slot / rows::kEntriesPerChunk;
  if (number >= epoch.chunks.size()) return false;
  std::atomic<const std::byte*>& known = epoch.chunks[number];
  const std::byte* chunk = known.load(std::memory_order_relaxed);
  if (chunk == nullptr) {
    const auto value =
        transaction.get(lmdb::Table::kMeta, rows::MetaKey(rows::Tag::kEntries, number).bytes());
    if (!value || value->size() != sizeof(rows::EntryChunk)) return false;
    chunk = value->data();
    known.store(chunk, std::memory_order_relaxed);
  }
  return rows::is_current({chunk, sizeof(rows::EntryChunk)}, header.slot, header.generation);
}

// The record of an item where the table has it, if it is there and may be served.
std::optional<record::Record> Prepared::at_place(Engine& engine, const lmdb::ReadTransaction& transaction,
                                                 const Epoch& epoch, std::size_t index, VerifyPolicy policy) {
  const Table& table = *epoch.table;
  const shm::Place place = table.shared().places()[index];
  if (!epoch.usable || !place.known() || (place.is_inline() && !epoch.exact)) return std::nullopt;
  // A derived item's record is longer than what is served of it, and its own header says how long.
  const bool derived = place.is_derived();
  const std::size_t wanted = record::record_bytes(place.length, place.has_mask());
  if (place.length > record::kMaxTokens || place.offset() >= epoch.file_bytes ||
      wanted > epoch.file_bytes - place.offset() || (derived && place.has_mask())) {
    return std::nullopt;
  }
  const std::size_t size = derived || place.has_parts() ? epoch.file_bytes - place.offset() : wanted;
  const std::byte* const bytes = engine.environment().map() + place.offset();
  std::atomic<std::uint16_t>& checked = table.checked_[index];
  const std::uint16_t print = fingerprint(place);
  const bool known = checked.load(std::memory_order_relaxed) == print;
  if (known && epoch.exact && !place.has_parts() && policy != VerifyPolicy::kAlways) {
    // It was found there, in this very transaction: nothing of it has to be read again.
    record::Header header;
    header.flags = place.has_mask() ? record::kFlagMask : std::uint16_t{0};
    header.length = place.length;
    header.slot = place.slot;
    header.generation = place.generation;
    return record::assume(header, bytes);
  }
  // Pages that were reused since may be written to right now. What is read of them is compared, then refused.
  const char* reason = nullptr;
  auto record = record::decode_prefix({bytes, size}, &reason);
  if (!record || record->header.generation != place.generation || record->ids.size() < place.length ||
      (record->ids.size() > place.length && !derived) || record->mask.empty() == place.has_mask() ||
      record->parts.empty() == place.has_parts() || record->header.slot != place.slot) {
    return std::nullopt;
  }
  if (!epoch.exact && !is_current(transaction, epoch, record->header)) return std::nullopt;
  if (!known || policy == VerifyPolicy::kAlways) {
    if (!is_of_item(engine, transaction, table, index, *record) ||
        (policy != VerifyPolicy::kOff && !record::checksum_ok(*record))) {
      return std::nullopt;
    }
    checked.store(print, std::memory_order_relaxed);
  }
  record->ids = record->ids.first(place.length);
  return record;
}

namespace {

// The row of one slot, or nothing when it is damaged or not there.
std::optional<rows::EntryRow> entry_row_at(const lmdb::ReadTransaction& transaction, std::uint32_t slot) {
  const auto value = transaction.get(
      lmdb::Table::kMeta, rows::MetaKey(rows::Tag::kEntries, slot / rows::kEntriesPerChunk).bytes());
  const auto chunk = value ? rows::read_row<rows::EntryChunk>(*value) : std::nullopt;
  return chunk ? std::optional((*chunk)[slot % rows::kEntriesPerChunk]) : std::nullopt;
}

}  // namespace

// Whether the record is that of the item's key, or of the same section and tokenizer at another length.
bool Prepared::is_of_item(Engine& engine, const lmdb::ReadTransaction& transaction, const Table& table,
                          std::size_t index, const record::Record& record) {
  std::string canonical = table.keys().canonical(index);
  const shm::Place& place = table.shared().places()[index];
  if (place.is_derived()) {
    const auto row = entry_row_at(transaction, record.header.slot);
    const CacheKey key = CacheKey::parse(canonical);
    if (!row || engine.serves(transaction, key, row->sequence_len, record.ids.size()) != place.length)
      return false;
    canonical.resize(canonical.rfind('|') + 1);
    canonical += std::to_string(row->sequence_len);
  }
  return record.header.key_hash == record::hash_key(canonical);
}

// Most of what an item costs is waiting for memory: its place, then its header, its first ids and its stamp.
// These waits can overlap.
void Prepared::fetch_ahead(Engine& engine, const Epoch& epoch, std::span<const std::size_t> indices) {
  if (!epoch.usable) return;
  const std::span<const shm::Place> places = epoch.table->shared().places();
  for (const std::size_t index : indices) {
    __builtin_prefetch(&places[index]);
    __builtin_prefetch(&epoch.table->checked_[index]);
  }
  for (const std::size_t index : indices) {
    const shm::Place& place = places[index];
    if (place.offset() < epoch.file_bytes) {
      const std::byte* const record = engine.environment().map() + place.offset();
      __builtin_prefetch(record);
      __builtin_prefetch(record + sizeof(record::Header));
    }
    engine.access().fetch_ahead(place.slot);
  }
}

void Prepared::look_up(Engine& engine, Session& session, std::span<const std::size_t> indices,
                       std::span<std::optional<TokenView>> views) {
  std::vector<std::size_t> rest;  // positions
  std::shared_ptr<const Epoch> epoch;
  try {
    const Reading reading = engine.read();
    epoch = epoch_of(engine, reading.transaction());
    fetch_ahead(engine, *epoch, indices);
    const std::uint64_t stamp = engine.access_stamp();
    session.used(stamp);
    const std::span<const shm::Place> places = epoch->table->shared().places();
    std::uint64_t derived = 0;
    for (std::size_t i = 0; i < indices.size(); ++i) {
      const bool is_derived = places[indices[i]].is_derived();
      const bool usable = !is_derived || session.options.derive_lengths;
      const auto record =
          usable ? at_place(engine, reading.transaction(), *epoch, indices[i], session.options.verify)
                 : std::nullopt;
      if (!record) {
        rest.push_back(i);
        continue;
      }
      if (!session.options.observe) engine.access().touch(record->header.slot, stamp);
      if (is_derived) ++derived;
      views[i] = view_of(record->tokens(), reading.snapshot());
    }
    if (rest.size() < indices.size()) session.hits += indices.size() - rest.size();
    if (derived > 0) session.derived += derived;
  } catch (const Error&) {
    // The way by key says what is wrong, once.
    rest.resize(indices.size());
    std::iota(rest.begin(), rest.end(), std::size_t{0});
  }
  if (rest.empty()) return;

  const std::shared_ptr<const Table> table = epoch ? epoch->table : this->table();
  std::vector<CacheKey> keys;
  keys.reserve(rest.size());
  std::string canonical;
  const std::size_t unreadable = std::erase_if(rest, [&](std::size_t i) {
    table->keys().canonical(indices[i], canonical);
    auto key = key_of(std::as_bytes(std::span(canonical)));
    if (key) keys.push_back(*std::move(key));
    return !key;
  });
  if (unreadable > 0) {
    session.misses += unreadable;
    report_damage(engine, *table);
  }
  std::uint64_t found = 0;
  auto by_keys = engine.get_many(keys, session);
  for (std::size_t k = 0; k < rest.size(); ++k) {
    if (by_keys[k]) ++found;
    views[rest[k]] = std::move(by_keys[k]);
  }
  const std::uint64_t by_key = table->by_key_.fetch_add(found, std::memory_order_relaxed) + found;
  // One of a file that was replaced is good for nothing any more.
  const bool worthless = found > 0 && epoch && !epoch->of_file;
  if (worthless || by_key > worth_a_table(table->size())) renew_table(engine, session.options.derive_lengths);
}

void Prepared::report_damage(Engine& engine, const Table& table) {
  if (table.damage_told_.exchange(true)) return;
  engine.message(
      Severity::kWarning,
      fmt::format("{}: a table of keys was damaged in shared memory; items whose keys it does not give "
                  "any more count as misses until the data set is opened again",
                  engine.root().string()));
}

void Prepared::renew_table(Engine& engine, bool derive_lengths) {
  const std::unique_lock renewing(renewing_, std::try_to_lock);
  if (!renewing) return;  // another thread is at it
  const std::shared_ptr<const Table> old = table();
  const bool of_file = old->shared().store() == engine.file_uuid();
  if (of_file && old->by_key_ <= worth_a_table(old->size())) return;
  old->by_key_ = 0;  // whatever comes now, not at once again
  auto fresh = attach(engine, old->keys());
  if (!fresh || (of_file && fresh->shared().txnid() <= old->shared().txnid())) {
    try {
      fresh = publish(engine, engine.resolve(old->keys(), derive_lengths), old->keys());
    } catch (const Error&) {
      return;  // the old one still serves; a look-up by key says what is wrong
    }
  }
  const std::lock_guard lock(mutex_);
  newest_.store(fresh.get(), std::memory_order_release);
  table_ = std::move(fresh);
}

}  // namespace tokcask
