// Damaged records: a miss and one warning, never wrong tokens, never an exception.
#include <tokcask/dataset.h>

#include <atomic>
#include <cstring>
#include <fstream>
#include <thread>

#include "files/store_files.h"
#include "lmdb/walker.h"
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
      CHECK(copy_of(cache.get(key(1))) == ids(1, length));
      const VerifyReport report = cache.verify();
      CHECK(report.records == 5);
      CHECK(report.damaged == 1);
      REQUIRE_FALSE(report.findings.empty());
      CHECK(report.findings[0].key == key(2).canonical());
      cache.put(key(2), {.input_ids = ids(2, length)});
      cache.flush();
      CHECK(copy_of(cache.get(key(2))) == ids(2, length));
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
  for (std::uint64_t i = 10; i < 20; ++i) CHECK(copy_of(cache.get(key(i))) == ids(i, 100));
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
  for (std::uint64_t i = 0; i < 5; ++i) CHECK(copy_of(cache.get(key(i))) == ids(i, 600));
  for (std::uint64_t i = 100; i < 200; ++i) cache.put(key(i), {.input_ids = ids(i, 10)});
  cache.flush();
  CHECK(cache.prune(std::chrono::hours(1)) == 0);
  CHECK(cache.stats().entry_count == 105);
  CHECK(f.messages.count("cannot share access times") == unusable);
}

// ---- Repair ----

TEST_CASE("a repair leaves out damaged records and keeps the rest") {
  Fixture f;
  fill(f, 600);
  change_record(f, key(2), [](auto& value) { value[60] ^= std::byte{1}; });
  auto cache = f.open();
  const VerifyReport report = cache.verify({.repair = true});
  CHECK(report.damaged == 1);
  CHECK(report.structure_ok);
  CHECK(report.repaired);
  CHECK(report.saved == 4);
  CHECK(report.lost == 1);
  CHECK(report.kept_as.empty());
  CHECK(cache.stats().entry_count == 4);
  CHECK_FALSE(cache.get(key(2)));
  CHECK(f.messages.count("damaged") == 0);  // there is nothing left that is
  for (const std::uint64_t i : {0, 1, 3, 4}) CHECK(copy_of(cache.get(key(i))) == ids(i, 600));
}

TEST_CASE("a repair makes the entry table anew from the records") {
  Fixture f;
  fill(f, 600);
  change_value(f, "meta", rows::MetaKey(rows::Tag::kEntries, 0).bytes(),
               [](auto& value) { std::memset(value.data(), 0x5a, value.size()); });
  auto cache = f.open();
  cache.put(key(9), {.input_ids = ids(9, 50)});
  const VerifyReport report = cache.verify({.repair = true});
  CHECK_FALSE(report.structure_ok);
  CHECK(report.repaired);
  CHECK(report.saved >= 5);
  CHECK(report.lost == 0);
  CHECK(report.kept_as == "data.mdb.set-aside-1");
  for (std::uint64_t i = 0; i < 5; ++i) CHECK(copy_of(cache.get(key(i))) == ids(i, 600));
  CHECK(copy_of(cache.get(key(9))) == ids(9, 50));  // what was pending moved along
  CHECK(is_clean(f));
}

TEST_CASE("a repair of wrong totals, and of a store row that is gone") {
  Fixture f;
  fill(f, 600);
  SUBCASE("totals") {
    change_value(f, "meta", rows::MetaKey(rows::Tag::kStore, 0).bytes(), [](auto& value) {
      value[40] ^= std::byte{1};  // entries
    });
  }
  SUBCASE("gone") {
    change_value(f, "meta", rows::MetaKey(rows::Tag::kStore, 0).bytes(), [](auto& value) { value.clear(); });
  }
  CHECK_FALSE(verify(f.root()).structure_ok);
  const VerifyReport report = verify(f.root(), {.repair = true});
  CHECK(report.repaired);
  CHECK(report.saved == 5);
  CHECK(verify(f.root()).structure_ok);
  auto cache = f.open();
  for (std::uint64_t i = 0; i < 5; ++i) CHECK(copy_of(cache.get(key(i))) == ids(i, 600));
}

