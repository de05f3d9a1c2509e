#include "support.h"

#include <stdlib.h>

#include <algorithm>
#include <cstdlib>
#include <numeric>

namespace tokcask::test {

std::uint64_t test_seed() {
  if (const char* const given = std::getenv("TOKCASK_TEST_SEED")) return std::stoull(given);
  return std::random_device{}();
}

std::string sha(int tokenizer) { return sha256_hex("tokenizer " + std::to_string(tokenizer)); }

CacheKey key(std::uint64_t section, int tokenizer, std::int64_t sequence_len) {
  return CacheKey(section_id("section " + std::to_string(section)), sha(tokenizer), sequence_len);
}

Ids ids(std::uint64_t seed, std::size_t length) {
  Ids ids(length);
  std::iota(ids.begin(), ids.end(), static_cast<std::int32_t>(seed * 7919 % 100'000));
  return ids;
}

Ids copy_of(std::span<const std::int32_t> tokens) { return {tokens.begin(), tokens.end()}; }

MessageSink Messages::sink() {
  return [this](Severity, std::string_view text) {
    const std::lock_guard lock(mutex_);
    messages_.emplace_back(text);
  };
}

std::vector<std::string> Messages::all() const {
  const std::lock_guard lock(mutex_);
  return messages_;
}

std::size_t Messages::count(std::string_view text) const {
  const std::vector<std::string> messages = all();
  return static_cast<std::size_t>(
      std::count_if(messages.begin(), messages.end(),
                    [&](const std::string& message) { return message.find(text) != std::string::npos; }));
}

Fixture::Fixture() {
  std::string name = (std::filesystem::temp_directory_path() / "tokcask-test-XXXXXX").string();
  REQUIRE(mkdtemp(name.data()) != nullptr);
  directory_ = name;
}

Fixture::~Fixture() {
  if (check_ && std::filesystem::exists(data())) {
    try {
      auto cache = TokenizedCache::open(root(), {.read_only = true, .on_message = messages.sink()});
      const VerifyReport report = cache.verify();
      for (const Damage& damage : report.findings) MESSAGE(damage.key << ": " << damage.reason);
      CHECK(report.damaged == 0);
      CHECK(report.structure_ok);
      CHECK(report.records == cache.stats().entry_count);
    } catch (const std::exception& error) {
      FAIL_CHECK("the store cannot be checked: " << error.what());
    }
  }
  std::filesystem::remove_all(directory_);
}

TokenizedCache Fixture::open(Options options) const {
  options.on_message = messages.sink();
  return TokenizedCache::open(root(), std::move(options));
}

std::string error_of(Errc code, const std::function<void()>& act) {
  try {
    act();
  } catch (const Error& error) {
    INFO(error.what());
    CHECK(error.code() == code);
    return error.what();
  }
  FAIL_CHECK("nothing was thrown");
  return {};
}

}  // namespace tokcask::test
