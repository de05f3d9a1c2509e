// Engine::keys(), entries(), peek_many() and source_directories(): what is committed and what is known of it,
// read without a trace.
#include <algorithm>
#include <numeric>
#include <utility>

#include "cache/engine.h"

namespace tokcask {

using lmdb::Table;
using rows::MetaKey;
using rows::Tag;

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

EntryInfo Engine::info_of(const lmdb::ReadTransaction& transaction, const CacheKey& key,
                          const record::Record& record) const {
  const record::Header& header = record.header;
  const auto value =
      transaction.get(Table::kMeta, MetaKey(Tag::kAccess, header.slot / rows::kStampsPerChunk).bytes());
  std::uint64_t stored = 0;
  if (value && value->size() == sizeof(rows::StampChunk)) {
    std::memcpy(&stored, value->data() + header.slot % rows::kStampsPerChunk * sizeof stored, sizeof stored);
  }
  EntryInfo info{key};
  info.tokens = header.length;
  info.created_ns = header.created_ns;
  info.last_access_ns = std::max(stored, access_->stamp(header.slot));
  info.bytes =
      occupied_bytes(key.canonical().size(), record::record_bytes(header.length, !record.mask.empty()),
                     environment_->page_bytes());
  return info;
}

EntryChunk Engine::entries(EntryPosition& position, const ChunkLimits& limits) {
  EntryChunk chunk;
  const std::shared_ptr<Snapshot> snapshot = this->snapshot();
  std::vector<Found> found;
  std::vector<EntryInfo> infos;
  {
    const std::lock_guard lock(read_mutex_);
    const lmdb::ReadTransaction& transaction = snapshot->transaction();
    const lmdb::Cursor cursor(transaction, Table::kRecords);
    const lmdb::Bytes last = std::as_bytes(std::span(position.last_));
    auto entry = last.empty() ? cursor.first() : cursor.seek(last);
    if (entry && !last.empty() && std::ranges::equal(entry->key, last)) entry = cursor.next();
    std::size_t payload = 0;
    for (; entry; entry = cursor.next()) {
      if (!found.empty() && (found.size() >= limits.entries || payload >= limits.payload_bytes)) break;
      position.last_.assign(reinterpret_cast<const char*>(entry->key.data()), entry->key.size());
      payload += entry->value.size();
      const auto key = key_of(entry->key);
      if (!key) {
        ++chunk.damaged;
        continue;
      }
      Found f = look_up(transaction, entry->value, *key);
      infos.push_back(f.record ? info_of(transaction, *key, *f.record) : EntryInfo{*key});
      found.push_back(std::move(f));
    }
    chunk.end = !entry;
  }
  check(found);
  for (std::size_t i = 0; i < found.size(); ++i) {
    const Found& f = found[i];
    if (f.record) {
      chunk.entries.push_back(
          {std::move(infos[i]), tokcask::view_of(f.record->ids, f.record->mask, snapshot)});
    } else {
      ++chunk.damaged;
      report_damage(infos[i].key.canonical(), f.damage);
    }
  }
  return chunk;
}

std::vector<std::optional<Entry>> Engine::peek_many(std::span<const CacheKey> keys) {
  std::vector<std::size_t> order(keys.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return keys[a] < keys[b]; });
  const std::shared_ptr<Snapshot> snapshot = this->snapshot();
  std::vector<Found> found(keys.size());
  std::vector<std::optional<EntryInfo>> infos(keys.size());
  {
    const std::lock_guard lock(read_mutex_);
    const lmdb::ReadTransaction& transaction = snapshot->transaction();
    const lmdb::Cursor cursor(transaction, Table::kRecords);
    for (const std::size_t i : order) {
      found[i] = look_up(transaction, cursor.find(record::PaddedKey(keys[i].canonical()).bytes()), keys[i]);
      if (found[i].record) infos[i] = info_of(transaction, keys[i], *found[i].record);
    }
  }
  check(found);
  std::vector<std::optional<Entry>> entries(keys.size());
  for (std::size_t i = 0; i < keys.size(); ++i) {
    if (found[i].damage != nullptr) report_damage(keys[i].canonical(), found[i].damage);
    if (!found[i].record) continue;
    entries[i].emplace(
        Entry{*std::move(infos[i]), tokcask::view_of(found[i].record->ids, found[i].record->mask, snapshot)});
  }
  return entries;
}

}  // namespace tokcask
