// Entries in and out, figures, runs: what a user does on the first day.
#include <functional>
#include <thread>

#include <tokcask/dataset.h>

#include "support.h"

namespace tokcask {

using namespace test;

TEST_CASE("an entry comes back before the commit, after it, and from another handle") {
  Fixture f;
  const Ids tokens = ids(1, 700);
  {
    auto cache = f.open();
    CHECK_FALSE(cache.get(key(1)));
    cache.put(key(1), {.input_ids = tokens});
    const auto pending = cache.get(key(1));
    REQUIRE(pending);
    CHECK(copy_of(pending->input_ids()) == tokens);
    CHECK(cache.stats().pending == 1);
    cache.flush();
    CHECK(cache.stats().pending == 0);
    CHECK(copy_of(cache.get(key(1))) == tokens);
    CHECK(copy_of(pending->input_ids()) == tokens);
  }
  auto cache = f.open();
  const auto view = cache.get(key(1));
  REQUIRE(view);
  CHECK(copy_of(view->input_ids()) == tokens);
  CHECK(view->mask_is_all_ones());
  CHECK(copy_of(view->attention_mask()) == Ids(700, 1));
  CHECK(view->attention_mask().data() == all_ones(700).data());
}

TEST_CASE("any change of section, tokenizer or length is another key") {
  Fixture f;
  auto cache = f.open();
  cache.put(key(1, 0, 2048), {.input_ids = ids(1, 10)});
  cache.flush();
  CHECK(cache.get(key(1, 0, 2048)));
  CHECK_FALSE(cache.get(key(2, 0, 2048)));
  CHECK_FALSE(cache.get(key(1, 1, 2048)));
  CHECK_FALSE(cache.get(key(1, 0, 2047)));
  cache.put(key(1, 1, 2048), {.input_ids = ids(2, 10)});
  cache.put(CacheKey("a section that is not hex", sha(), 10), {.input_ids = ids(3, 10)});
  cache.flush();
  CHECK(copy_of(cache.get(key(1, 0, 2048))) == ids(1, 10));
  CHECK(copy_of(cache.get(key(1, 1, 2048))) == ids(2, 10));
  CHECK(copy_of(cache.get(CacheKey("a section that is not hex", sha(), 10))) == ids(3, 10));
}

TEST_CASE("an irregular mask is stored, one of ones is not") {
  Fixture f;
  auto cache = f.open();
  Ids mask(1000, 1);
  cache.put(key(1), {.input_ids = ids(1, 1000), .attention_mask = mask});
  mask[17] = 0;
  cache.put(key(2), {.input_ids = ids(2, 1000), .attention_mask = mask});
  for (int pass = 0; pass < 2; ++pass) {
    CHECK(cache.get(key(1)).value().mask_is_all_ones());
    const auto masked = cache.get(key(2));
    CHECK_FALSE(masked->mask_is_all_ones());
    CHECK(copy_of(masked->attention_mask()) == mask);
    CHECK(copy_of(cache.get(key(2))) == ids(2, 1000));
    cache.flush();
  }
  CHECK(cache.stats().payload_bytes == 4000 + 8032);  // the mask starts at a multiple of 64
}

TEST_CASE("an empty section is an entry") {
  Fixture f;
  auto cache = f.open();
  cache.put(key(1), {});
  cache.flush();
  const auto view = cache.get(key(1));
  REQUIRE(view);
  CHECK(view->size() == 0);
  CHECK(view->attention_mask().empty());
}

TEST_CASE("a mask of another length stores nothing") {
  Fixture f;
  auto cache = f.open();
  const Ids tokens = ids(1, 5);
  const Ids mask(4, 1);
  const std::string message = error_of(
      Errc::kInvalidArgument, [&] { cache.put(key(1), {.input_ids = tokens, .attention_mask = mask}); });
  CHECK(message.find("4") != std::string::npos);
  const std::pair<CacheKey, Tokens> good{key(2), {.input_ids = tokens}};
  const std::pair<CacheKey, Tokens> bad{key(3), {.input_ids = tokens, .attention_mask = mask}};
  const std::vector entries{good, bad};
  error_of(Errc::kInvalidArgument, [&] { cache.put_many(entries); });
  CHECK(cache.stats().entry_count == 0);
}

TEST_CASE("an entry is replaced") {
  Fixture f;
  auto cache = f.open();
  for (const std::size_t length : {10U, 5000U, 3U, 0U, 700U}) {
    cache.put(key(1), {.input_ids = ids(length, length)});
    CHECK(cache.stats().entry_count == 1);
    cache.flush();
    CHECK(cache.stats().entry_count == 1);
    CHECK(cache.stats().payload_bytes == 4 * length);
    CHECK(copy_of(cache.get(key(1))) == ids(length, length));
  }
}

TEST_CASE("get_many answers in the order asked, also for keys that are pending, twice there, or not there") {
  Fixture f;
  auto cache = f.open();
  for (std::uint64_t i = 0; i < 500; ++i) {
    cache.put(key(i), {.input_ids = ids(i, i)});
    if (i == 250) cache.flush();
  }
  std::vector<CacheKey> keys;
  for (std::uint64_t i = 600; i-- > 0;) keys.push_back(key(i));
  keys.push_back(key(3));
  const auto views = cache.get_many(keys);
  const auto there = cache.contains_many(keys);
  REQUIRE(views.size() == 601);
  for (std::size_t i = 0; i < 600; ++i) {
    const std::uint64_t section = 599 - i;
    CHECK(there[i] == (section < 500));
    REQUIRE(views[i].has_value() == (section < 500));
    if (views[i]) CHECK(copy_of(views[i]->input_ids()) == ids(section, section));
  }
  CHECK(copy_of(views[600]->input_ids()) == ids(3, 3));
  CHECK(cache.get_many({}).empty());
  CHECK(cache.stats().run.hits == 2 * 501);
  CHECK(cache.stats().run.misses == 2 * 100);
}

TEST_CASE("figures of a run outlive it, and a handle that did nothing leaves the last run's") {
  Fixture f;
  {
    auto cache = f.open();
    CHECK(cache.stats().last_run.run_id == 0);
    cache.put(key(1), {.input_ids = ids(1, 10)});
    cache.put(key(2), {.input_ids = ids(1, 10)});
    CHECK(cache.get(key(1)));
    CHECK_FALSE(cache.get(key(9)));
    cache.add_tokenize_seconds(2.5);
    CHECK(cache.stats().run.hits == 1);
    CHECK(cache.stats().run.misses == 1);
    CHECK(cache.stats().run.hit_rate() == 0.5);
    cache.flush();  // so that only the end of the run is left to be recorded
  }
  for (int look = 0; look < 2; ++look) {
    auto cache = f.open();
    const Stats stats = cache.stats();
    CHECK(stats.run.hits + stats.run.misses == 0);
    CHECK(stats.last_run.run_id == 1);
    CHECK(stats.last_run.hits == 1);
    CHECK(stats.last_run.misses == 1);
    CHECK(stats.last_run.puts == 2);
    CHECK(stats.last_run.tokenize_seconds == doctest::Approx(2.5));
    CHECK(stats.last_run.ended_ns > stats.last_run.started_ns);
    CHECK(stats.last_run.bytes_after == stats.total_bytes);
  }
  {
    auto cache = f.open();
    CHECK(cache.get(key(1)));
  }
  auto cache = f.open({.read_only = true});
  CHECK(cache.get(key(1)));
  // A reader's figures are told too, though it does not write them.
  CHECK(cache.stats().last_run.run_id == 3);
  CHECK(cache.stats().last_run.hits == 1);
  CHECK(cache.runs().size() == 3);
}

TEST_CASE("totals follow every change") {
  Fixture f;
  auto cache = f.open();
  CHECK(cache.stats().entry_count == 0);
  CHECK(cache.stats().total_bytes == 0);
  for (std::uint64_t i = 0; i < 100; ++i) cache.put(key(i), {.input_ids = ids(i, 2000)});
  const Stats before = cache.stats();
  CHECK(before.entry_count == 100);
  cache.flush();
  const Stats after = cache.stats();
  CHECK(after.entry_count == 100);
  CHECK(after.total_bytes == before.total_bytes);
  // 8,048 bytes and a page header are two pages.
  CHECK(after.total_bytes >= 100 * 2 * 4096);
  CHECK(after.total_bytes < 100 * (2 * 4096 + 256));
  CHECK(after.payload_bytes == 100 * 8000);
  CHECK(after.file_bytes == f.file_bytes());
  CHECK(after.file_bytes > after.total_bytes);
  CHECK(cache.clear() == 100);
  CHECK(cache.stats().entry_count == 0);
  CHECK(cache.stats().total_bytes == 0);
  CHECK(cache.stats().payload_bytes == 0);
}

TEST_CASE("clear also takes what is pending") {
  Fixture f;
  auto cache = f.open();
  cache.put(key(1), {.input_ids = ids(1, 10)});
  cache.flush();
  cache.put(key(2), {.input_ids = ids(2, 10)});
  CHECK(cache.clear() == 2);
  CHECK_FALSE(cache.get(key(1)));
  CHECK_FALSE(cache.get(key(2)));
}

TEST_CASE("prune goes by the last access, put or read") {
  Fixture f;
  auto cache = f.open();
  for (std::uint64_t i = 0; i < 10; ++i) cache.put(key(i), {.input_ids = ids(i, 10)});
  cache.flush();
  std::this_thread::sleep_for(std::chrono::milliseconds(400));
  const auto between = std::chrono::steady_clock::now();
  CHECK(cache.get(key(3)));
  cache.put(key(4), {.input_ids = ids(4, 10)});
  cache.put(key(10), {.input_ids = ids(10, 10)});
  CHECK(cache.prune(std::chrono::hours(1)) == 0);
  CHECK(cache.prune(std::chrono::steady_clock::now() - between + std::chrono::milliseconds(200)) == 8);
  CHECK(cache.get(key(3)));
  CHECK(cache.get(key(4)));
  CHECK(cache.get(key(10)));
  CHECK_FALSE(cache.get(key(5)));
  CHECK(cache.prune(std::chrono::nanoseconds(0)) == 3);
  CHECK(cache.stats().entry_count == 0);
}

TEST_CASE("access times outlive their run, and prune sees those of another handle") {
  Fixture f;
  {
    auto cache = f.open();
    for (std::uint64_t i = 0; i < 4; ++i) cache.put(key(i), {.input_ids = ids(i, 10)});
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(400));
  const auto between = std::chrono::steady_clock::now();
  {
    auto reader = f.open({.read_only = true});
    CHECK(reader.get(key(2)));
  }
  bool without_shared_memory = false;
  SUBCASE("in shared memory") {}
  SUBCASE("in the store") { without_shared_memory = true; }
  if (without_shared_memory) {
    {
      auto cache = f.open();
      CHECK(cache.get(key(2)));
    }
    std::filesystem::remove(f.root() / "access.shm");
  }
  auto cache = f.open();
  CHECK(cache.prune(std::chrono::steady_clock::now() - between + std::chrono::milliseconds(200)) == 3);
  CHECK(cache.get(key(2)));
}

TEST_CASE("what a read-only handle may do") {
  Fixture f;
  error_of(Errc::kNotFound, [&] { auto cache = f.open({.read_only = true}); });
  CHECK_FALSE(std::filesystem::exists(f.root()));
  {
    auto cache = f.open();
    cache.put(key(1), {.input_ids = ids(1, 10)});
  }
  const auto written = std::filesystem::last_write_time(f.data());
  auto cache = f.open({.read_only = true});
  CHECK(cache.get(key(1)));
  CHECK(cache.verify().records == 1);
  error_of(Errc::kReadOnly, [&] { cache.put(key(2), {}); });
  cache.flush();
  error_of(Errc::kReadOnly, [&] { cache.clear(); });
  error_of(Errc::kReadOnly, [&] { cache.prune(std::chrono::seconds(1)); });
  error_of(Errc::kReadOnly, [&] { cache.save_manifest("x"); });
  error_of(Errc::kReadOnly, [&] { cache.put_source_directory("/x", {}); });
  cache.close();
  CHECK(std::filesystem::last_write_time(f.data()) == written);
}

TEST_CASE("a closed cache says so, and its views live on") {
  Fixture f;
  auto cache = f.open();
  cache.put(key(1), {.input_ids = ids(1, 3000)});
  cache.flush();
  const auto view = cache.get(key(1));
  cache.close();
  cache.close();
  error_of(Errc::kClosed, [&] { static_cast<void>(cache.get(key(1))); });
  error_of(Errc::kClosed, [&] { cache.put(key(1), {}); });
  error_of(Errc::kClosed, [&] { static_cast<void>(cache.stats()); });
  CHECK(copy_of(view->input_ids()) == ids(1, 3000));
  CHECK(cache.root() == f.root());
}

TEST_CASE("a handle that was moved from is as one that is closed") {
  Fixture f;
  auto cache = f.open();
  cache.put(key(1), {.input_ids = ids(1, 10)});
  cache.flush();
  const std::vector<CacheKey> keys{key(1)};
  auto dataset = TokenDataset::open(f.root(), keys);
  const std::vector<std::size_t> indices{0};
  {
    const TokenizedCache taken = std::move(cache);
    const TokenDataset taken_too = std::move(dataset);
    // NOLINTBEGIN(bugprone-use-after-move)
    const std::vector<std::function<void()>> uses{
        [&] { static_cast<void>(cache.get(key(1))); },
        [&] { static_cast<void>(cache.get_many(keys)); },
        [&] { cache.put(key(1), {}); },
        [&] { cache.flush(); },
        [&] { static_cast<void>(cache.keys()); },
        [&] { static_cast<void>(cache.stats()); },
        [&] { static_cast<void>(cache.root()); },
        [&] { static_cast<void>(cache.verify()); },
        [&] { cache.clear(); },
        [&] { cache.declare_tokenizer(sha(), {}); },
        [&] { static_cast<void>(dataset.get(0)); },
        [&] { static_cast<void>(dataset.get_many(indices)); },
        [&] { static_cast<void>(dataset.size()); },
        [&] { static_cast<void>(dataset.lengths()); },
        [&] { static_cast<void>(dataset.key(0)); },
        [&] { static_cast<void>(dataset.kept()); },
        [&] { static_cast<void>(dataset.packed_keys()); },
        [&] { dataset.prefetch(indices); },
        [&] { static_cast<void>(dataset.root()); },
    };
    for (std::size_t i = 0; i < uses.size(); ++i) {
      CAPTURE(i);
      CHECK(error_of(Errc::kClosed, uses[i]).find("moved from") != std::string::npos);
    }
    cache.close();
    dataset.close();
    CHECK(dataset.run_id() == 0);
    TokenizedCache empty = std::move(cache);
    empty = std::move(cache);
    // NOLINTEND(bugprone-use-after-move)
  }
  cache = f.open();
  CHECK(cache.get(key(1)));
}

TEST_CASE("more ids than the key's length are refused, and nothing of the call is stored") {
  Fixture f;
  auto cache = f.open();
  cache.put(key(1, 0, 4), {.input_ids = ids(1, 4)});
  const Ids three = ids(2, 3);
  const std::string message =
      error_of(Errc::kInvalidArgument, [&] { cache.put(key(2, 0, 2), {.input_ids = three}); });
  CHECK(message.find("3 tokens") != std::string::npos);
  CHECK(message.find("sequence_len 2;") != std::string::npos);
  const std::vector<std::pair<CacheKey, Tokens>> batch{{key(3, 0, 3), {.input_ids = three}},
                                                       {key(4, 0, 2), {.input_ids = three}}};
  error_of(Errc::kInvalidArgument, [&] { cache.put_many(batch); });
  cache.flush();
  CHECK(cache.keys() == std::vector<CacheKey>{key(1, 0, 4)});
}

TEST_CASE("a budget is within what can be mapped") {
  Fixture f;
  constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;
  for (const std::uint64_t bad : {std::uint64_t{0} - 1, std::uint64_t{0} - 2 * kGiB,
                                  Options::kMaxMaxBytes + 1, std::uint64_t{1} << 63}) {
    CAPTURE(bad);
    const std::string message =
        error_of(Errc::kInvalidArgument, [&] { static_cast<void>(f.open({.max_bytes = bad})); });
    CHECK(message.find(std::to_string(bad)) != std::string::npos);
    CHECK(message.find("1 TiB") != std::string::npos);
  }
  CHECK_FALSE(std::filesystem::exists(f.root()));
  CHECK(f.open({.max_bytes = Options::kMaxMaxBytes}).stats().max_bytes == Options::kMaxMaxBytes);
}

TEST_CASE("two handles on one store in one process") {
  Fixture f;
  auto first = f.open();
  auto second = f.open({.read_only = true});
  first.put(key(1), {.input_ids = ids(1, 10)});
  CHECK(second.get(key(1)));
  first.close();
  CHECK(second.get(key(1)));
  auto third = f.open();
  third.put(key(2), {.input_ids = ids(2, 10)});
  third.flush();
  CHECK(second.get(key(2)));
}

TEST_CASE("a view of the last handle keeps the store open, and the next handle shares it") {
  Fixture f;
  std::optional<TokenView> view;
  {
    auto cache = f.open();
    cache.put(key(1), {.input_ids = ids(1, 3000)});
    cache.flush();
    view = cache.get(key(1));
  }
  {
    auto cache = f.open();
    CHECK(cache.clear() == 1);
    for (std::uint64_t i = 0; i < 20; ++i) cache.put(key(i), {.input_ids = ids(99, 3000)});
  }
  CHECK(copy_of(view->input_ids()) == ids(1, 3000));
}

TEST_CASE("the tokenizer of the store") {
  Fixture f;
  {
    auto cache = f.open();
    CHECK(cache.stats().tokenizer_sha.empty());
    cache.save_manifest(sha(3));
    cache.save_manifest();
    CHECK(cache.stats().tokenizer_sha == sha(3));
    error_of(Errc::kInvalidArgument, [&] { cache.save_manifest(std::string(65, 'a')); });
  }
  CHECK(f.open({.read_only = true}).stats().tokenizer_sha == sha(3));
}

TEST_CASE("remembered files and tokenizers") {
  Fixture f;
  SourceDirectory files(3);
  files[0] = {"a.txt", {1, 2, 3, 4}, SourceKind::kSection, {1, 2, 3, 4, 5, 6, 7, 8}};
  files[1] = {"b", {5, -6, 7, 8}, SourceKind::kBinary, {}};
  files[2] = {std::string(300, 'n'), {}, SourceKind::kNotUtf8, {}};
  const FileIdentity identity{10, 20, 30, 40};
  {
    auto cache = f.open();
    CHECK_FALSE(cache.source_directory("/corpus"));
    cache.put_source_directory("/corpus", files);
    cache.put_source_directory("/empty", {});
    cache.remember_tokenizer_file("/tokenizer.json", identity, sha(1));
    CHECK(cache.source_directory("/corpus"));
    CHECK(cache.tokenizer_of_file("/tokenizer.json", identity) == sha(1));
  }
  auto cache = f.open();
  const auto found = cache.source_directory("/corpus");
  REQUIRE(found);
  REQUIRE(found->size() == 3);
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK((*found)[i].name == files[i].name);
    CHECK((*found)[i].identity == files[i].identity);
    CHECK((*found)[i].kind == files[i].kind);
    CHECK((*found)[i].section == files[i].section);
  }
  CHECK(cache.source_directory("/empty")->empty());
  CHECK_FALSE(cache.source_directory("/other"));
  CHECK(cache.tokenizer_of_file("/tokenizer.json", identity) == sha(1));
  CHECK_FALSE(cache.tokenizer_of_file("/tokenizer.json", {11, 20, 30, 40}));
  CHECK_FALSE(cache.tokenizer_of_file("/other.json", identity));
  CHECK(cache.clear() == 0);
  CHECK_FALSE(cache.source_directory("/corpus"));
}

