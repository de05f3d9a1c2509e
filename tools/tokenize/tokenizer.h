// What `tokcask warm` asks of a tokenizer. Implemented by the byte-level tokenizer that is built in, and by
// the Python package over HF tokenizers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <tokcask/explain.h>

namespace tokcask::cli {

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Content identity, 64 lower-case hex digits: the same for the same vocabulary and rules, whatever padding
  // or truncation is set.
  // Takes a while for a large vocabulary.
  [[nodiscard]] virtual std::string sha256() const = 0;

  // What sha256() follows from, and nothing else: the content of the file that was loaded, and the versions
  // of all that reads it. Empty where that is not known.
  [[nodiscard]] virtual std::string origin() const { return {}; }

  // What is known of how it cuts, where that was established.
  [[nodiscard]] virtual TokenizerTraits traits() const { return {}; }

  // The ids of each text (valid UTF-8), cut to at most `max_length`, in the order given. Uses the cores it
  // was loaded with. Called from several threads at once, with the same `max_length`. Throws on failure.
  [[nodiscard]] virtual std::vector<std::vector<std::int32_t>> encode_batch(
      std::span<const std::string_view> texts, std::size_t max_length) = 0;
};

// Loads the tokenizer in `file` to run on `jobs` threads (0: all cores). Throws tokcask::Error
// (kInvalidArgument) for a file that is not a tokenizer this program can use.
using TokenizerLoader = std::function<std::unique_ptr<Tokenizer>(const std::string& file, unsigned jobs)>;

}  // namespace tokcask::cli
