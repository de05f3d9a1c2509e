// Entries of the same section under other keys: what may serve in an entry's place, and what explains a miss.
//
// A canonical key begins with the section id, so they are neighbours in the tree, and one seek finds all.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <tokcask/explain.h>
#include <tokcask/key.h>

#include "lmdb/environment.h"
#include "record/record.h"

namespace tokcask {

// The key of a record, unless it is bytes that no key has.
[[nodiscard]] std::optional<CacheKey> key_of(lmdb::Bytes padded);

// What was declared of tokenizers, by sha.
using DeclaredTraits = std::map<std::string, TokenizerTraits, std::less<>>;

// How many of the `length` ids that a tokenizer returned for `stored_len` are what it returns for
// `wanted_len`; nothing where that is not known.
[[nodiscard]] std::optional<std::size_t> serves(const TokenizerTraits& traits, std::int32_t stored_len,
                                                std::size_t length, std::int32_t wanted_len) noexcept;

// Threads: one at a time. Must not outlive its transaction.
class SectionEntries {
 public:
  // `declared` are those that the store does not have yet.
  SectionEntries(const lmdb::ReadTransaction& transaction, const DeclaredTraits& declared);

  struct Entry {
    CacheKey key;
    lmdb::Bytes value;  // its record
  };
  // In key order; at most kMost of them.
  [[nodiscard]] std::vector<Entry> of(const CacheKey& key) const;
  static constexpr std::size_t kMost = 64;

  // An entry of another sequence length that provably holds the ids of `key`.
  struct Server {
    CacheKey key;
    lmdb::Bytes value;
    std::size_t length;  // its first so many ids
  };
  // The first of `others` that can serve. What is damaged is passed over, as far as a header tells.
  [[nodiscard]] std::optional<Server> server_of(const CacheKey& key, const std::vector<Entry>& others);

  [[nodiscard]] TokenizerTraits traits_of(std::string_view tokenizer_sha);

 private:
  const lmdb::ReadTransaction* transaction_;
  lmdb::Cursor cursor_;
  DeclaredTraits known_;
};

}  // namespace tokcask
