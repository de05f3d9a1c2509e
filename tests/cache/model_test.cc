// A reference map beside the store: after any sequence of acts and reopenings both hold the same.
#include <map>

#include "support.h"

namespace tokcask {

using namespace test;

TEST_CASE("random acts, with a map beside the store") {
  const std::uint64_t seed = test_seed();
  INFO("TOKCASK_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  struct Expected {
    Ids ids;
    Ids mask;
  };
  std::map<CacheKey, Expected> model;
  Fixture f;
  const auto random_key = [&] {
    const std::uint64_t i = random() % 300;
    if (i % 7 == 0) return CacheKey("literal section " + std::to_string(i), sha(), 9000);
    return key(i, static_cast<int>(i % 5), static_cast<std::int64_t>(i % 3 + 9000));
  };
  for (int run = 0; run < 12; ++run) {
    auto cache = f.open({.batch_bytes = std::uint64_t{1} << (12 + random() % 10),
                         .batch_age = std::chrono::milliseconds(random() % 20)});
    for (int step = 0; step < 300; ++step) {
      CAPTURE(run);
      CAPTURE(step);
      const std::uint64_t act = random() % 100;
      if (act < 50) {
        const CacheKey k = random_key();
        Expected entry{ids(random(), random() % (random() % 8 == 0 ? 9000 : 700)), {}};
        if (random() % 4 == 0) {
          entry.mask.assign(entry.ids.size(), 1);
          for (auto& value : entry.mask) value = random() % 10 != 0 ? 1 : 0;
        }
        cache.put(k, {.input_ids = entry.ids, .attention_mask = entry.mask});
        model.insert_or_assign(k, std::move(entry));
      } else if (act < 95) {
        const CacheKey k = random_key();
        const auto view = cache.get(k);
        const auto expected = model.find(k);
        REQUIRE(view.has_value() == (expected != model.end()));
        if (view) {
          REQUIRE(copy_of(view->input_ids()) == expected->second.ids);
          const Ids ones(expected->second.ids.size(), 1);
          REQUIRE(copy_of(view->attention_mask()) ==
                  (expected->second.mask.empty() ? ones : expected->second.mask));
        }
      } else if (act < 98) {
        cache.flush();
        REQUIRE(cache.stats().entry_count == model.size());
      } else if (act == 98 && random() % 4 == 0) {
        REQUIRE(cache.clear() == model.size());
        model.clear();
      } else if (act == 99 && random() % 2 == 0) {
        const int tokenizer = static_cast<int>(random() % 5);
        const auto chosen = [&](const auto& entry) {
          return entry.first.tokenizer_sha() == sha(tokenizer) && entry.first.sequence_len() == 2;
        };
        const auto removed = std::erase_if(model, chosen);
        REQUIRE(cache.prune({.tokenizer_sha = sha(tokenizer), .sequence_len = 2}).removed == removed);
      } else if (act == 99) {
        REQUIRE(cache.compact().entries == model.size());
        REQUIRE(cache.verify().structure_ok);
      }
    }
    if (random() % 2 == 0) cache.close();
  }
  auto cache = f.open();
  CHECK(cache.stats().entry_count == model.size());
  for (const auto& [k, entry] : model) {
    const auto view = cache.get(k);
    REQUIRE(view);
    CHECK(copy_of(view->input_ids()) == entry.ids);
  }
}

}  // namespace tokcask
