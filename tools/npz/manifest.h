// The manifest.json of a seed-style cache: which entries there are, and where.
//
//   { "version": 1, "tokenizer_sha256": ..., "total_bytes": ...,
//     "entries": { KEY: { "size", "last_access_ts", "shard", "filename", "tokenizer_sha" } } }
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <tokcask/key.h>

#include "corpus/walk.h"

namespace tokcask::npz {

// The file may be anybody's. A row takes some 250 bytes of it.
inline constexpr std::uint64_t kMaxManifestBytes = std::uint64_t{1} << 30;

struct ManifestRow {
  CacheKey key;
  std::uint64_t last_access_ns;  // since the Unix epoch
  std::string shard;             // one component of a path each
  std::string filename;
};

struct Manifest {
  std::vector<ManifestRow> rows;  // sorted by shard and filename; each key once
  corpus::NamedFiles malformed;   // rows that are none, named by their keys
  std::string tokenizer_sha;      // as the seed's save_manifest() was told, or empty

  [[nodiscard]] std::uint64_t entries() const { return rows.size() + malformed.total; }
  // Whether a row names this file.
  [[nodiscard]] bool knows(std::string_view shard, std::string_view filename) const;
};

// Reads `directory`/manifest.json. Throws Error: kNotFound (no such directory or file), kIo, kDamaged (no
// JSON, not a manifest, another version).
[[nodiscard]] Manifest read_manifest(const std::string& directory);

// The same from its text; `path` is for messages.
[[nodiscard]] Manifest parse_manifest(std::string_view text, const std::string& path);

}  // namespace tokcask::npz
