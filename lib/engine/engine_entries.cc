// Engine::entries() and peek_many(): entries and what is known of them, read without a trace.
#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

#include "engine/engine.h"

namespace tokcask {

using lmdb::Table;
using rows::MetaKey;
using rows::Tag;

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
  info.bytes = occupied_bytes(key.canonical().size(), record.bytes(), environment_->page_bytes());
  return info;
}

EntryChunk Engine::entries(EntryPosition& position, const ChunkLimits& limits) {
  EntryChunk chunk;
  std::vector<std::pair<CacheKey, const char*>> damage;
  {
    const Reading reading = read();
    const lmdb::ReadTransaction& transaction = reading.transaction();
    const lmdb::Cursor& cursor = reading.records();
    const lmdb::Bytes last = std::as_bytes(std::span(position.last_));
    auto entry = last.empty() ? cursor.first() : cursor.seek(last);
    if (entry && !last.empty() && std::ranges::equal(entry->key, last)) entry = cursor.next();
    std::size_t payload = 0;
    for (; entry; entry = cursor.next()) {
      const std::size_t passed = chunk.entries.size() + damage.size();
      if (passed > 0 && (passed >= limits.entries || payload >= limits.payload_bytes)) break;
      position.last_.assign(reinterpret_cast<const char*>(entry->key.data()), entry->key.size());
      payload += entry->value.size();
      const auto key = key_of(entry->key);
      if (!key) {
        ++chunk.damaged;
        continue;
      }
      Found found = look_up(transaction, entry->value, *key);
      check(found);
      if (found.record) {
        chunk.entries.push_back(
            {info_of(transaction, *key, *found.record), view_of(found, reading.snapshot())});
      } else {
        damage.emplace_back(*key, found.damage);
      }
    }
    chunk.end = !entry;
  }
  chunk.damaged += damage.size();
  for (const auto& [key, reason] : damage) report_damage(key.canonical(), reason);
  return chunk;
}

std::vector<std::optional<Entry>> Engine::peek_many(std::span<const CacheKey> keys) {
  std::vector<std::size_t> order(keys.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return keys[a] < keys[b]; });
  std::vector<std::optional<Entry>> entries(keys.size());
  std::vector<std::pair<std::size_t, const char*>> damage;
  {
    const Reading reading = read();
    for (const std::size_t i : order) {
      const auto value = reading.records().find(record::PaddedKey(keys[i].canonical()).bytes());
      Found found = look_up(reading.transaction(), value, keys[i]);
      check(found);
      if (found.damage != nullptr) damage.emplace_back(i, found.damage);
      if (!found.record) continue;
      entries[i].emplace(
          Entry{info_of(reading.transaction(), keys[i], *found.record), view_of(found, reading.snapshot())});
    }
  }
  for (const auto& [i, reason] : damage) report_damage(keys[i].canonical(), reason);
  return entries;
}

}  // namespace tokcask