TEST_CASE("a repair of what is whole changes nothing, and a reader cannot repair") {
  Fixture f;
  fill(f, 600);
  const auto id = files::id_of(f.data());
  const VerifyReport report = f.open().verify({.repair = true});
  CHECK_FALSE(report.repaired);
  CHECK(report.saved == 0);
  CHECK_FALSE(verify(f.root(), {.repair = true}).repaired);
  CHECK(files::id_of(f.data()) == id);
  change_record(f, key(2), [](auto& value) { value[60] ^= std::byte{1}; });
  auto reader = f.open({.read_only = true});
  error_of(Errc::kReadOnly, [&] { static_cast<void>(reader.verify({.repair = true})); });
  reader.close();
  f.expect_damage();
}

TEST_CASE("verify tells of bad pages by number, opens nothing and sets nothing aside") {
  Fixture f;
  fill(f, 600);
  f.expect_damage();
  std::uint64_t root = 0;
  {
    std::ifstream stream(f.data(), std::ios::binary);
    std::vector<std::byte> bytes(f.file_bytes());
    stream.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    const auto metas = lmdb::meta_pages(bytes);
    root = std::max(metas[0]->txnid, metas[1]->txnid) == metas[0]->txnid ? metas[0]->main.root
                                                                         : metas[1]->main.root;
  }
  const auto overwrite = [&](std::uint64_t page) {
    std::fstream stream(f.data(), std::ios::binary | std::ios::in | std::ios::out);
    stream.seekp(static_cast<std::streamoff>(page * 4096));
    stream << std::string(4096, '\0');
  };
  const auto id = files::id_of(f.data());
  SUBCASE("while nobody has it open") {
    overwrite(root);
    const VerifyReport report = verify(f.root());
    CHECK_FALSE(report.structure_ok);
    REQUIRE_FALSE(report.findings.empty());
    CHECK(report.findings[0].reason.find("Page " + std::to_string(root)) != std::string::npos);
  }
  SUBCASE("while it is open") {
    auto cache = f.open();
    overwrite(root);
    const VerifyReport report = cache.verify();
    CHECK_FALSE(report.structure_ok);
    REQUIRE_FALSE(report.findings.empty());
    CHECK(report.findings[0].reason.find("Page " + std::to_string(root)) != std::string::npos);
    CHECK(files::id_of(f.data()) == id);
    const VerifyReport repaired = cache.verify({.repair = true});
    CHECK(repaired.repaired);
    CHECK(repaired.saved == 5);
    for (std::uint64_t i = 0; i < 5; ++i) CHECK(copy_of(cache.get(key(i))) == ids(i, 600));
    return;
  }
  CHECK(files::id_of(f.data()) == id);
}

TEST_CASE("verify finds nothing in a sound store that is written to meanwhile") {
  Fixture f;
  auto cache = f.open({.max_bytes = 4 << 20});
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    auto own = f.open({.max_bytes = 4 << 20});
    for (std::uint64_t i = 0; !stop; ++i) {
      own.put(key(i % 300), {.input_ids = ids(i, i * 37 % 2500)});
      if (i % 3 == 0) own.flush();
    }
  });
  for (int i = 0; i < 60; ++i) {
    const VerifyReport report = cache.verify();
    CHECK(report.structure_ok);
    CHECK(report.damaged == 0);
    for (const Damage& damage : report.findings) MESSAGE(damage.reason);
    CHECK(verify(f.root()).structure_ok);
  }
  stop = true;
  writer.join();
}

TEST_CASE("counts in the store row that cannot be are not counted to") {
  Fixture f;
  f.expect_damage();
  fill(f, 300);
  change_value(f, "meta", rows::MetaKey(rows::Tag::kStore, 0).bytes(), [](std::vector<std::byte>& value) {
    auto row = rows::read_row<rows::StoreRow>(value).value();
    row.slot_count |= 0xff000000U;
    row.tokenizer_count |= 0x7f000000U;
    row.history |= std::uint64_t{1} << 60;
    row.history_ring |= std::uint64_t{1} << 60;
    std::memcpy(value.data(), &row, sizeof row);
  });
  auto cache = f.open();
  CHECK_FALSE(cache.get(key(998)));
  CHECK(cache.explain(key(998)).reason == MissReason::kNeverStored);
  CHECK(cache.survey().groups.size() == 1);
  CHECK(cache.tokenizers().size() < 100);
  static_cast<void>(cache.verify());
  cache.put(key(999), {.input_ids = ids(999, 10)});
  cache.flush();
  CHECK(cache.get(key(999)));
  cache.compact();
  CHECK(cache.get(key(999)));
  CHECK(cache.clear() > 0);
}

