// merge(): what becomes of each entry, and that it can be begun again.
#include <tokcask/merge.h>

#include <algorithm>
#include <fstream>
#include <map>

#include "api/handle.h"
#include "support.h"

namespace tokcask {

using namespace test;

namespace {

constexpr std::uint64_t kThen = 1'700'000'000ULL * 1'000'000'000;

// Stores in directories beside each other.
class Stores {
 public:
  [[nodiscard]] TokenizedCache open(const std::string& name, Options options = {}) const {
    options.on_message = f_.messages.sink();
    return TokenizedCache::open(f_.directory() / name, std::move(options));
  }
  [[nodiscard]] std::vector<TokenizedCache> inputs(const std::vector<std::string>& names) const {
    std::vector<TokenizedCache> inputs;
    for (const std::string& name : names) inputs.push_back(open(name, {.read_only = true}));
    return inputs;
  }
  MergeReport merge(const std::string& out, const std::vector<std::string>& names,
                    const MergeOptions& options = {}, Options out_options = {}) const {
    auto stores = inputs(names);
    auto cache = open(out, std::move(out_options));
    MergeReport report = tokcask::merge(cache, stores, options);
    CHECK(report.bytes_after == cache.stats().total_bytes);
    CHECK(cache.verify().damaged == 0);
    CHECK(cache.verify().structure_ok);
    return report;
  }
  [[nodiscard]] const Fixture& fixture() const { return f_; }
  Fixture f_;
};

void put(TokenizedCache& cache, std::uint64_t section, std::uint64_t content, std::uint64_t last_access,
         bool mask = false) {
  const Ids tokens = ids(content, 50 + section * 13 % 1500);
  Ids zeros;
  if (mask) zeros.assign(tokens.size(), 0);
  cache.put(key(section), {.input_ids = tokens, .attention_mask = zeros},
            {.created_ns = kThen, .last_access_ns = last_access});
}

// Everything that is in a store, as text that compares.
std::vector<std::string> content_of(TokenizedCache& cache) {
  std::vector<std::string> all;
  for (EntryPosition position;;) {
    const EntryChunk chunk = cache.entries(position);
    for (const Entry& entry : chunk.entries) {
      std::string text = entry.info.key.canonical() + ' ' + std::to_string(entry.info.created_ns) + ' ' +
                         std::to_string(entry.info.last_access_ns);
      for (const std::int32_t id : entry.view.input_ids()) text += ' ' + std::to_string(id);
      for (const std::int32_t one : entry.view.attention_mask()) text += one == 1 ? '1' : '0';
      all.push_back(std::move(text));
    }
    if (chunk.end) return all;
  }
}

bool adds_up(const MergeReport& report) {
  return report.entries == report.merged + report.already_there + report.conflicts + report.declined;
}

}  // namespace

TEST_CASE("disjoint stores become one, with all times; a second merge finds everything there") {
  Stores stores;
  for (std::uint64_t part = 0; part < 3; ++part) {
    auto cache = stores.open("part-" + std::to_string(part));
    for (std::uint64_t i = 0; i < 400; ++i) put(cache, i * 3 + part, i, kThen + i * 3 + part, i % 5 == 0);
  }
  const std::vector<std::string> parts{"part-0", "part-1", "part-2"};
  const MergeReport report = stores.merge("out", parts);
  CHECK(report.entries == 1200);
  CHECK(report.merged == 1200);
  CHECK(adds_up(report));
  std::vector<std::string> expected;
  for (const std::string& part : parts) {
    auto cache = stores.open(part, {.read_only = true});
    for (std::string& entry : content_of(cache)) expected.push_back(std::move(entry));
    CHECK(cache.stats().last_run.hits == 0);
  }
  std::sort(expected.begin(), expected.end());
  const auto content = [&] {
    auto out = stores.open("out", {.read_only = true});
    return content_of(out);
  };
  CHECK(content() == expected);

  const MergeReport again = stores.merge("out", parts);
  CHECK(again.merged == 0);
  CHECK(again.already_there == 1200);
  CHECK(again.newer_access == 0);
  CHECK(content() == expected);
}

TEST_CASE("the same tokens under the same key: the later last access wins, wherever it is") {
  Stores stores;
  {
    auto a = stores.open("a");
    auto b = stores.open("b");
    auto out = stores.open("out");
    put(a, 1, 1, kThen + 10);
    put(b, 1, 1, kThen + 20);
    put(a, 2, 2, kThen + 20);
    put(b, 2, 2, kThen + 10);
    put(out, 3, 3, kThen + 5);
    put(a, 3, 3, kThen + 6);
    put(b, 3, 3, kThen + 7);
    put(out, 4, 4, kThen + 9, true);
    put(b, 4, 4, kThen + 8, true);
  }
  const MergeReport report = stores.merge("out", {"a", "b"});
  CHECK(report.entries == 7);
  CHECK(report.merged == 2);
  CHECK(report.already_there == 5);
  CHECK(report.newer_access == 3);
  CHECK(adds_up(report));
  // Of the store, not of the shared table.
  std::filesystem::remove(stores.fixture().directory() / "out" / "access.shm");
  auto out = stores.open("out", {.read_only = true});
  std::vector<CacheKey> keys{key(1), key(2), key(3), key(4)};
  const auto entries = out.peek_many(keys);
  CHECK(entries[0]->info.last_access_ns == kThen + 20);
  CHECK(entries[1]->info.last_access_ns == kThen + 20);
  CHECK(entries[2]->info.last_access_ns == kThen + 7);
  CHECK(entries[3]->info.last_access_ns == kThen + 9);
}

TEST_CASE("other tokens under the same key are a conflict: named, and not merged over") {
  Stores stores;
  {
    auto a = stores.open("a");
    auto b = stores.open("b");
    auto out = stores.open("out");
    put(out, 1, 1, kThen);
    put(a, 1, 100, kThen + 10);
    put(b, 1, 1, kThen + 20);
    put(a, 2, 2, kThen);
    put(b, 2, 200, kThen + 10);
    put(a, 3, 3, kThen);
    put(b, 3, 3, kThen, true);  // the same ids under another mask
    for (std::uint64_t i = 100; i < 130; ++i) {
      put(a, i, i, kThen);
      put(b, i, i + 1, kThen);
    }
  }
  for (int round = 0; round < 2; ++round) {
    const MergeReport report = stores.merge("out", {"a", "b"});
    CHECK(report.conflicts == 33);
    CHECK(report.conflicting.size() == MergeReport::kMostNamed);
    CHECK(std::is_sorted(report.conflicting.begin(), report.conflicting.end()));
    CHECK(adds_up(report));
    auto out = stores.open("out", {.read_only = true});
    std::vector<CacheKey> keys{key(1), key(2), key(3), key(110)};
    const auto entries = out.peek_many(keys);
    CHECK(entries[0]->view.input_ids()[0] == ids(1, 1)[0]);
    CHECK(entries[0]->info.last_access_ns == kThen + 20);
    CHECK(entries[1]->view.input_ids()[0] == ids(2, 1)[0]);
    CHECK(entries[1]->info.last_access_ns == kThen);
    CHECK(entries[2]->view.mask_is_all_ones());
    CHECK(entries[3]->view.input_ids()[0] == ids(110, 1)[0]);
  }
}

TEST_CASE("a store cannot be merged into itself") {
  Stores stores;
  {
    auto out = stores.open("out");
  }
  std::filesystem::create_directory_symlink(stores.fixture().directory() / "out",
                                            stores.fixture().directory() / "link");
  error_of(Errc::kInvalidArgument, [&] { stores.merge("out", {"link"}); });
}

TEST_CASE("what is pending in OUT in this process counts as there") {
  Stores stores;
  {
    auto a = stores.open("a");
    put(a, 1, 1, kThen);
  }
  auto other = stores.open("out", {.batch_age = std::chrono::hours(1)});
  put(other, 1, 2, kThen);
  CHECK(stores.merge("out", {"a"}).conflicts == 1);
}

TEST_CASE("the cap of OUT holds, and the entries that were used last are kept") {
  constexpr std::uint64_t kMaxBytes = std::uint64_t{4} << 20;
  Stores stores;
  for (const std::string part : {"a", "b"}) {
    auto cache = stores.open(part);
    const std::uint64_t base = part == "a" ? 0 : 1000;
    for (std::uint64_t i = 0; i < 600; ++i) {
      cache.put(key(base + i), {.input_ids = ids(i, 2000)},
                {.last_access_ns = kThen + (i * 2 + base / 1000)});
    }
  }
  const MergeReport report = stores.merge("out", {"a", "b"}, {}, {.max_bytes = kMaxBytes});
  CHECK(report.entries == 1200);
  CHECK(report.declined + report.merged == 1200);
  CHECK(std::filesystem::file_size(stores.fixture().directory() / "out" / "data.mdb") <= kMaxBytes);
  auto out = stores.open("out", {.read_only = true});
  const std::uint64_t count = out.stats().entry_count;
  CHECK(count > 300);
  std::uint64_t strangers = 0;
  for (EntryPosition position;;) {
    const EntryChunk chunk = out.entries(position);
    for (const Entry& entry : chunk.entries)
      strangers += entry.info.last_access_ns < kThen + 1200 - count ? 1 : 0;
    if (chunk.end) break;
  }
  CHECK(strangers <= count / 10);
}

TEST_CASE("progress is told, and a merge that is stopped goes on when it is called again") {
  Stores stores;
  {
    auto cache = stores.open("a");
    for (std::uint64_t i = 0; i < 3000; ++i) put(cache, i, i, kThen + i);
  }
  std::uint64_t merged = 0;
  for (int round = 0; round < 10 && merged < 3000; ++round) {
    int calls = 0;
    const MergeReport report = stores.merge("out", {"a"}, {.on_progress = [&](auto done, auto total) {
                                              CHECK(done <= total);
                                              CHECK(total == 3000);
                                              return ++calls <= round + 1;
                                            }});
    CHECK(report.already_there == std::min<std::uint64_t>(merged, report.entries));
    merged += report.merged;
    CHECK(report.stopped == (report.entries < 3000));
  }
  CHECK(merged == 3000);
}

TEST_CASE("a damaged record of an input is counted and left out; one in OUT is replaced") {
  Stores stores;
  const auto damage = [&](const std::string& name, std::uint64_t content) {
    // One byte in the middle of the ids of a record.
    const auto path = stores.fixture().directory() / name / "data.mdb";
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    std::string bytes(std::filesystem::file_size(path), '\0');
    file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    const Ids tokens = ids(content, 600);
    const std::string_view wanted(reinterpret_cast<const char*>(tokens.data()), tokens.size() * 4);
    const std::size_t at = bytes.find(wanted);
    REQUIRE(at != std::string::npos);
    file.seekp(static_cast<std::streamoff>(at + 1000));
    file.put(static_cast<char>(bytes[at + 1000] ^ 0x20));
  };
  {
    auto a = stores.open("a");
    auto out = stores.open("out");
    for (std::uint64_t i = 0; i < 5; ++i) a.put(key(i), {.input_ids = ids(i, 600)});
    out.put(key(3), {.input_ids = ids(3, 600)});
  }
  damage("a", 2);
  damage("out", 3);
  const MergeReport report = stores.merge("out", {"a"});
  CHECK(report.entries == 4);
  CHECK(report.damaged == 1);
  CHECK(report.merged == 4);
  CHECK(stores.fixture().messages.count(key(2).canonical()) == 1);
  CHECK(stores.fixture().messages.count(key(3).canonical()) == 1);
}

TEST_CASE("an entry of an input that has more ids than its key's length is counted and left out") {
  const Stores stores;
  {
    // As a put of before that was refused.
    Handle handle(stores.fixture().directory() / "a", {});
    const Ids tokens = ids(1, 3);
    const auto lease = handle.lease();
    for (const CacheKey& stored : {key(1, 0, 2), key(2, 0, 3)})
      lease->committer().put(stored, {.input_ids = tokens}, {}, lease.session(), Committer::Room::kWait);
  }
  const MergeReport report = stores.merge("out", {"a"});
  CHECK(report.entries == 2);
  CHECK(report.damaged == 1);
  CHECK(report.merged == 1);
  CHECK(stores.open("out").keys() == std::vector<CacheKey>{key(2, 0, 3)});
}

TEST_CASE("a merge of random stores is the map that they make") {
  const std::uint64_t seed = test_seed();
  INFO("TOKCASK_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  struct Kept {
    std::uint64_t content;
    std::uint64_t last_access;
  };
  for (int round = 0; round < 5; ++round) {
    Stores stores;
    std::map<std::uint64_t, Kept> model;
    std::uint64_t conflicts = 0;
    std::vector<std::string> names;
    for (int store = 0; store < 4; ++store) {
      // The first is OUT as it is before.
      names.push_back(store == 0 ? "out" : "in-" + std::to_string(store));
      auto cache = stores.open(names.back());
      for (std::uint64_t section = 0; section < 300; ++section) {
        if (random() % 2 == 0) continue;
        const std::uint64_t content = random() % 10 == 0 ? section + 1 : section;
        const std::uint64_t last_access = kThen + random() % 1000;
        put(cache, section, content, last_access);
        const auto [kept, is_new] = model.try_emplace(section, Kept{content, last_access});
        if (is_new) continue;
        if (kept->second.content != content) {
          ++conflicts;
        } else {
          kept->second.last_access = std::max(kept->second.last_access, last_access);
        }
      }
    }
    names.erase(names.begin());
    const MergeReport report = stores.merge("out", names);
    CHECK(report.conflicts == conflicts);
    CHECK(adds_up(report));
    auto out = stores.open("out", {.read_only = true});
    REQUIRE(out.stats().entry_count == model.size());
    for (const auto& [section, kept] : model) {
      const CacheKey k = key(section);
      const auto entry = out.peek_many({&k, 1})[0];
      REQUIRE(entry);
      REQUIRE(entry->view.input_ids()[0] == ids(kept.content, 1)[0]);
      REQUIRE(entry->info.last_access_ns == kept.last_access);
    }
  }
}

}  // namespace tokcask
