// The files of a corpus, what is known of each, and what the store's index remembers of them.
//
// Threads: examine() may be called for different files at once; everything else from one thread, and not
// while examine() runs on a file of the directory concerned.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <tokcask/cache.h>

#include "corpus/file.h"
#include "corpus/walk.h"

namespace tokcask::warm {

using SectionBytes = std::array<std::uint8_t, 16>;

// The 32 hex digits of a section id, and back.
[[nodiscard]] std::string section_hex(const SectionBytes& section);
[[nodiscard]] SectionBytes section_bytes(std::string_view hex);

enum class SourceState : std::uint8_t {
  kUnknown,  // not remembered, not read yet
  kSection,
  kBinary,
  kNotUtf8,
  kUnreadable,
  kTooLarge,
};

class Sources {
 public:
  struct File {
    SectionBytes section{};
    SourceState state = SourceState::kUnknown;
    bool sound = false;    // the identity may be remembered for this state
    bool read = false;     // its content was read in this run
    bool pending = false;  // has a section whose entry is still to be stored
    int error = 0;         // why it is kUnreadable
  };

  explicit Sources(corpus::Corpus corpus);

  // Takes from the index what has not changed since.
  void recall(TokenizedCache& cache);

  // Reads a file, tells what it is, and returns its content if it is a section. Content whose identity is
  // already known is not hashed again.
  std::string examine(std::uint32_t index, corpus::SettleBudget& budget);

  // Brings the index up to date for one directory, if it is not. Files whose entries are pending are left
  // out; files that this run's options keep out stay remembered as long as they exist.
  void remember(TokenizedCache& cache, std::uint32_t directory);

  [[nodiscard]] std::span<File> files() noexcept { return files_; }
  [[nodiscard]] std::span<const File> files() const noexcept { return files_; }
  [[nodiscard]] const corpus::Corpus& corpus() const noexcept { return corpus_; }
  [[nodiscard]] std::string path_of(std::uint32_t index) const {
    return corpus_.path_of(corpus_.files[index]);
  }
  [[nodiscard]] std::uint32_t directory_of(std::uint32_t index) const {
    return corpus_.files[index].directory;
  }

 private:
  [[nodiscard]] std::span<const std::uint32_t> files_in(std::uint32_t directory) const;
  void recall_directory(std::uint32_t directory, const SourceDirectory& remembered);
  [[nodiscard]] bool still_exists(std::uint32_t directory, const std::string& name) const;

  corpus::Corpus corpus_;
  std::vector<File> files_;            // beside corpus_.files
  std::vector<std::uint32_t> order_;   // file indices, grouped by directory, by name within
  std::vector<std::uint32_t> starts_;  // where each directory's group starts in order_; one more at the end
  std::vector<bool> stale_;            // by directory
};

}  // namespace tokcask::warm
