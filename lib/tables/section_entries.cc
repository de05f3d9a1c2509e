#include "tables/section_entries.h"

#include <algorithm>
#include <utility>

#include <tokcask/error.h>

#include "record/rows.h"

namespace tokcask {

using lmdb::Table;
using rows::MetaKey;
using rows::Tag;

std::optional<CacheKey> key_of(lmdb::Bytes padded) {
  try {
    return CacheKey::parse(record::unpadded(padded));
  } catch (const Error&) {
    return std::nullopt;
  }
}

std::optional<std::size_t> serves(const TokenizerTraits& traits, std::int32_t stored_len, std::size_t length,
                                  std::int32_t wanted_len) noexcept {
  const auto stored = static_cast<std::size_t>(stored_len);
  const auto wanted = static_cast<std::size_t>(wanted_len);
  if (length > stored) return std::nullopt;  // more than it was told to return: nothing is known of it
  const bool whole = traits.cuts_at_length && length < stored;
  if (whole && length <= wanted) return length;
  if (traits.cuts_to_prefix && length >= wanted) return wanted;
  return std::nullopt;
}

SectionEntries::SectionEntries(const lmdb::ReadTransaction& transaction, const DeclaredTraits& declared)
    : transaction_(&transaction), cursor_(transaction, Table::kRecords), known_(declared) {}

std::vector<SectionEntries::Entry> SectionEntries::of(const CacheKey& key) const {
  const std::string_view section =
      std::string_view(key.canonical()).substr(0, key.section_id().size() + 1);  // and the bar after it
  const lmdb::Bytes prefix = std::as_bytes(std::span(section));
  std::vector<Entry> others;
  for (auto entry = cursor_.seek(prefix); entry && others.size() < kMost; entry = cursor_.next()) {
    if (entry->key.size() < prefix.size() || !std::ranges::equal(entry->key.first(prefix.size()), prefix))
      break;
    auto other = key_of(entry->key);
    if (other && *other != key) others.push_back({*std::move(other), entry->value});
  }
  return others;
}

std::optional<SectionEntries::Server> SectionEntries::server_of(const CacheKey& key,
                                                                const std::vector<Entry>& others) {
  for (const Entry& other : others) {
    if (other.key.tokenizer_sha() != key.tokenizer_sha()) continue;
    const char* damage = nullptr;
    const auto record = record::decode(other.value, record::hash_key(other.key.canonical()), &damage);
    if (!record || !record->parts.empty()) continue;  // parts are those of the whole
    const auto length = serves(traits_of(key.tokenizer_sha()), other.key.sequence_len(), record->ids.size(),
                               key.sequence_len());
    if (length) return Server{other.key, other.value, *length};
  }
  return std::nullopt;
}

TokenizerTraits SectionEntries::traits_of(std::string_view tokenizer_sha) {
  const auto found = known_.find(tokenizer_sha);
  if (found != known_.end()) return found->second;
  const auto value = transaction_->get(Table::kMeta, MetaKey::of_path(Tag::kTraits, tokenizer_sha).bytes());
  const TokenizerTraits traits = value ? rows::decode_traits(tokenizer_sha, *value) : TokenizerTraits{};
  known_.emplace(tokenizer_sha, traits);
  return traits;
}

}  // namespace tokcask
