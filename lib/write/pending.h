// What has been put and is not committed yet. Plain data; the engine guards it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <tokcask/explain.h>
#include <tokcask/key.h>
#include <tokcask/source_index.h>
#include <tokcask/tokens.h>

#include "record/record.h"
#include "shm/session.h"
#include "tables/commit.h"

namespace tokcask {

// The tokens of one put: its payload as it will lie in the record. 64-byte aligned; shared with views of it.
struct PendingTokens {
  std::shared_ptr<const std::byte[]> data;
  Tokens tokens;  // in `data`; without a mask of ones

  static PendingTokens copy_of(const Tokens& tokens);
  [[nodiscard]] std::size_t record_bytes() const { return record::record_bytes(tokens); }
};

struct PendingPut {
  [[nodiscard]] Commit::Put of_commit() const { return {tokens.tokens, created_ns, stamp, dated}; }

  PendingTokens tokens;
  std::shared_ptr<Session> session;
  std::uint64_t stamp = 0;  // its last access
  std::uint64_t created_ns = 0;
  bool dated = false;  // `stamp` is one of its own, not that of the put
  // Whether the key was not in the store when Batch::find_new() asked. For figures alone.
  std::optional<bool> is_new = {};
};

struct KeyHash {
  std::size_t operator()(const CacheKey& key) const noexcept { return record::hash_key(key.canonical()); }
};

struct PendingTokenizerFile {
  FileIdentity identity;
  std::string sha;
};

// What one commit writes.
struct Batch {
  std::unordered_map<CacheKey, PendingPut, KeyHash> puts;
  std::map<std::string, SourceDirectory, std::less<>> directories;
  std::map<std::string, PendingTokenizerFile, std::less<>> tokenizer_files;
  std::map<std::string, TokenizerTraits, std::less<>> traits;  // by tokenizer sha
  std::optional<std::string> tokenizer_sha;
  std::size_t bytes = 0;          // of records
  std::uint64_t dated = 0;        // puts with dated
  std::uint64_t new_entries = 0;  // puts that are known to be new
  std::uint64_t new_bytes = 0;    // that they will occupy

  [[nodiscard]] bool empty() const {
    return puts.empty() && directories.empty() && tokenizer_files.empty() && traits.empty() && !tokenizer_sha;
  }
  void add(CacheKey key, PendingPut put, std::size_t page_bytes);
  void remove(const CacheKey& key, std::size_t page_bytes);
  // Takes over what `older` has and this does not; `older` is empty then. When memory runs out, both are as
  // they were.
  void absorb(Batch& older, std::size_t page_bytes);
  // Asks for each put of which that is not known yet whether it is new.
  void find_new(std::size_t page_bytes, const std::function<bool(const CacheKey&)>& is_new);

 private:
  std::vector<std::pair<const CacheKey, PendingPut>*> not_asked_;  // into `puts`
  // Adds one put to the figures, or takes it from them.
  void count(const CacheKey& key, const PendingPut& put, std::size_t page_bytes, bool there) noexcept;
};

}  // namespace tokcask
