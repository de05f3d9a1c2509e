// Merges that are killed at any moment and begun again.
#include <tokcask/merge.h>

#include <csignal>
#include <thread>

#include "child.h"
#include "support.h"

namespace tokcask {

using namespace test;

namespace {

constexpr std::uint64_t kThen = 1'700'000'000ULL * 1'000'000'000;
constexpr std::uint64_t kSections = 9000;

void fill(TokenizedCache& cache, std::uint64_t part) {
  for (std::uint64_t i = 0; i < kSections; ++i) {
    if (i % 3 == part) continue;
    // Some of what the parts share is not the same.
    const std::uint64_t content = i % 100 == 99 ? i + part : i;
    cache.put(key(i), {.input_ids = ids(content, i * 7 % 900)},
              {.created_ns = kThen, .last_access_ns = kThen + i * (part + 1)});
  }
}

MergeReport merge_parts(const Fixture& f, const std::string& out_name, const MergeOptions& options = {}) {
  std::vector<TokenizedCache> parts;
  for (int part = 0; part < 3; ++part) {
    parts.push_back(
        TokenizedCache::open(f.directory() / ("part-" + std::to_string(part)), {.read_only = true}));
  }
  // Small batches, so that there is something to be lost and something to be kept.
  auto out = TokenizedCache::open(f.directory() / out_name, {.batch_bytes = std::uint64_t{256} << 10});
  return merge(out, parts, options);
}

std::vector<std::string> content_of(const Fixture& f, const std::string& name) {
  auto cache = TokenizedCache::open(f.directory() / name, {.read_only = true});
  CHECK(cache.verify().damaged == 0);
  CHECK(cache.verify().structure_ok);
  std::vector<std::string> all;
  for (EntryPosition position;;) {
    const EntryChunk chunk = cache.entries(position);
    for (const Entry& entry : chunk.entries) {
      all.push_back(entry.info.key.canonical() + ' ' + std::to_string(entry.info.last_access_ns) + ' ' +
                    std::to_string(entry.info.created_ns) + ' ' + std::to_string(entry.info.tokens) + ' ' +
                    std::to_string(entry.view.size() == 0 ? 0 : entry.view.input_ids()[0]));
    }
    if (chunk.end) return all;
  }
}

}  // namespace

TEST_CASE("a merge killed at any moment and begun again ends where one run ends") {
  const std::uint64_t seed = test_seed();
  INFO("TOKCASK_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  Fixture f;
  for (std::uint64_t part = 0; part < 3; ++part) {
    auto cache = TokenizedCache::open(f.directory() / ("part-" + std::to_string(part)));
    fill(cache, part);
  }
  const MergeReport whole = merge_parts(f, "whole");
  CHECK(whole.conflicts > 0);
  const std::vector<std::string> expected = content_of(f, "whole");
  REQUIRE(expected.size() == kSections);

  int parts_left = 0;
  for (int round = 0; round < 10; ++round) {
    Child merger([&](const Line& line) {
      const auto tell = [&](std::uint64_t done, std::uint64_t) {
        line.tell(done);
        return true;
      };
      return merge_parts(f, "out", {.on_progress = tell}).entries == whole.entries;
    });
    // The first rounds are killed while OUT is made, later ones after some batches.
    for (std::uint64_t batches = round < 3 ? 0 : 1 + random() % 3; batches > 0; --batches)
      merger.line().hear();
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 10'000));
    merger.signal(SIGKILL);
    merger.succeeded();
    if (!std::filesystem::exists(f.directory() / "out" / "data.mdb")) continue;
    const std::size_t so_far = content_of(f, "out").size();
    if (so_far > 0 && so_far < kSections) ++parts_left;
  }
  CHECK(parts_left > 0);
  const MergeReport rest = merge_parts(f, "out");
  CHECK(rest.conflicts == whole.conflicts);
  CHECK(rest.entries == whole.entries);
  CHECK(content_of(f, "out") == expected);
}

}  // namespace tokcask