TEST_CASE("puts are committed after the batch's age, and when it is half full, without a flush") {
  Fixture f;
  const auto committed = [](TokenizedCache& cache) {
    for (int i = 0; i < 2000 && cache.stats().pending > 0; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    return cache.stats().pending == 0;
  };
  auto by_age = f.open({.batch_age = std::chrono::milliseconds(50)});
  by_age.put(key(1), {.input_ids = ids(1, 10)});
  CHECK(committed(by_age));
  by_age.close();
  auto by_bytes = f.open({.batch_bytes = 1 << 16, .batch_age = std::chrono::hours(1)});
  by_bytes.put(key(2), {.input_ids = ids(2, 10)});
  CHECK(by_bytes.stats().pending == 1);
  by_bytes.put(key(3), {.input_ids = ids(3, 10'000)});
  CHECK(committed(by_bytes));
  // More than the batch may hold waits for the commit; what is larger than a batch is one by itself.
  for (std::uint64_t i = 0; i < 50; ++i) {
    by_bytes.put(key(100 + i), {.input_ids = ids(i, i % 10 == 0 ? 40'000 : 4'000)});
    CHECK(by_bytes.stats().pending <= 5);
  }
  by_bytes.flush();
  CHECK(by_bytes.stats().entry_count == 53);
}

TEST_CASE("keys lists what is committed, of one tokenizer or length if asked") {
  Fixture f;
  auto cache = f.open();
  CHECK(cache.keys().empty());
  std::vector<CacheKey> all;
  for (std::uint64_t i = 0; i < 30; ++i) {
    all.push_back(key(i, static_cast<int>(i % 2), i % 3 == 0 ? 512 : 2048));
    cache.put(all.back(), {.input_ids = ids(i, 10 * i)});
  }
  CHECK(cache.keys().empty());  // pending
  cache.flush();
  std::sort(all.begin(), all.end());
  CHECK(cache.keys() == all);
  CHECK(cache.keys(sha(1)).size() == 15);
  CHECK(cache.keys({}, 512).size() == 10);
  for (const CacheKey& key : cache.keys(sha(0), 512)) {
    CHECK(key.tokenizer_sha() == sha(0));
    CHECK(key.sequence_len() == 512);
  }
  CHECK(cache.keys("nobody's").empty());
}

}  // namespace tokcask
