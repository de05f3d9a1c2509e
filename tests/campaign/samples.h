// Real stores with a history, kept as bytes, and what is true of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "../lmdb/support.h"
#include "support.h"

namespace tokcask::campaign {

using Bytes = std::vector<std::byte>;

[[nodiscard]] Bytes read_bytes(const std::filesystem::path& file);
void write_bytes(const std::filesystem::path& file, const Bytes& bytes);

// What was ever put under one key.
struct Known {
  CacheKey key;
  bool present = false;  // when the store was closed
  // In the order of the puts; the last one is right. So many of the last were not flushed, because that
  // failed: then the one before may be there still. After damage to data.mdb any of the first `damaged` may
  // be served, which were put before the damage, until a later put is flushed: who puts other tokens under a
  // key has no claim to the last ones then.
  std::vector<Content> stored;
  std::size_t not_flushed = 0;
  std::size_t damaged = 0;
};

// What is damaged: the files of a store that nobody has open. A file that is not there has no bytes.
struct Files {
  Bytes data;
  std::optional<Bytes> access;
  std::optional<Bytes> keys;  // a key table
  std::optional<Bytes> lock;  // LMDB's; is made anew where there is none
  std::optional<Bytes> write_lock;
};

struct Sample {
  std::string name;
  std::vector<Known> known;
  Files files;
  std::string keys_name;  // of the key table, which is of all keys that are present, in the order of `known`
  std::vector<Bytes> older;     // data.mdb after earlier commits, oldest first
  lmdb::test::Anatomy anatomy;  // of data.mdb
  std::uint64_t max_bytes = 0;
};

// The same for the same seed, but for times and the store's uuid.
[[nodiscard]] std::vector<Sample> make_samples(std::uint64_t seed);

// Writes the files of a store into an empty directory.
void write_store(const std::filesystem::path& root, const Files& files, const std::string& keys_name);

}  // namespace tokcask::campaign
