// What a store remembers of the files its sections came from, so that an unchanged file is not read again.
//
// Plain values. Persisted in the same transaction scheme as entries: pending until the next commit.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace tokcask {

// What stat(2) tells of a file's content without reading it. All five change, or one of them, when the
// content changes; ctime_ns also catches a restored mtime.
struct FileIdentity {
  std::uint64_t size = 0;
  std::int64_t mtime_ns = 0;
  std::int64_t ctime_ns = 0;
  std::uint64_t inode = 0;
  friend bool operator==(const FileIdentity&, const FileIdentity&) = default;
};

enum class SourceKind : std::uint8_t {
  kSection = 0,  // text; `section` is its identity
  kBinary = 1,   // holds a NUL byte
  kNotUtf8 = 2,
};

// One file of a directory, remembered.
struct SourceFile {
  std::string name;  // within its directory, bytes as the file system has them
  FileIdentity identity;
  SourceKind kind = SourceKind::kSection;
  std::array<std::uint8_t, 16> section{};  // the 32 hex digits of section_id(content, "file"), as bytes
};

// All remembered files of one directory, sorted by name.
using SourceDirectory = std::vector<SourceFile>;

}  // namespace tokcask
