// What is saved of a damaged store: everything that is intact, byte by byte.
#include <sys/resource.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <fstream>
#include <map>

#include "files/store_files.h"
#include "lmdb/page_layout.h"
#include "lmdb/walker.h"
#include "record/record.h"
#include "support.h"

namespace tokcask {

using namespace test;

namespace fs = std::filesystem;
namespace layout = lmdb::layout;

namespace {

constexpr std::size_t kPage = 4096;

using Content = std::vector<std::byte>;

Content content(const fs::path& file) {
  Content bytes(fs::file_size(file));
  std::ifstream(file, std::ios::binary)
      .read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  return bytes;
}

void write(const fs::path& file, const Content& bytes) {
  std::ofstream(file, std::ios::binary | std::ios::trunc)
      .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

void zero_page(Content& bytes, std::size_t page) {
  if ((page + 1) * kPage <= bytes.size()) std::memset(bytes.data() + page * kPage, 0, kPage);
}

layout::PageHeader header(const Content& bytes, std::size_t page) {
  return layout::load<layout::PageHeader>(bytes.data() + page * kPage);
}

// The number of the meta page that the last commit wrote.
std::size_t newest_meta(const Content& bytes) {
  const auto metas = lmdb::meta_pages(bytes);
  REQUIRE((metas[0] && metas[1]));
  return metas[0]->txnid > metas[1]->txnid ? 0 : 1;
}

// Not the inside of a value.
bool is_page(const Content& bytes, std::size_t page) { return header(bytes, page).number == page; }

std::size_t pages(const Content& bytes) { return bytes.size() / kPage; }

// The page in which the record with this generation begins; 0 if it is inside a leaf.
std::size_t page_of_generation(const Content& bytes, std::uint64_t generation) {
  for (std::size_t page = 2; page < pages(bytes); ++page) {
    if (header(bytes, page).flags != layout::kOverflowPage) continue;
    const auto found = layout::load<record::Header>(bytes.data() + page * kPage + sizeof(layout::PageHeader));
    if (found.magic == record::kMagic && found.generation == generation) return page;
  }
  return 0;
}

// What a store has, by canonical key.
struct Truth {
  std::map<std::string, Ids> tokens;

  void put(TokenizedCache& cache, const CacheKey& key, const Ids& ids) {
    cache.put(key, {.input_ids = ids});
    tokens[key.canonical()] = ids;
  }
};

std::size_t length_of(std::uint64_t i) { return i * 137 % 1700; }  // some lie inside leaves

// Several commits, keys of two tokenizers, sections that are no hex digits, entries that were put again.
Truth make_store(const Fixture& f, std::uint64_t count) {
  Truth truth;
  auto cache = f.open();
  const auto put = [&](std::uint64_t i) {
    truth.put(cache, i % 7 == 3 ? CacheKey("a section in words " + std::to_string(i), sha(1), 4096) : key(i),
              ids(i, length_of(i)));
  };
  for (std::uint64_t i = 0; i < count; ++i) {
    put(i);
    if (i % (count / 4) == 0) cache.flush();
  }
  SourceFile file;
  file.name = "file";
  cache.put_source_directory("/corpus", {file});
  cache.flush();
  for (std::uint64_t i = 0; i < count; i += 5) put(i);
  cache.flush();
  for (std::uint64_t i = 1; i < count; i += 25) put(i);
  cache.flush();
  cache.close();
  return truth;
}

// Everything that is served is what was put. Returns how many entries are.
std::size_t check_content(TokenizedCache& cache, const Truth& truth) {
  std::size_t found = 0;
  for (const auto& [canonical, tokens] : truth.tokens) {
    const auto view = cache.get(CacheKey::parse(canonical));
    if (!view) continue;
    ++found;
    INFO(canonical);
    CHECK(copy_of(view->input_ids()) == tokens);
    CHECK(std::all_of(view->attention_mask().begin(), view->attention_mask().end(),
                      [](std::int32_t one) { return one == 1; }));
  }
  return found;
}

std::size_t open_and_check(const Fixture& f, const Truth& truth) {
  auto cache = f.open();
  CHECK(cache.stats().entry_count == cache.verify().records);
  CHECK(cache.verify().structure_ok);
  CHECK(is_clean(f));
  return check_content(cache, truth);
}

}  // namespace

TEST_CASE("damage to the tree or the meta pages costs no record") {
  Fixture f;
  const Truth truth = make_store(f, 200);
  Content bytes = content(f.data());
  SUBCASE("both meta pages") {
    zero_page(bytes, 0);
    zero_page(bytes, 1);
  }
  SUBCASE("the first meta page") { zero_page(bytes, 0); }
  SUBCASE("the second meta page") { zero_page(bytes, 1); }
  SUBCASE("every branch page") {
    for (std::size_t page = 2; page < pages(bytes); ++page) {
      if (is_page(bytes, page) && header(bytes, page).flags == layout::kBranchPage) zero_page(bytes, page);
    }
  }
  SUBCASE("the numbers of all pages") {
    for (std::size_t page = 2; page < pages(bytes); ++page) {
      if (is_page(bytes, page)) bytes[page * kPage] ^= std::byte{0x40};
    }
  }
  write(f.data(), bytes);
  CHECK(open_and_check(f, truth) == 200);
  CHECK(f.messages.count("200 of 200 records saved, the old file is kept as data.mdb.set-aside-1") == 1);
}

TEST_CASE("what was left in the store besides entries is kept where a snapshot is whole") {
  Fixture f;
  const Truth truth = make_store(f, 100);
  const std::uint64_t runs = f.open({.observe = true}).runs().size();
  CHECK(runs > 0);
  Content bytes = content(f.data());
  const std::size_t newest = newest_meta(bytes);
  SUBCASE("the other meta page is damaged") { zero_page(bytes, 1 - newest); }
  SUBCASE("the newest is damaged") { zero_page(bytes, newest); }
  SUBCASE("the newest tree is damaged") { zero_page(bytes, lmdb::meta_pages(bytes)[newest]->main.root); }
  write(f.data(), bytes);
  auto cache = f.open();
  CHECK(check_content(cache, truth) == truth.tokens.size());
  CHECK(cache.source_directory("/corpus"));
  CHECK(cache.runs().size() >= runs);
}

TEST_CASE("a key comes from the entry table where its leaf is lost") {
  Fixture f;
  Truth truth;
  {
    auto cache = f.open();
    for (std::uint64_t i = 0; i < 300; ++i) {
      truth.put(cache, i % 3 == 0 ? CacheKey("words " + std::to_string(i), sha(2), 1000) : key(i, i % 2),
                ids(i, 1000));
    }
  }
  Content bytes = content(f.data());
  // Leaves of records, told by their keys.
  std::size_t lost = 0;
  for (std::size_t page = 2; page < pages(bytes); ++page) {
    const auto at = header(bytes, page);
    if (at.flags != layout::kLeafPage) continue;
    const std::string text(reinterpret_cast<const char*>(bytes.data() + page * kPage), kPage);
    const auto has = [&](int tokenizer) {
      return text.find("|" + sha(tokenizer) + "|") != std::string::npos;
    };
    if (!has(0) && !has(1) && !has(2)) continue;
    zero_page(bytes, page);
    ++lost;
  }
  CHECK(lost > 3);
  write(f.data(), bytes);
  CHECK(open_and_check(f, truth) == 300);
}

TEST_CASE("access times are kept, and masks") {
  Fixture f;
  const Ids mask{1, 1, 0, 1};
  std::uint64_t stamp = 0;
  {
    auto cache = f.open();
    cache.put(key(1), {.input_ids = ids(1, 4), .attention_mask = mask});
    cache.put(key(2), {.input_ids = ids(2, 3000), .attention_mask = Ids(3000, 0)});
    cache.put(key(3), {.input_ids = ids(3, 500)});
    cache.flush();
    CHECK(cache.get(key(3)));
    const CacheKey third = key(3);
    stamp = cache.peek_many({&third, 1})[0]->info.last_access_ns;
  }
  Content bytes = content(f.data());
  zero_page(bytes, 1 - newest_meta(bytes));
  SUBCASE("from the store") { fs::remove(f.root() / "access.shm"); }
  SUBCASE("from shared memory, where no snapshot is whole") {
    zero_page(bytes, 0);
    zero_page(bytes, 1);
  }
  write(f.data(), bytes);
  auto cache = f.open();
  const auto first = cache.get(key(1));
  const auto second = cache.get(key(2));
  CHECK(copy_of(first->attention_mask()) == mask);
  CHECK(copy_of(second->attention_mask()) == Ids(3000, 0));
  const CacheKey third = key(3);
  CHECK(cache.peek_many({&third, 1})[0]->info.last_access_ns == stamp);
}

TEST_CASE("of two records of a key the newer is taken, or else the older, which has the key's tokens too") {
  Fixture f;
  std::uint64_t taken = 700;  // the seed of its tokens
  SUBCASE("both are intact") {}
  SUBCASE("the newer one is damaged") { taken = 7; }
  {
    auto cache = f.open();
    for (std::uint64_t i = 0; i < 20; ++i) cache.put(key(i), {.input_ids = ids(i, 1500)});
    cache.flush();
    cache.put(key(7), {.input_ids = ids(700, 1500)});
    cache.flush();
  }
  Content bytes = content(f.data());
  const std::size_t newer = page_of_generation(bytes, 21);
  REQUIRE(newer != 0);
  REQUIRE(page_of_generation(bytes, 8) != 0);  // the older one is still in the file
  zero_page(bytes, 0);
  zero_page(bytes, 1);
  if (taken == 7) bytes[newer * kPage + 16 + record::kHeaderBytes] ^= std::byte{1};
  write(f.data(), bytes);
  auto cache = f.open();
  for (std::uint64_t i = 0; i < 20; ++i) CHECK(copy_of(cache.get(key(i))) == ids(i == 7 ? taken : i, 1500));
}

TEST_CASE("a file that was cut off gives what is left of it") {
  Fixture f;
  Truth truth;
  {
    auto cache = f.open();
    for (std::uint64_t i = 0; i < 200; ++i) {
      truth.put(cache, key(i), ids(i, length_of(i)));
      if (i % 50 == 0) cache.flush();
    }
  }
  const Content whole = content(f.data());
  std::size_t found = 0;
  for (const std::size_t eighths : {1U, 2U, 4U, 6U, 7U}) {
    CAPTURE(eighths);
    write(f.data(), Content(whole.begin(),
                            whole.begin() + static_cast<std::ptrdiff_t>(whole.size() * eighths / 8 + 100)));
    auto cache = f.open();
    const std::size_t before = found;
    found = check_content(cache, truth);
    CHECK(found >= before);
    CHECK(cache.verify().structure_ok);
  }
  CHECK(found > 100);
}

TEST_CASE("the budget holds for what is saved, newest first") {
  Fixture f;
  {
    auto cache = f.open();
    for (std::uint64_t i = 0; i < 400; ++i) {
      cache.put(key(i), {.input_ids = ids(i, 1900)});
      if (i % 40 == 0) cache.flush();
    }
  }
  Content bytes = content(f.data());
  zero_page(bytes, 0);
  write(f.data(), bytes);
  constexpr std::uint64_t kMaxBytes = 1 << 20;
  auto cache = f.open({.max_bytes = kMaxBytes, .shrink = true});
  CHECK(f.file_bytes() <= kMaxBytes);
  CHECK(cache.stats().entry_count > 60);
  CHECK(cache.get(key(399)));
  CHECK_FALSE(cache.get(key(0)));
  cache.put(key(1000), {.input_ids = ids(1000, 1900)});
  cache.flush();
  CHECK(cache.get(key(1000)));
  CHECK(f.file_bytes() <= kMaxBytes);
}

TEST_CASE("what was removed may come back as what it was, and does not where the last snapshot is whole") {
  Fixture f;
  {
    auto cache = f.open();
    for (std::uint64_t i = 0; i < 50; ++i) cache.put(key(i, i % 2), {.input_ids = ids(i, 1500)});
    cache.flush();
    cache.prune(PruneOptions{.tokenizer_sha = sha(1)});
  }
  Content bytes = content(f.data());
  bool is_whole = true;
  zero_page(bytes, 1 - newest_meta(bytes));
  SUBCASE("the last snapshot is whole") {}
  SUBCASE("none is") {
    zero_page(bytes, 0);
    zero_page(bytes, 1);
    is_whole = false;
  }
  write(f.data(), bytes);
  auto cache = f.open();
  for (std::uint64_t i = 0; i < 50; ++i) {
    const auto view = cache.get(key(i, i % 2));
    if (view) CHECK(copy_of(view->input_ids()) == ids(i, 1500));
    CHECK(view.has_value() == (i % 2 == 0 || !is_whole));
  }
}

TEST_CASE("no room for what is left: the store starts empty, and says how to save it later") {
  Fixture f;
  {
    auto cache = f.open();
    for (std::uint64_t i = 0; i < 200; ++i) cache.put(key(i), {.input_ids = ids(i, 1900)});
  }
  Content bytes = content(f.data());
  zero_page(bytes, 0);
  write(f.data(), bytes);
  const auto previous = std::signal(SIGXFSZ, SIG_IGN);
  rlimit limit{};
  REQUIRE(getrlimit(RLIMIT_FSIZE, &limit) == 0);
  const rlimit small{600 << 10, limit.rlim_max};
  REQUIRE(setrlimit(RLIMIT_FSIZE, &small) == 0);
  const std::uint64_t entries = f.open().stats().entry_count;
  REQUIRE(setrlimit(RLIMIT_FSIZE, &limit) == 0);
  std::signal(SIGXFSZ, previous);
  CHECK(entries == 0);
  CHECK(f.messages.count("verify --repair") == 1);
  CHECK(content(f.root() / "data.mdb.set-aside-1") == bytes);

  fs::rename(f.root() / "data.mdb.set-aside-1", f.data());
  const VerifyReport report = verify(f.root(), {.repair = true}, {.on_message = f.messages.sink()});
  CHECK(report.repaired);
  CHECK(report.saved == 200);
  CHECK(f.open().get(key(150)));
}

TEST_CASE("random damage: what is served is what was put, or nothing") {
  const std::uint64_t seed = test_seed();
  INFO("TOKCASK_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  Fixture f;
  const Truth truth = make_store(f, 60);
  const Content whole = content(f.data());
  const std::size_t count = pages(whole);
  const auto page = [&] { return random() % count; };
  std::size_t served = 0;
  constexpr int kCases = 80;
  for (int i = 0; i < kCases; ++i) {
    CAPTURE(i);
    Content bytes = whole;
    const std::uint64_t kind = random() % 4;
    CAPTURE(kind);
    const std::size_t times = 1 + random() % 3;
    if (kind == 0) {
      for (std::size_t n = 0; n < times; ++n)
        bytes[random() % bytes.size()] ^= std::byte{1} << (random() % 8);
    } else if (kind == 1) {
      zero_page(bytes, page());
    } else if (kind == 2) {
      const std::size_t at = page() * kPage;
      for (std::size_t n = 0; n < kPage; ++n) bytes[at + n] = static_cast<std::byte>(random());
    } else {
      const std::size_t a = page() * kPage;
      const std::size_t b = page() * kPage;
      std::swap_ranges(bytes.begin() + static_cast<std::ptrdiff_t>(a),
                       bytes.begin() + static_cast<std::ptrdiff_t>(a + kPage),
                       bytes.begin() + static_cast<std::ptrdiff_t>(b));
    }
    fs::remove_all(f.root());
    fs::create_directories(f.root());
    write(f.data(), bytes);
    auto cache = f.open();
    const std::size_t found = check_content(cache, truth);
    if (found + 25 < truth.tokens.size()) MESSAGE(f.messages.all().back());
    CHECK(found + 25 >= truth.tokens.size());
    served += found;
  }
  CHECK(served > kCases * truth.tokens.size() * 9 / 10);
  f.expect_damage();  // damaged records in a good structure stay
}

}  // namespace tokcask