// ---- When what is checked ----

TEST_CASE("checksums are compared never, once per process, or always") {
  Fixture f;
  f.expect_damage();
  fill(f, 3000);
  const auto flip = [&] {  // beside LMDB, as a disk does it
    std::fstream stream(f.data(), std::ios::binary | std::ios::in | std::ios::out);
    std::string bytes(f.file_bytes(), '\0');
    stream.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    const Ids wanted = ids(2, 3000);
    const std::string tokens(reinterpret_cast<const char*>(wanted.data()), 64);
    const std::size_t at = bytes.find(tokens);
    REQUIRE(at != std::string::npos);
    stream.seekp(static_cast<std::streamoff>(at + 256));
    stream.put(static_cast<char>(bytes[at + 256] ^ 1));
  };
  SUBCASE("first") {
    auto cache = f.open();
    CHECK(cache.get(key(2)));
    flip();
    CHECK(cache.get(key(2)));
    cache.close();
    CHECK_FALSE(f.open().get(key(2)));
  }
  SUBCASE("always") {
    auto cache = f.open({.verify = VerifyPolicy::kAlways});
    CHECK(cache.get(key(2)));
    flip();
    CHECK_FALSE(cache.get(key(2)));
    CHECK(f.messages.count("checksum") == 1);
  }
  SUBCASE("never") {
    flip();
    auto cache = f.open({.verify = VerifyPolicy::kOff});
    CHECK(cache.get(key(2)));
    CHECK(cache.get(key(2)));
    // Another handle that does check is not misled.
    CHECK_FALSE(f.open().get(key(2)));
  }
}

TEST_CASE("a data set checks as its options say") {
  Fixture f;
  f.expect_damage();
  fill(f, 3000);
  const std::vector<CacheKey> keys{key(0), key(1), key(2)};
  auto always =
      TokenDataset::open(f.root(), keys, {.verify = VerifyPolicy::kAlways, .on_message = f.messages.sink()});
  auto first = TokenDataset::open(f.root(), keys, {.on_message = f.messages.sink()});
  CHECK(always.get(1));
  CHECK(first.get(1));
  {
    std::fstream stream(f.data(), std::ios::binary | std::ios::in | std::ios::out);
    std::string bytes(f.file_bytes(), '\0');
    stream.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    const Ids wanted = ids(1, 3000);
    const std::size_t at = bytes.find(std::string(reinterpret_cast<const char*>(wanted.data()), 64));
    REQUIRE(at != std::string::npos);
    stream.seekp(static_cast<std::streamoff>(at + 256));
    stream.put(static_cast<char>(bytes[at + 256] ^ 1));
  }
  CHECK(first.get(1));
  CHECK_FALSE(always.get(1));
}

TEST_CASE("who asks what is there learns of damage that somebody has found") {
  for (const bool by_verify : {false, true}) {
    CAPTURE(by_verify);
    Fixture f;
    std::vector<CacheKey> keys;
    {
      auto cache = f.open();
      for (std::uint64_t i = 0; i < 20; ++i) {
        keys.push_back(key(i));
        cache.put(key(i), {.input_ids = ids(i, 1000)});
      }
    }
    change_record(f, key(3), [](std::vector<std::byte>& bytes) { bytes[100] ^= std::byte{1}; });
    const auto there = [&] {
      const std::vector<bool> found = f.open().contains_many(keys);
      return std::count(found.begin(), found.end(), true);
    };
    CHECK(there() == 20);  // headers alone
    if (by_verify) {
      CHECK(verify(f.root()).damaged == 1);
    } else {
      CHECK_FALSE(f.open({.read_only = true}).get(key(3)));
    }
    CHECK(there() == 19);
    f.open().put(key(3), {.input_ids = ids(3, 1000)});
    CHECK(there() == 20);
    CHECK(f.open().get(key(3)));
    CHECK(verify(f.root()).damaged == 0);
  }
}

}  // namespace tokcask
