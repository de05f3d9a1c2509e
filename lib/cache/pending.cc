#include "cache/pending.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "lmdb/environment.h"

namespace tokcask {

PendingTokens PendingTokens::copy_of(const Tokens& tokens) {
  constexpr std::align_val_t kAlignment{64};
  PendingTokens copy;
  copy.length = tokens.input_ids.size();
  copy.has_mask = std::any_of(tokens.attention_mask.begin(), tokens.attention_mask.end(),
                              [](std::int32_t value) { return value != 1; });
  const std::size_t bytes = std::max<std::size_t>(copy.payload_bytes(), sizeof(std::int32_t));
  std::shared_ptr<std::int32_t[]> data(static_cast<std::int32_t*>(::operator new(bytes, kAlignment)),
                                       [](std::int32_t* p) { ::operator delete(p, kAlignment); });
  std::copy(tokens.input_ids.begin(), tokens.input_ids.end(), data.get());
  if (copy.has_mask) {
    std::copy(tokens.attention_mask.begin(), tokens.attention_mask.end(),
              data.get() + record::mask_offset(copy.length) / sizeof(std::int32_t));
  }
  copy.data = std::move(data);
  return copy;
}

void Batch::add(CacheKey key, PendingPut put, std::size_t page_bytes) {
  const auto existing = puts.find(key);
  if (existing != puts.end()) {
    put.is_new = existing->second.is_new;
    remove(CacheKey(existing->first), page_bytes);
  }
  bytes += put.tokens.record_bytes();
  if (put.dated) ++dated;
  if (put.is_new) {
    ++new_entries;
    new_bytes += occupied_bytes(key.canonical().size(), put.tokens.record_bytes(), page_bytes);
  }
  puts.emplace(std::move(key), std::move(put));
}

void Batch::remove(const CacheKey& key, std::size_t page_bytes) {
  const auto found = puts.find(key);
  if (found == puts.end()) return;
  const PendingPut& put = found->second;
  bytes -= put.tokens.record_bytes();
  if (put.dated) --dated;
  if (put.is_new) {
    --new_entries;
    new_bytes -= occupied_bytes(key.canonical().size(), put.tokens.record_bytes(), page_bytes);
  }
  puts.erase(found);
}

void Batch::absorb(Batch older, std::size_t page_bytes) {
  while (!older.puts.empty()) {
    auto node = older.puts.extract(older.puts.begin());
    if (const auto newer = puts.find(node.key()); newer == puts.end()) {
      add(std::move(node.key()), std::move(node.mapped()), page_bytes);
    }
  }
  directories.merge(older.directories);
  tokenizer_files.merge(older.tokenizer_files);
  traits.merge(older.traits);
  if (!tokenizer_sha) tokenizer_sha = std::move(older.tokenizer_sha);
}

std::uint64_t occupied_bytes(std::size_t canonical_bytes, std::size_t record_bytes,
                             std::size_t page_bytes) noexcept {
  // A node is its 8-byte header, the key, the value or a page number of 8 bytes, and a 2-byte offset.
  const std::size_t key = record::round_up(canonical_bytes, 8);
  const std::uint64_t pages = lmdb::value_pages(key, record_bytes, page_bytes);
  return pages > 0 ? pages * page_bytes + 8 + key + 8 + 2 : 8 + key + record_bytes + 2;
}

}  // namespace tokcask
