// Where a warm gets its tokenizer from, and its identity without loading it if the store remembers that.
//
// One thread.
#pragma once

#include <memory>
#include <string>

#include <tokcask/cache.h>

#include "corpus/file.h"
#include "tokenize/tokenizer.h"

namespace tokcask::warm {

class TokenizerSource {
 public:
  // `name` is "bytes", a tokenizer file, or a directory that holds a tokenizer.json. Throws Error(kNotFound)
  // when there is no such file.
  TokenizerSource(std::string name, const cli::TokenizerLoader& load, unsigned jobs);

  // The tokenizer's identity: remembered for this file, or else that of the loaded tokenizer, which is then
  // remembered if the file's identity can be relied on.
  [[nodiscard]] const std::string& sha256(TokenizedCache& cache, corpus::SettleBudget& budget);

  // Loads the tokenizer if that has not been done. sha256() is the loaded one's from then on: computed,
  // unless the store remembers the same for the path and for the content. Throws what the loader throws,
  // Error(kInvalidArgument) in place of what is not an Error.
  cli::Tokenizer& load(TokenizedCache& cache, corpus::SettleBudget& budget);

  [[nodiscard]] bool loaded() const noexcept { return tokenizer_ != nullptr; }

 private:
  // Sets tokenizer_ and sha256_, which is that of a file at this path until then.
  void load_file(TokenizedCache& cache);

  std::string path_;  // absolute, without links; empty for a built-in tokenizer
  const cli::TokenizerLoader& loader_;
  unsigned jobs_;
  std::string sha256_;
  std::unique_ptr<cli::Tokenizer> tokenizer_;
};

}  // namespace tokcask::warm
