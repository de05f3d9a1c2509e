#include "tables/read.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include <tokcask/error.h>

#include "record/record.h"
#include "tables/history.h"

namespace tokcask {

using lmdb::Table;
using rows::MetaKey;
using rows::Tag;

// ---- TokenizerNames ----

template <typename Transaction>
void TokenizerNames::refresh(const Transaction& transaction, std::uint32_t count, std::uint64_t epoch) {
  if (std::exchange(epoch_, epoch) != epoch) {
    names_.clear();
    numbers_.clear();
  }
  while (names_.size() > count) {
    numbers_.erase(names_.back());
    names_.pop_back();
  }
  while (names_.size() < count) {
    const auto value = transaction.get(Table::kMeta, MetaKey(Tag::kTokenizer, names_.size() + 1).bytes());
    // A lost row leaves a name that no key has.
    add(value ? rows::decode_text(*value) : std::string_view());
  }
}

std::uint32_t TokenizerNames::number(std::string_view sha) const {
  const auto found = numbers_.find(sha);
  return found == numbers_.end() ? 0 : found->second;
}

std::string_view TokenizerNames::name(std::uint32_t number) const {
  return number == 0 || number > names_.size() ? std::string_view() : std::string_view(names_[number - 1]);
}

std::uint32_t TokenizerNames::add(std::string_view sha) {
  // What may throw comes first: the two must never disagree.
  std::string name(sha);
  names_.reserve(names_.size() + 1);
  const auto number = static_cast<std::uint32_t>(names_.size() + 1);
  numbers_.emplace(name, number);
  names_.push_back(std::move(name));
  return number;
}

template void TokenizerNames::refresh(const lmdb::ReadTransaction&, std::uint32_t, std::uint64_t);
template void TokenizerNames::refresh(const lmdb::WriteTransaction&, std::uint32_t, std::uint64_t);

// ---- Rows ----

template <typename Transaction>
rows::StoreRow read_store_row(const Transaction& transaction) {
  const auto value = transaction.get(Table::kMeta, MetaKey(Tag::kStore, 0).bytes());
  auto row = value ? rows::read_row<rows::StoreRow>(*value) : std::nullopt;
  if (!row || std::memcmp(row->magic, rows::kStoreMagic, sizeof rows::kStoreMagic) != 0) {
    throw Error(Errc::kDamaged, "has no store row, so it is not a tokcask store or is damaged");
  }
  if (!rows::is_known_format(row->format_version)) {
    throw Error(Errc::kDamaged, fmt::format("has format version {}, and this program reads versions up to {}",
                                            row->format_version, rows::kFormatVersion));
  }
  // Counts that a damaged disk changed must not be counted to: each chunk, and each name, is a row.
  const std::uint64_t there = transaction.stat(Table::kMeta).entries;
  row->slot_count =
      static_cast<std::uint32_t>(std::min<std::uint64_t>(row->slot_count, there * rows::kEntriesPerChunk));
  row->tokenizer_count = static_cast<std::uint32_t>(std::min<std::uint64_t>(row->tokenizer_count, there));
  row->history_ring = std::min(row->history_ring, kMostHistory);
  return *row;
}

template rows::StoreRow read_store_row(const lmdb::ReadTransaction&);
template rows::StoreRow read_store_row(const lmdb::WriteTransaction&);

template <typename Transaction>
std::string section_of(const Transaction& transaction, std::uint32_t slot, const rows::EntryRow& row) {
  if ((row.payload & rows::EntryRow::kLiteral) == 0) return rows::unpack_section(row.section);
  const auto value = transaction.get(Table::kMeta, MetaKey(Tag::kLiteral, slot).bytes());
  return value ? std::string(rows::decode_text(*value)) : std::string();
}

template std::string section_of(const lmdb::ReadTransaction&, std::uint32_t, const rows::EntryRow&);
template std::string section_of(const lmdb::WriteTransaction&, std::uint32_t, const rows::EntryRow&);

template <typename Transaction>
std::string canonical_of(const Transaction& transaction, std::uint32_t slot, const rows::EntryRow& row,
                         std::string_view sha) {
  return fmt::format("{}|{}|{}", section_of(transaction, slot, row), sha, row.sequence_len);
}

template std::string canonical_of(const lmdb::ReadTransaction&, std::uint32_t, const rows::EntryRow&,
                                  std::string_view);
template std::string canonical_of(const lmdb::WriteTransaction&, std::uint32_t, const rows::EntryRow&,
                                  std::string_view);

std::uint64_t created_ns(const lmdb::ReadTransaction& transaction, std::uint32_t slot,
                         const rows::EntryRow& row, std::string_view sha) {
  const std::string canonical = canonical_of(transaction, slot, row, sha);
  if (canonical.size() > CacheKey::kMaxCanonicalBytes) return 0;
  const auto value = transaction.get(Table::kRecords, record::PaddedKey(canonical).bytes());
  const char* reason = nullptr;
  const auto record = value ? record::decode_prefix(*value, &reason) : std::nullopt;
  return record && record->header.generation == row.generation ? record->header.created_ns : 0;
}

std::vector<rows::RunRow> read_runs(const lmdb::ReadTransaction& transaction) {
  std::vector<rows::RunRow> runs;
  const lmdb::Cursor cursor(transaction, Table::kMeta);
  const auto tag = static_cast<std::byte>(Tag::kRun);
  for (auto entry = cursor.seek({&tag, 1}); entry && entry->key[0] == tag; entry = cursor.next()) {
    if (const auto row = rows::read_row<rows::RunRow>(entry->value)) runs.push_back(*row);
  }
  return runs;
}

rows::EntryRow entry_row_of(const CacheKey& key, std::uint32_t tokenizer) {
  rows::EntryRow row;
  if (const auto packed = rows::pack_section(key.section_id())) {
    row.section = *packed;
  } else {
    row.section = record::hash_key(key.section_id());
    row.payload = rows::EntryRow::kLiteral;
  }
  row.tokenizer = tokenizer;
  row.sequence_len = static_cast<std::uint32_t>(key.sequence_len());
  return row;
}

bool same_key(const rows::EntryRow& a, const rows::EntryRow& b) noexcept {
  return a.section == b.section && a.tokenizer == b.tokenizer && a.sequence_len == b.sequence_len &&
         ((a.payload ^ b.payload) & rows::EntryRow::kLiteral) == 0;
}

std::uint64_t occupied_bytes(std::size_t canonical_bytes, std::size_t record_bytes,
                             std::size_t page_bytes) noexcept {
  // A node is its 8-byte header, the key, the value or a page number of 8 bytes, and a 2-byte offset.
  const std::size_t key = record::round_up(canonical_bytes, 8);
  const std::uint64_t pages = lmdb::value_pages(key, record_bytes, page_bytes);
  return pages > 0 ? pages * page_bytes + 8 + key + 8 + 2 : 8 + key + record_bytes + 2;
}

}  // namespace tokcask
