// Engine::resolve(): a list of keys in one pass.
#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

#include "engine/engine.h"

namespace tokcask {

using lmdb::Table;
using rows::MetaKey;
using rows::Tag;

namespace {

// A generation that no record has: the place of an item that is there and cannot be read by place.
constexpr std::uint64_t kByKey = ~std::uint64_t{0};

// A record as the tree names it, before anything of it is read.
struct Located {
  static constexpr std::uint32_t kExact = 0xffffffff;
  std::uint32_t index;
  std::uint32_t server;  // index of the server whose record it is, or kExact
  bool is_inline;
  lmdb::Bytes value;
};

struct Location {
  std::vector<Located> located;
  std::vector<SectionEntries::Server> servers;
};

// In key order, so that neighbours share pages; the order of the list is whatever the caller shuffled it to.
Location locate(const lmdb::ReadTransaction& transaction, const record::KeyList& keys,
                SectionEntries* section, std::size_t page_bytes) {
  Location location;
  location.located.reserve(keys.size());
  const lmdb::Cursor cursor(transaction, Table::kRecords);
  std::string canonical;
  const auto add = [&](std::uint32_t index, std::uint32_t server, std::size_t key_bytes, lmdb::Bytes value) {
    const bool overflow = lmdb::value_pages(key_bytes, value.size(), page_bytes) > 0;
    location.located.push_back({index, server, !overflow, value});
  };
  for (const std::uint32_t index : keys.in_store_order()) {
    keys.canonical(index, canonical);
    if (canonical.empty()) continue;
    const record::PaddedKey padded(canonical);
    if (const auto value = cursor.find(padded.bytes())) {
      add(index, Located::kExact, padded.bytes().size(), *value);
      continue;
    }
    const auto key = section == nullptr ? std::nullopt : key_of(std::as_bytes(std::span(canonical)));
    if (auto server = key ? section->server_of(*key, section->of(*key)) : std::nullopt) {
      const std::size_t key_bytes = record::round_up(server->key.canonical().size(), 8);
      add(index, static_cast<std::uint32_t>(location.servers.size()), key_bytes, server->value);
      location.servers.push_back(*std::move(server));
    }
  }
  return location;
}

}  // namespace

std::optional<std::size_t> Engine::serves(const lmdb::ReadTransaction& transaction, const CacheKey& key,
                                          std::uint32_t stored_len, std::size_t length) {
  const auto stored = static_cast<std::int32_t>(stored_len);
  if (stored == key.sequence_len()) return std::nullopt;
  const TokenizerTraits traits = SectionEntries(transaction, declared()).traits_of(key.tokenizer_sha());
  return tokcask::serves(traits, stored, length, key.sequence_len());
}

Resolution Engine::resolve(const record::KeyList& keys, bool derive_lengths) {
  Resolution resolution;
  resolution.places.resize(keys.size());
  // One of its own: this takes a while, and other calls of this thread's place shall not wait.
  const lmdb::ReadTransaction transaction(*environment_);
  resolution.txnid = transaction.id();
  resolution.data_mtime_ns = environment_->modified_ns();
  std::optional<SectionEntries> section;
  if (derive_lengths) section.emplace(transaction, declared());
  Location location = locate(transaction, keys, section ? &*section : nullptr, environment_->page_bytes());
  std::vector<Located>& located = location.located;

  // The records' headers are read in file order, which a cold disk likes.
  std::sort(located.begin(), located.end(),
            [](const Located& a, const Located& b) { return a.value.data() < b.value.data(); });
  // As many as the store has, whatever a damaged header says.
  std::vector<lmdb::Bytes> chunks(read_store_row(transaction).slot_count / rows::kEntriesPerChunk + 1);
  const std::uint64_t stamp = access_->next_stamp();
  std::string canonical;
  for (const Located& at : located) {
    const SectionEntries::Server* const server =
        at.server == Located::kExact ? nullptr : &location.servers[at.server];
    if (server == nullptr) {
      keys.canonical(at.index, canonical);
    } else {
      canonical = server->key.canonical();
    }
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
    const auto length = static_cast<std::uint32_t>(server != nullptr ? server->length : header.length);
    // Rare: the mask's place goes by the whole record's length, so it is looked up by its key each time.
    if (server != nullptr && !record->mask.empty()) {
      resolution.places[at.index] = {shm::Place::kDerived, kByKey, length, 0};
      continue;
    }
    // Without a map the offset is not used; see Prepared.
    const auto offset = environment_->map() == nullptr
                            ? 0
                            : static_cast<std::uint64_t>(at.value.data() - environment_->map());
    const std::uint64_t flags = (at.is_inline ? shm::Place::kInline : 0) |
                                ((header.flags & record::kFlagMask) != 0 ? shm::Place::kMask : 0) |
                                (record->parts.empty() ? 0 : shm::Place::kParts) |
                                (server != nullptr ? shm::Place::kDerived : 0);
    resolution.places[at.index] = {offset | flags, header.generation, length, header.slot};
  }
  return resolution;
}

void Engine::protect(std::span<const shm::Place> places) noexcept {
  const std::uint64_t stamp = access_->next_stamp();
  for (const shm::Place& place : places) {
    if (place.known()) access_->touch(place.slot, stamp);
  }
}

}  // namespace tokcask
