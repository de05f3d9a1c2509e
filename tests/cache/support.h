// What the tests of the cache share: a store in a directory of its own, keys and tokens made from numbers,
// and a full check of the store at the end of every test.
#pragma once

#include <doctest/doctest.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <mutex>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <tokcask/cache.h>

namespace tokcask::test {

using Ids = std::vector<std::int32_t>;

// TOKCASK_TEST_SEED, or a new one each time. A test that uses it prints it when it fails.
[[nodiscard]] std::uint64_t test_seed();

[[nodiscard]] std::string sha(int tokenizer = 0);
// Of keys whose length does not matter: more than most tests put.
inline constexpr std::int64_t kAnyLength = 999'999;
[[nodiscard]] CacheKey key(std::uint64_t section, int tokenizer = 0, std::int64_t sequence_len = kAnyLength);
// `length` ids that tell from which `seed` they are.
[[nodiscard]] Ids ids(std::uint64_t seed, std::size_t length);
[[nodiscard]] Ids copy_of(std::span<const std::int32_t> tokens);
[[nodiscard]] Ids copy_of(const FoundTokens& found);  // there has to be a view

// Collects messages, from any thread.
class Messages {
 public:
  MessageSink sink();
  [[nodiscard]] std::vector<std::string> all() const;
  // How many hold `text`.
  [[nodiscard]] std::size_t count(std::string_view text) const;

 private:
  mutable std::mutex mutex_;
  std::vector<std::string> messages_;
};

// A directory that is removed at the end, after the store in it, if there still is one, was checked: every
// record, every total, every page.
class Fixture {
 public:
  Fixture();
  ~Fixture();
  Fixture(const Fixture&) = delete;
  Fixture& operator=(const Fixture&) = delete;

  [[nodiscard]] const std::filesystem::path& directory() const { return directory_; }
  [[nodiscard]] std::filesystem::path root() const { return directory_ / "store"; }
  [[nodiscard]] std::filesystem::path data() const { return root() / "data.mdb"; }
  [[nodiscard]] std::uint64_t file_bytes() const { return std::filesystem::file_size(data()); }
  // Opens the store with messages going to `messages`.
  [[nodiscard]] TokenizedCache open(Options options = {}) const;
  // The test leaves a damaged store behind on purpose.
  void expect_damage() { check_ = false; }

  mutable Messages messages;

 private:
  std::filesystem::path directory_;
  bool check_ = true;
};

// Changes the value under `table_key` in a store that nobody has open, through LMDB, so that its pages stay
// right; one that is emptied is removed.
using Change = std::function<void(std::vector<std::byte>&)>;
void change_value(const Fixture& f, const char* table, std::span<const std::byte> table_key,
                  const Change& change);
void change_record(const Fixture& f, const CacheKey& of, const Change& change);

// Nothing that the making of a new data file leaves behind: one lock directory, that of the file.
[[nodiscard]] bool is_clean(const Fixture& f);

// The error that `act` throws must have this code; its message is returned.
std::string error_of(Errc code, const std::function<void()>& act);

}  // namespace tokcask::test
