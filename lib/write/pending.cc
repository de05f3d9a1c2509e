#include "write/pending.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <new>

#include <tokcask/error.h>

#include "lmdb/environment.h"

namespace tokcask {

PendingTokens PendingTokens::copy_of(const Tokens& given) {
  Tokens tokens = given;
  if (std::ranges::all_of(tokens.attention_mask, [](std::int32_t value) { return value == 1; }))
    tokens.attention_mask = {};
  const std::size_t bytes = record::payload_bytes(tokens);
  if (bytes > record::kMaxPayloadBytes) {
    throw Error(Errc::kInvalidArgument,
                fmt::format("{} tokens with their mask and parts are {} bytes; an entry holds at most {}",
                            tokens.input_ids.size(), bytes, record::kMaxPayloadBytes));
  }
  constexpr std::align_val_t kAlignment{64};
  const std::shared_ptr<std::byte[]> data(
      static_cast<std::byte*>(::operator new(std::max<std::size_t>(bytes, 1), kAlignment)),
      [](std::byte* p) { ::operator delete(p, kAlignment); });
  record::write_payload(tokens, {data.get(), bytes});
  return {data, record::payload_at(tokens, data.get())};
}

void Batch::count(const CacheKey& key, const PendingPut& put, std::size_t page_bytes, bool there) noexcept {
  // Unsigned numbers wrap around, so adding what is one less than nothing takes one away.
  const std::uint64_t sign = there ? 1 : ~std::uint64_t{0};
  const std::size_t size = put.tokens.record_bytes();
  bytes += sign * size;
  if (put.dated) dated += sign;
  if (!put.is_new.value_or(false)) return;
  new_entries += sign;
  new_bytes += sign * occupied_bytes(key.canonical().size(), size, page_bytes);
}

void Batch::add(CacheKey key, PendingPut put, std::size_t page_bytes) {
  if (const auto existing = puts.find(key); existing != puts.end()) {
    put.is_new = existing->second.is_new;
    count(key, existing->second, page_bytes, false);
    existing->second = std::move(put);
    count(key, existing->second, page_bytes, true);
    return;
  }
  not_asked_.reserve(not_asked_.size() + 1);
  const auto added = puts.emplace(std::move(key), std::move(put)).first;
  not_asked_.push_back(&*added);
  count(added->first, added->second, page_bytes, true);
}

void Batch::find_new(std::size_t page_bytes, const std::function<bool(const CacheKey&)>& is_new) {
  for (auto* const item : not_asked_) {
    auto& [key, put] = *item;
    count(key, put, page_bytes, false);
    put.is_new = is_new(key);
    count(key, put, page_bytes, true);
  }
  not_asked_.clear();
}

void Batch::remove(const CacheKey& key, std::size_t page_bytes) {
  const auto found = puts.find(key);
  if (found == puts.end()) return;
  count(key, found->second, page_bytes, false);
  std::erase(not_asked_, &*found);
  puts.erase(found);
}

void Batch::absorb(Batch& older, std::size_t page_bytes) {
  if (empty()) {
    std::swap(*this, older);
    return;
  }
  // What may throw comes first: nodes that change hands need no memory.
  puts.reserve(puts.size() + older.puts.size());
  not_asked_.reserve(puts.size() + older.puts.size());
  while (!older.puts.empty()) {
    const auto inserted = puts.insert(older.puts.extract(older.puts.begin()));
    if (!inserted.inserted) continue;
    count(inserted.position->first, inserted.position->second, page_bytes, true);
    if (!inserted.position->second.is_new) not_asked_.push_back(&*inserted.position);
  }
  directories.merge(older.directories);
  tokenizer_files.merge(older.tokenizer_files);
  traits.merge(older.traits);
  if (!tokenizer_sha) tokenizer_sha = std::move(older.tokenizer_sha);
  older = Batch{};
}

}  // namespace tokcask
