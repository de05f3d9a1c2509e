#include "support.h"

#include <lmdb.h>
#include <stdlib.h>

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <numeric>

#include "files/store_files.h"
#include "record/record.h"

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
Ids copy_of(const FoundTokens& found) { return copy_of(found.value().input_ids()); }

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

void change_value(const Fixture& f, const char* table, std::span<const std::byte> table_key,
                  const Change& change) {
  MDB_env* env = nullptr;
  MDB_txn* txn = nullptr;
  MDB_dbi dbi = 0;
  REQUIRE(mdb_env_create(&env) == 0);
  REQUIRE(mdb_env_set_maxdbs(env, 2) == 0);
  REQUIRE(mdb_env_set_mapsize(env, std::size_t{1} << 30) == 0);
  REQUIRE(mdb_env_open(env, f.root().c_str(), MDB_NOLOCK, 0600) == 0);
  REQUIRE(mdb_txn_begin(env, nullptr, 0, &txn) == 0);
  REQUIRE(mdb_dbi_open(txn, table, 0, &dbi) == 0);
  MDB_val k{table_key.size(), const_cast<std::byte*>(table_key.data())};
  MDB_val v;
  REQUIRE(mdb_get(txn, dbi, &k, &v) == 0);
  std::vector<std::byte> value(static_cast<std::byte*>(v.mv_data),
                               static_cast<std::byte*>(v.mv_data) + v.mv_size);
  change(value);
  v = {value.size(), value.data()};
  if (value.empty()) {
    REQUIRE(mdb_del(txn, dbi, &k, nullptr) == 0);
  } else {
    REQUIRE(mdb_put(txn, dbi, &k, &v, 0) == 0);
  }
  REQUIRE(mdb_txn_commit(txn) == 0);
  mdb_env_close(env);
}

void change_record(const Fixture& f, const CacheKey& of, const Change& change) {
  change_value(f, "records", record::PaddedKey(of.canonical()).bytes(), change);
}

bool is_clean(const Fixture& f) {
  for (const auto& entry : std::filesystem::directory_iterator(f.root())) {
    if (entry.path().filename().string().starts_with(".new.")) return false;
  }
  const std::filesystem::path locks = f.root() / "locks";
  const auto directories =
      std::distance(std::filesystem::directory_iterator(locks), std::filesystem::directory_iterator());
  const auto id = files::id_of(f.data());
  return directories == 1 && id && std::filesystem::exists(locks / std::to_string(id->second) / "lock.mdb");
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
