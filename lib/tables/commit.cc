#include "tables/commit.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include <tokcask/error.h>

#include "os/clock.h"
#include "record/record.h"
#include "tables/history.h"

namespace tokcask {

using lmdb::Table;
using rows::MetaKey;
using rows::Tag;

namespace {

// What is remembered beside entries.
constexpr Tag kHints[] = {Tag::kDirectory, Tag::kTokenizerFile, Tag::kTraits};

}  // namespace

// ---- Commit ----

Commit::Commit(const lmdb::Environment& environment, TokenizerNames& names)
    : environment_(&environment),
      names_(&names),
      transaction_(environment),
      store_(read_store_row(transaction_)) {
  names_->refresh(transaction_, store_.tokenizer_count, store_.names_epoch);
}

template <typename Rows>
Commit::Chunk<Rows>& Commit::chunk_of(Chunks<Rows>& chunks, Tag tag, std::uint64_t number) {
  auto& chunk = chunks[number];
  if (!chunk) {
    chunk = std::make_unique<Chunk<Rows>>();
    const auto value = transaction_.get(Table::kMeta, MetaKey(tag, number).bytes());
    if (const auto stored = value ? rows::read_row<Rows>(*value) : std::nullopt) chunk->rows = *stored;
  }
  return *chunk;
}

template <typename Rows>
void Commit::write_changed(const Chunks<Rows>& chunks, Tag tag) {
  for (const auto& [number, chunk] : chunks) {
    if (chunk->changed) put_row(MetaKey(tag, number), std::as_bytes(std::span(chunk->rows)));
  }
}

const rows::EntryRow& Commit::entry(std::uint32_t slot) {
  return chunk_of(entries_, Tag::kEntries, slot / rows::kEntriesPerChunk).rows[slot % rows::kEntriesPerChunk];
}

rows::EntryRow& Commit::change_entry(std::uint32_t slot) {
  auto& chunk = chunk_of(entries_, Tag::kEntries, slot / rows::kEntriesPerChunk);
  chunk.changed = true;
  return chunk.rows[slot % rows::kEntriesPerChunk];
}

void Commit::set_stamp(std::uint64_t slot, std::uint64_t stamp) {
  auto& chunk = chunk_of(stamps_, Tag::kAccess, slot / rows::kStampsPerChunk);
  chunk.changed = true;
  chunk.rows[slot % rows::kStampsPerChunk] = stamp;
}

// The slot of the key's entry, or kNoSlot. The record names it; if the record is damaged, the rows are
// searched.
std::uint32_t Commit::find_slot(const CacheKey& key, lmdb::Bytes padded_key, const rows::EntryRow& wanted) {
  const auto value = transaction_.get(Table::kRecords, padded_key);
  if (!value) return rows::kNoSlot;
  const char* reason = nullptr;
  if (const auto old = record::decode(*value, record::hash_key(key.canonical()), &reason)) {
    const std::uint32_t slot = old->header.slot;
    if (slot < store_.slot_count && same_key(entry(slot), wanted)) return slot;
  }
  for (std::uint32_t slot = 0; slot < store_.slot_count; ++slot) {
    if (same_key(entry(slot), wanted)) return slot;
  }
  return rows::kNoSlot;
}

std::uint32_t Commit::take_slot() {
  const std::uint32_t slot = store_.free_slot;
  // A list that was damaged is given up: slots then come from the end.
  if (slot < store_.slot_count && entry(slot).tokenizer == 0) {
    store_.free_slot = static_cast<std::uint32_t>(entry(slot).section);
    return slot;
  }
  store_.free_slot = rows::kNoSlot;
  return store_.slot_count++;
}

void Commit::forget(const rows::EntryRow& row) {
  const std::uint32_t payload = row.payload & ~rows::EntryRow::kLiteral;
  store_.total_bytes -= std::min<std::uint64_t>(store_.total_bytes, row.occupied);
  store_.payload_bytes -= std::min<std::uint64_t>(store_.payload_bytes, payload);
  store_.entry_count -= std::min<std::uint64_t>(store_.entry_count, 1);
  freed_pages_ += row.occupied / environment_->page_bytes();
}

void Commit::count_freed(std::size_t key_bytes, std::size_t value_bytes) {
  freed_pages_ += lmdb::value_pages(key_bytes, value_bytes, environment_->page_bytes());
}

std::uint32_t Commit::put(const CacheKey& key, const Put& put) {
  const record::PaddedKey padded(key.canonical());
  std::uint32_t tokenizer = names_->number(key.tokenizer_sha());
  if (tokenizer == 0) {
    tokenizer = names_->add(key.tokenizer_sha());
    store_.tokenizer_count = tokenizer;
    put_row(MetaKey(Tag::kTokenizer, tokenizer), rows::encode_text(key.tokenizer_sha()));
  }
  rows::EntryRow row = entry_row_of(key, tokenizer);
  std::uint32_t slot = find_slot(key, padded.bytes(), row);
  if (slot != rows::kNoSlot) {
    forget(entry(slot));
  } else {
    slot = take_slot();
    if ((row.payload & rows::EntryRow::kLiteral) != 0) {
      put_row(MetaKey(Tag::kLiteral, slot), rows::encode_text(key.section_id()));
    }
  }
  const std::size_t record_size = record::record_bytes(put.tokens);
  row.generation = store_.next_generation++;
  row.occupied = static_cast<std::uint32_t>(
      occupied_bytes(key.canonical().size(), record_size, environment_->page_bytes()));
  row.payload |= static_cast<std::uint32_t>(record::payload_bytes(put.tokens));

  record::Header header;
  header.slot = slot;
  header.generation = row.generation;
  header.key_hash = record::hash_key(key.canonical());
  header.created_ns = put.created_ns;
  record::encode(header, put.tokens,
                 transaction_.reserve(Table::kRecords, padded.bytes(), record_size).value);

  if (!put.tokens.parts.empty()) store_.format_version = rows::kFormatVersion;
  change_entry(slot) = row;
  set_stamp(slot, put.stamp);
  if (put.dated) store_.dated_puts += 1;
  store_.entry_count += 1;
  store_.total_bytes += row.occupied;
  store_.payload_bytes += record::payload_bytes(put.tokens);
  return slot;
}

std::string Commit::remove(std::uint32_t slot, std::uint64_t generation) {
  if (slot >= store_.slot_count) return {};
  const rows::EntryRow row = entry(slot);
  if (row.tokenizer == 0 || row.generation != generation) return {};
  std::string canonical = canonical_of(transaction_, slot, row, names_->name(row.tokenizer));
  if (canonical.size() <= CacheKey::kMaxCanonicalBytes) {
    erase_raw(Table::kRecords, record::PaddedKey(canonical).bytes());
  }
  if ((row.payload & rows::EntryRow::kLiteral) != 0) erase_row(MetaKey(Tag::kLiteral, slot));
  forget(row);
  rows::EntryRow& freed = change_entry(slot);
  freed = rows::EntryRow{};
  freed.section = store_.free_slot;
  store_.free_slot = slot;
  return canonical;
}

std::uint64_t Commit::erase(std::uint32_t slot, std::uint64_t generation, const Removal& why,
                            std::uint64_t wanted_ns) {
  const std::uint64_t before = store_.total_bytes;
  const std::string canonical = remove(slot, generation);
  if (canonical.empty()) return 0;
  note({record::hash_key(canonical), os::now_ns(), wanted_ns, static_cast<std::uint32_t>(why.run_id),
        why.fate},
       why.ring);
  return std::max<std::uint64_t>(before - store_.total_bytes, 1);
}

std::uint32_t Commit::erase(const CacheKey& key) {
  const record::PaddedKey padded(key.canonical());
  const rows::EntryRow wanted = entry_row_of(key, names_->number(key.tokenizer_sha()));
  const std::uint32_t slot = find_slot(key, padded.bytes(), wanted);
  if (slot != rows::kNoSlot) remove(slot, entry(slot).generation);
  return slot;
}

void Commit::note(const rows::HistoryRow& row, std::uint64_t ring) {
  if (ring == 0) return;
  const std::uint64_t at = store_.history++ % ring;
  store_.history_ring = ring;
  auto& chunk = chunk_of(history_, Tag::kHistory, at / rows::kHistoryPerChunk);
  chunk.changed = true;
  chunk.rows[at % rows::kHistoryPerChunk] = row;
}

void Commit::fold(std::uint64_t chunk, std::span<const std::uint64_t> stamps) {
  const auto& stored = chunk_of(stamps_, Tag::kAccess, chunk).rows;
  for (std::size_t i = 0; i < stamps.size(); ++i) {
    const std::uint64_t slot = chunk * rows::kStampsPerChunk + i;
    const bool newer = stamps[i] > stored[i] || (stamps[i] != 0 && stored[i] - stamps[i] > os::kMostAheadNs);
    if (slot < store_.slot_count && newer) set_stamp(slot, stamps[i]);
  }
}

void Commit::put_row(const MetaKey& key, std::span<const std::byte> value) {
  transaction_.put(Table::kMeta, key.bytes(), value);
}

void Commit::erase_row(const MetaKey& key) { erase_raw(Table::kMeta, key.bytes()); }

void Commit::put_hint(const MetaKey& key, std::span<const std::byte> value) {
  if (const auto old = transaction_.get(Table::kMeta, key.bytes())) {
    store_.hint_bytes -= std::min<std::uint64_t>(store_.hint_bytes, old->size());
    count_freed(key.bytes().size(), old->size());
  }
  store_.hint_bytes += value.size();
  put_row(key, value);
}

// Of the keys that begin with `prefix`.
std::size_t Commit::erase_rows(Table table, lmdb::Bytes prefix, std::size_t most) {
  std::size_t erased = 0;
  for (; erased < most; ++erased) {
    std::vector<std::byte> key;
    {
      const lmdb::Cursor cursor(transaction_, table);
      const auto entry = prefix.empty() ? cursor.first() : cursor.seek(prefix);
      if (!entry || !std::equal(prefix.begin(), prefix.end(), entry->key.begin())) break;
      key.assign(entry->key.begin(), entry->key.end());
      count_freed(key.size(), entry->value.size());
    }
    erase_raw(table, key);
  }
  return erased;
}

std::size_t Commit::forget_hints(std::size_t most) {
  std::size_t erased = 0;
  for (const Tag tag : kHints) {
    const auto prefix = static_cast<std::byte>(tag);
    erased += erase_rows(Table::kMeta, {&prefix, 1}, most - erased);
  }
  if (erased < most) store_.hint_bytes = 0;
  return erased;
}

std::size_t Commit::forget_names(std::size_t most) {
  const auto prefix = static_cast<std::byte>(Tag::kTokenizer);
  const std::size_t erased = erase_rows(Table::kMeta, {&prefix, 1}, most);
  if (erased > 0) {
    store_.tokenizer_count = 0;
    ++store_.names_epoch;
  }
  return erased;
}

std::size_t Commit::erase_unknown(std::size_t most) { return erase_rows(Table::kRecords, {}, most); }

void Commit::finish() {
  store_.commits += 1;
  put_row(MetaKey(Tag::kStore, 0), rows::bytes_of(store_));
  write_changed(history_, Tag::kHistory);
  write_changed(stamps_, Tag::kAccess);
  write_changed(entries_, Tag::kEntries);
}

}  // namespace tokcask
