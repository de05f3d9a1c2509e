// What a store holds, summed up.
#include <algorithm>

#include "support.h"

namespace tokcask {

using namespace test;

namespace {

constexpr std::uint64_t kSecond = 1'000'000'000;

std::uint64_t now() {
  using namespace std::chrono;
  return static_cast<std::uint64_t>(nanoseconds(system_clock::now().time_since_epoch()).count());
}

const SurveyGroup& group_of(const StoreSurvey& survey, const std::string& sha, std::int32_t sequence_len) {
  const auto found = std::find_if(survey.groups.begin(), survey.groups.end(), [&](const SurveyGroup& group) {
    return group.tokenizer_sha == sha && group.sequence_len == sequence_len;
  });
  REQUIRE(found != survey.groups.end());
  return *found;
}

std::uint64_t entries_up_to(const StoreSurvey& survey, std::uint64_t up_to) {
  for (const LengthBin& bin : survey.lengths)
    if (bin.up_to == up_to) return bin.entries;
  return 0;
}

}  // namespace

TEST_CASE("a survey of an empty store, and of one whose entries are pending, is empty") {
  Fixture f;
  auto cache = f.open({.batch_age = std::chrono::hours(1)});
  cache.put(key(1), {.input_ids = ids(1, 3)});
  const StoreSurvey survey = cache.survey();
  CHECK(survey.groups.empty());
  CHECK(survey.lengths.empty());
  REQUIRE(survey.last_access.size() == 6);
  for (const AgeBin& bin : survey.last_access) CHECK(bin.entries == 0);
}

TEST_CASE("a survey's groups are what a walk over all entries adds up to") {
  Fixture f;
  auto cache = f.open();
  for (std::uint64_t i = 0; i < 400; ++i) {
    const int tokenizer = static_cast<int>(i % 3);
    const std::int64_t length = i % 2 == 0 ? 4096 : 8192;
    const CacheKey k = i % 10 == 0 ? CacheKey("literal " + std::to_string(i), sha(tokenizer), length)
                                   : key(i, tokenizer, length);
    cache.put(k, {.input_ids = ids(i, i * 37 % 3000)}, {.created_ns = 1000 + i});
    if (i % 50 == 0) cache.flush();  // generations in the order of puts
  }
  cache.flush();
  StoreSurvey walked;
  for (EntryPosition position;;) {
    const EntryChunk chunk = cache.entries(position);
    for (const Entry& entry : chunk.entries) {
      const CacheKey& k = entry.info.key;
      auto at = std::find_if(walked.groups.begin(), walked.groups.end(), [&](const SurveyGroup& group) {
        return group.tokenizer_sha == k.tokenizer_sha() && group.sequence_len == k.sequence_len();
      });
      if (at == walked.groups.end()) {
        SurveyGroup group;
        group.tokenizer_sha = k.tokenizer_sha();
        group.sequence_len = k.sequence_len();
        at = walked.groups.insert(at, group);
      }
      ++at->entries;
      at->tokens += entry.info.tokens;
      at->bytes += entry.info.bytes;
    }
    if (chunk.end) break;
  }
  const Stats before = cache.stats();
  const StoreSurvey survey = cache.survey();
  REQUIRE(survey.groups.size() == 6);
  REQUIRE(walked.groups.size() == 6);
  std::uint64_t bytes = 0;
  for (const SurveyGroup& group : walked.groups) {
    CAPTURE(group.tokenizer_sha);
    const SurveyGroup& found = group_of(survey, group.tokenizer_sha, group.sequence_len);
    CHECK(found.entries == group.entries);
    CHECK(found.tokens == group.tokens);
    CHECK(found.bytes == group.bytes);
    // A batch is put in key order, so within 50 puts the first is not known beforehand.
    CHECK(found.first_stored_ns >= 1000);
    CHECK(found.first_stored_ns < 1060);
    CHECK(found.last_stored_ns > 1340);
    CHECK(found.last_stored_ns < 1400);
    bytes += found.bytes;
  }
  CHECK(bytes == before.total_bytes);
  CHECK(std::is_sorted(survey.groups.begin(), survey.groups.end(),
                       [](const SurveyGroup& a, const SurveyGroup& b) { return a.bytes > b.bytes; }));
  std::uint64_t by_length = 0;
  for (const LengthBin& bin : survey.lengths) by_length += bin.entries;
  CHECK(by_length == 400);
  const Stats after = cache.stats();
  CHECK(after.run.hits == before.run.hits);
  CHECK(after.run.misses == before.run.misses);
}

TEST_CASE("lengths fall into bins that end at powers of two") {
  Fixture f;
  auto cache = f.open();
  std::uint64_t section = 0;
  for (const std::size_t length : {0, 1, 2, 3, 4, 5, 512, 513, 1024})
    cache.put(key(++section), {.input_ids = ids(section, length)});
  cache.flush();
  const StoreSurvey survey = cache.survey();
  REQUIRE(survey.lengths.size() == 11);
  CHECK(entries_up_to(survey, 1) == 2);
  CHECK(entries_up_to(survey, 2) == 1);
  CHECK(entries_up_to(survey, 4) == 2);
  CHECK(entries_up_to(survey, 8) == 1);
  CHECK(entries_up_to(survey, 256) == 0);
  CHECK(entries_up_to(survey, 512) == 1);
  CHECK(entries_up_to(survey, 1024) == 2);
}

TEST_CASE("last accesses fall into bins by age, those in shared memory and those in the store") {
  Fixture f;
  auto cache = f.open();
  constexpr std::uint64_t kDay = 86400;
  // Well inside each bin, so that the time that the test takes does not matter.
  std::uint64_t section = 0;
  for (const std::uint64_t age : {std::uint64_t{0}, std::uint64_t{1800}, std::uint64_t{7200}, 3 * kDay,
                                  10 * kDay, 20 * kDay, 100 * kDay}) {
    cache.put(key(++section), {.input_ids = ids(section, 1000)}, {.last_access_ns = now() - age * kSecond});
  }
  cache.put(key(++section), {.input_ids = ids(section, 1000)}, {.last_access_ns = 0});
  cache.flush();
  const auto counts = [&] {
    std::vector<std::uint64_t> entries;
    const StoreSurvey survey = cache.survey();
    for (const AgeBin& bin : survey.last_access) entries.push_back(bin.entries);
    entries.push_back(survey.last_access_unknown.entries);
    return entries;
  };
  using Counts = std::vector<std::uint64_t>;
  CHECK(counts() == Counts{1, 1, 1, 1, 2, 2, 0});
  cache.close();
  cache = f.open();
  CHECK(counts() == Counts{1, 1, 1, 1, 2, 2, 0});
  REQUIRE(cache.get(key(7)));  // the one of 100 days
  CHECK(counts() == Counts{2, 1, 1, 1, 2, 1, 0});
}

TEST_CASE("a stored mask counts as tokens, as the survey says") {
  Fixture f;
  auto cache = f.open();
  const Ids mask{1, 0, 1};
  cache.put(key(1), {.input_ids = ids(1, 3), .attention_mask = mask});
  cache.put(key(2), {.input_ids = ids(2, 3)});
  cache.flush();
  CHECK(cache.survey().groups[0].tokens == 3 + 16 + 3);
}

TEST_CASE("what was evicted, pruned or cleared is in no survey") {
  Fixture f;
  auto cache = f.open();
  for (std::uint64_t i = 0; i < 300; ++i) {
    cache.put(key(i, static_cast<int>(i % 2)), {.input_ids = ids(i, 700)},
              {.last_access_ns = now() - (i < 100 ? 5000 : 50) * kSecond});
  }
  cache.flush();
  CHECK(cache.prune(std::chrono::seconds(1000)) == 100);
  std::uint64_t entries = 0;
  const StoreSurvey survey = cache.survey();
  for (const SurveyGroup& group : survey.groups) entries += group.entries;
  CHECK(entries == 200);
  cache.clear();
  CHECK(cache.survey().groups.empty());
}

}  // namespace tokcask
