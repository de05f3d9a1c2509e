// Engine::resolve(): a list of keys in one pass.
#include <algorithm>
#include <numeric>
#include <utility>

#include "cache/engine.h"

namespace tokcask {

using lmdb::Table;
using rows::MetaKey;
using rows::Tag;

namespace {

// A record as the tree names it, before anything of it is read.
struct Located {
  std::uint32_t index;
  bool is_inline;
  lmdb::Bytes value;
};

// In key order, so that neighbours share pages; the order of the list is whatever the caller shuffled it to.
std::vector<Located> locate(const lmdb::ReadTransaction& transaction, const record::KeyList& keys,
                            std::size_t page_bytes) {
  std::vector<Located> located;
  located.reserve(keys.size());
  const lmdb::Cursor cursor(transaction, Table::kRecords);
  std::string canonical;
  for (const std::uint32_t index : keys.in_store_order()) {
    keys.canonical(index, canonical);
    const record::PaddedKey key(canonical);
    if (const auto value = cursor.find(key.bytes())) {
      const bool overflow = lmdb::value_pages(key.bytes().size(), value->size(), page_bytes) > 0;
      located.push_back({index, !overflow, *value});
    }
  }
  return located;
}

}  // namespace

const std::byte* Engine::entry_chunk(const Snapshot& snapshot, std::uint64_t number) {
  const std::lock_guard lock(read_mutex_);
  const auto chunk = snapshot.transaction().get(Table::kMeta, MetaKey(Tag::kEntries, number).bytes());
  return chunk && chunk->size() == sizeof(rows::EntryChunk) ? chunk->data() : nullptr;
}

std::uint32_t Engine::slot_count(const Snapshot& snapshot) {
  const std::lock_guard lock(read_mutex_);
  return read_store_row(snapshot.transaction()).slot_count;
}

Resolution Engine::resolve(const record::KeyList& keys) {
  Resolution resolution;
  resolution.places.resize(keys.size());
  // One of its own: a snapshot that is shared is used under a lock, and this takes a while.
  const lmdb::ReadTransaction transaction(*environment_);
  resolution.txnid = transaction.id();
  std::vector<Located> located = locate(transaction, keys, environment_->page_bytes());

  // The records' headers are read in file order, which a cold disk likes.
  std::sort(located.begin(), located.end(),
            [](const Located& a, const Located& b) { return a.value.data() < b.value.data(); });
  // As many as the store has, whatever a damaged header says.
  std::vector<lmdb::Bytes> chunks(read_store_row(transaction).slot_count / rows::kEntriesPerChunk + 1);
  const std::uint64_t stamp = access_->next_stamp();
  std::string canonical;
  for (const Located& at : located) {
    keys.canonical(at.index, canonical);
    const char* damage = nullptr;
    const auto record = record::decode(at.value, record::hash_key(canonical), &damage);
    if (record) {
      const std::size_t number = record->header.slot / rows::kEntriesPerChunk;
      if (number < chunks.size() && chunks[number].empty()) {
        chunks[number] =
            transaction.get(Table::kMeta, MetaKey(Tag::kEntries, number).bytes()).value_or(lmdb::Bytes());
      }
      if (number >= chunks.size() ||
          !rows::is_current(chunks[number], record->header.slot, record->header.generation)) {
        damage = kNotCurrent;
      }
    }
    if (damage != nullptr) {
      report_damage(canonical, damage);
      continue;
    }
    const record::Header& header = record->header;
    access_->touch(header.slot, stamp);
    // Without a map the offset is not used; see Prepared.
    const auto offset = map_ == nullptr ? 0 : static_cast<std::uint64_t>(at.value.data() - map_);
    const std::uint64_t flags = (at.is_inline ? shm::Place::kInline : 0) |
                                ((header.flags & record::kFlagMask) != 0 ? shm::Place::kMask : 0);
    resolution.places[at.index] = {offset | flags, header.generation, header.length, header.slot};
  }
  return resolution;
}

}  // namespace tokcask
