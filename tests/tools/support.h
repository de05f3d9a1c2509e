// What the tests of the command share: temporary directories, and running a command line with its output
// caught.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "cli/cli.h"

namespace tokcask::test {

// A fresh directory (absolute path without links), removed with all that is in it.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  // A path below; with `content`, a file there, its directories made as needed.
  [[nodiscard]] std::string operator/(std::string_view name) const { return path_ + '/' + std::string(name); }
  std::string write(std::string_view name, std::string_view content) const;
  std::string make_directory(std::string_view name) const;
  std::string link(std::string_view name, std::string_view target) const;

 private:
  std::string path_;
};

struct Outcome {
  int code = -1;
  std::string out;
  std::string err;

  // The one JSON object that `out` must be.
  [[nodiscard]] nlohmann::json json() const;
};

// Sends descriptors 1 and 2 into files while it lives. Not for more than one thread.
class Capture {
 public:
  Capture();
  ~Capture();
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;

  // Ends the capture and returns what was written, without an exit code.
  Outcome finish();

 private:
  void restore();
  int saved_[2] = {-1, -1};
  int files_[2] = {-1, -1};
};

// An environment variable for as long as this lives.
class Environment {
 public:
  Environment(const char* name, const char* value);
  ~Environment();
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

 private:
  const char* name_;
  std::optional<std::string> old_;
};

// A loader that refuses every file.
[[nodiscard]] cli::TokenizerLoader no_loader();

// Runs a command line with standard input at /dev/null.
Outcome run(const std::vector<std::string>& args, const cli::TokenizerLoader& load = no_loader(),
            const cli::FormatRunner& formats = {});

// The byte-level tokenizer as a tokenizer file: each content of the file has an identity of its own, and an
// origin
// ("origin " and the content). Loads, identities that were computed, and encoded texts are counted.
class CountingLoader {
 public:
  [[nodiscard]] cli::TokenizerLoader loader();
  [[nodiscard]] int loads() const noexcept { return counts_->loads; }
  [[nodiscard]] int identified() const noexcept { return counts_->identified; }
  [[nodiscard]] int texts() const noexcept { return counts_->texts; }
  // Called before each batch is encoded, by the thread that encodes it.
  void on_batch(std::function<void()> hook) { counts_->hook = std::move(hook); }

  struct Counts {
    int loads = 0;
    int identified = 0;
    std::atomic<int> texts = 0;  // by several threads
    std::function<void()> hook;
  };

 private:
  std::shared_ptr<Counts> counts_ = std::make_shared<Counts>();
};

// The seed of a randomized test: TOKCASK_TEST_SEED, or a new one each time. The test prints it when it fails.
[[nodiscard]] std::uint64_t test_seed();

}  // namespace tokcask::test
