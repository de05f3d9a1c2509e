// Walking a corpus: which files it has, in one fixed order, without reading any but .gitignore files.
//
// Order: within a directory by the bytes of the names, a subdirectory's files in its place. What is reached
// only through a symbolic link to a directory comes after everything else.
// Symbolic links are followed. Every directory is walked once, whichever way it is reached, so loops end;
// what can be reached without links is reported under its own path. Nothing found inside a corpus is fatal:
// what is passed over is counted, what cannot be read is named.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tokcask/source_index.h>

#include "corpus/gitignore.h"

namespace tokcask::corpus {

struct WalkOptions {
  // Only files that match one of these, or lie in a directory that does. Empty: all.
  std::vector<PathPattern> include;
  // Neither files nor directories that match one of these.
  std::vector<PathPattern> exclude;
  // Also what begins with a dot.
  bool hidden = false;
  // Leave out what the .gitignore files from the corpus downward say, and every .git directory.
  bool ignore_files = true;
  // Files and directories (device, inode) that must not be touched even if they lie in the corpus.
  std::vector<std::pair<dev_t, ino_t>> never;
  // Asked now and then; true ends the walk early.
  std::function<bool()> stop;
};

// Some names, and how many there were in all.
struct NamedFiles {
  static constexpr std::size_t kMaxNames = 20;
  std::uint64_t total = 0;
  std::vector<std::string> names;  // each with its reason, the first kMaxNames

  void add(std::string name) {
    if (++total; names.size() < kMaxNames) names.push_back(std::move(name));
  }
};

// What was passed over. A directory counts as one, whatever it holds.
struct WalkSkipped {
  std::uint64_t hidden = 0;
  std::uint64_t ignored = 0;
  std::uint64_t excluded = 0;  // by an exclude pattern, or for want of an include pattern
  std::uint64_t rows = 0;      // files of rows that no include pattern matches
  std::uint64_t special = 0;   // FIFOs, sockets, devices
  std::uint64_t repeated = 0;  // directories that were walked before (links, loops)
  std::uint64_t store = 0;     // WalkOptions::never
  NamedFiles unreadable;       // also links that lead nowhere, and directories nested too deeply
};

struct CorpusDirectory {
  std::string path;       // absolute, without symbolic links
  bool filtered = false;  // whether some of its files were passed over by an option or a .gitignore file
};

struct CorpusFile {
  std::uint32_t directory;  // index into Corpus::directories
  std::string name;
  FileIdentity identity;
};

struct Corpus {
  std::vector<CorpusDirectory> directories;
  std::vector<CorpusFile> files;  // those of one directory are sorted by name
  WalkSkipped skipped;
  bool stopped = false;

  [[nodiscard]] std::string path_of(const CorpusFile& file) const;
};

// How deep directories may be nested; each level holds one file descriptor open.
inline constexpr unsigned kMaxDepth = 200;

// Whether a file of this name holds rows, each a text of its own: JSON lines, compressed or not, Parquet,
// Arrow. Not .json, which may be anything.
[[nodiscard]] bool is_of_rows(std::string_view name);

// Walks the directory, or takes the one file, at `root`. Throws Error: kNotFound when there is nothing, kIo
// when it cannot be opened, kInvalidArgument when it is neither a directory nor a regular file, or a file of
// rows that no include pattern matches.
[[nodiscard]] Corpus walk(const std::string& root, const WalkOptions& options);

}  // namespace tokcask::corpus
