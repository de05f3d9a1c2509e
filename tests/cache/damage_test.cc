// Damaged records: a miss and one warning, never wrong tokens, never an exception.
#include <cstring>
#include <fstream>

#include "record/record.h"
#include "record/rows.h"
#include "support.h"

namespace tokcask {

using namespace test;

namespace {

void fill(const Fixture& f, std::size_t length) {
  auto cache = f.open();
  for (std::uint64_t i = 0; i < 5; ++i) cache.put(key(i), {.input_ids = ids(i, length)});
}

}  // namespace

TEST_CASE("any flipped bit of a record is a miss, one warning, and repaired by a put") {
  for (const std::size_t length : {20U, 3000U}) {
    CAPTURE(length);
    for (std::size_t byte = 0; byte < record::record_bytes(length, false); byte += byte < 52 ? 1 : 997) {
      CAPTURE(byte);
      Fixture f;
      fill(f, length);
      change_record(f, key(2), [&](auto& value) { value[byte] ^= std::byte{0x10}; });
      auto cache = f.open();
      CHECK_FALSE(cache.get(key(2)));
      CHECK_FALSE(cache.get(key(2)));
      CHECK(f.messages.count("damaged") == 1);
      CHECK(f.messages.count(key(2).canonical()) == 1);
      CHECK(copy_of(cache.get(key(1))->input_ids()) == ids(1, length));
      const VerifyReport report = cache.verify();
      CHECK(report.records == 5);
      CHECK(report.damaged == 1);
      REQUIRE_FALSE(report.findings.empty());
      CHECK(report.findings[0].key == key(2).canonical());
      cache.put(key(2), {.input_ids = ids(2, length)});
      cache.flush();
      CHECK(copy_of(cache.get(key(2))->input_ids()) == ids(2, length));
      CHECK(cache.stats().entry_count == 5);
    }
  }
}

TEST_CASE("an intact older record of the same key is not served") {
  Fixture f;
  fill(f, 600);
  std::vector<std::byte> older;
  change_record(f, key(2), [&](auto& value) { older = value; });
  {
    auto cache = f.open();
    cache.put(key(2), {.input_ids = ids(99, 600)});
  }
  change_record(f, key(2), [&](auto& value) { value = older; });
  auto cache = f.open();
  CHECK_FALSE(cache.get(key(2)));
  CHECK(f.messages.count("entry table") == 1);
  CHECK(cache.verify().damaged == 1);
  cache.put(key(2), {.input_ids = ids(3, 600)});
}

TEST_CASE("a record under another key is not served") {
  Fixture f;
  fill(f, 600);
  std::vector<std::byte> other;
  change_record(f, key(3), [&](auto& value) { other = value; });
  change_record(f, key(2), [&](auto& value) { value = other; });
  auto cache = f.open();
  CHECK_FALSE(cache.get(key(2)));
  CHECK(cache.get(key(3)));
  cache.put(key(2), {.input_ids = ids(2, 600)});
}

TEST_CASE("a record of another length or of none") {
  Fixture f;
  f.expect_damage();
  fill(f, 600);
  change_record(f, key(1), [](auto& value) { value.resize(value.size() - 8); });
  change_record(f, key(2), [](auto& value) { value.resize(8); });
  change_record(f, key(3), [](auto& value) { value.clear(); });  // removed behind the store's back
  auto cache = f.open();
  for (const std::uint64_t i : {1, 2, 3}) CHECK_FALSE(cache.get(key(i)));
  CHECK(cache.get(key(4)));
  const VerifyReport report = cache.verify();
  CHECK(report.records == 4);
  CHECK(report.damaged == 2);
  CHECK_FALSE(report.structure_ok);
}

TEST_CASE("a damaged entry table loses entries, not the store") {
  Fixture f;
  fill(f, 600);
  const rows::MetaKey chunk(rows::Tag::kEntries, 0);
  SUBCASE("garbage") {
    change_value(f, "meta", chunk.bytes(),
                 [](auto& value) { std::memset(value.data(), 0x5a, value.size()); });
  }
  SUBCASE("gone") {
    change_value(f, "meta", chunk.bytes(), [](auto& value) { value.clear(); });
  }
  auto cache = f.open();
  for (std::uint64_t i = 0; i < 5; ++i) CHECK_FALSE(cache.get(key(i)));
  CHECK_FALSE(cache.verify().structure_ok);
  for (std::uint64_t i = 10; i < 20; ++i) cache.put(key(i), {.input_ids = ids(i, 100)});
  cache.flush();
  for (std::uint64_t i = 10; i < 20; ++i) CHECK(copy_of(cache.get(key(i))->input_ids()) == ids(i, 100));
  // And clear makes it whole again.
  cache.clear();
  CHECK(cache.stats().entry_count == 0);
  CHECK(cache.verify().structure_ok);
  CHECK(cache.verify().records == 0);
}

TEST_CASE("a survey of damaged tables is a survey of what can be read") {
  Fixture f;
  f.expect_damage();
  fill(f, 600);
  const auto make = [&](rows::Tag tag, std::uint64_t number,
                        const std::function<void(std::vector<std::byte>&)>& change) {
    change_value(f, "meta", rows::MetaKey(tag, number).bytes(), change);
    std::filesystem::remove(f.root() / "access.shm");
    return f.open({.read_only = true}).survey();
  };
  const auto entries = [](const StoreSurvey& survey) {
    std::uint64_t count = 0;
    for (const SurveyGroup& group : survey.groups) count += group.entries;
    return count;
  };
  SUBCASE("no access times") {
    const StoreSurvey survey = make(rows::Tag::kAccess, 0, [](auto& value) { value.clear(); });
    CHECK(entries(survey) == 5);
    CHECK(survey.last_access_unknown.entries == 5);
  }
  SUBCASE("no entry rows") {
    CHECK(entries(make(rows::Tag::kEntries, 0, [](auto& value) { value.clear(); })) == 0);
  }
  SUBCASE("garbage for entry rows") {
    const StoreSurvey survey =
        make(rows::Tag::kEntries, 0, [](auto& value) { std::memset(value.data(), 0x5a, value.size()); });
    CHECK(entries(survey) == 5);
    CHECK(survey.groups[0].tokenizer_sha.empty());
    CHECK(survey.groups[0].first_stored_ns == 0);
  }
  SUBCASE("no name for the tokenizer") {
    const StoreSurvey survey = make(rows::Tag::kTokenizer, 1, [](auto& value) { value.clear(); });
    REQUIRE(survey.groups.size() == 1);
    CHECK(survey.groups[0].tokenizer_sha.empty());
    CHECK(survey.groups[0].last_stored_ns == 0);
    CHECK(survey.groups[0].entries == 5);
  }
}

TEST_CASE("wrong totals are found") {
  Fixture f;
  f.expect_damage();
  fill(f, 600);
  change_value(f, "meta", rows::MetaKey(rows::Tag::kStore, 0).bytes(), [](auto& value) {
    rows::StoreRow row;
    std::memcpy(static_cast<void*>(&row), value.data(), sizeof row);
    row.total_bytes += 1;
    std::memcpy(value.data(), &row, sizeof row);
  });
  auto cache = f.open();
  const VerifyReport report = cache.verify();
  CHECK(report.damaged == 0);
  CHECK_FALSE(report.structure_ok);
}

TEST_CASE("shared memory that is damaged, removed or another store's costs no entry") {
  Fixture f;
  fill(f, 600);
  const auto shm = f.root() / "access.shm";
  std::size_t unusable = 0;
  SUBCASE("removed") { std::filesystem::remove(shm); }
  SUBCASE("empty") { std::filesystem::resize_file(shm, 0); }
  SUBCASE("cut") { std::filesystem::resize_file(shm, 5000); }
  SUBCASE("cut in its stamps") { std::filesystem::resize_file(shm, 6 * 4096 + 100); }
  SUBCASE("garbage") { std::ofstream(shm, std::ios::binary) << std::string(100'000, 'g'); }
  SUBCASE("a directory in its place") {
    std::filesystem::remove(shm);
    std::filesystem::create_directories(shm / "below");
    unusable = 1;
  }
  SUBCASE("a number of blocks that is not true, a clock of the far future") {
    std::fstream file(shm, std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(32);
    const std::uint64_t damage[2] = {~std::uint64_t{0}, ~std::uint64_t{0} - 5};
    file.write(reinterpret_cast<const char*>(damage), sizeof damage);
  }
  auto cache = f.open();
  for (std::uint64_t i = 0; i < 5; ++i) CHECK(copy_of(cache.get(key(i))->input_ids()) == ids(i, 600));
  for (std::uint64_t i = 100; i < 200; ++i) cache.put(key(i), {.input_ids = ids(i, 10)});
  cache.flush();
  CHECK(cache.prune(std::chrono::hours(1)) == 0);
  CHECK(cache.stats().entry_count == 105);
  CHECK(f.messages.count("cannot share access times") == unusable);
}

}  // namespace tokcask
