// What is saved of a damaged store: everything that is intact, byte by byte, and nothing that was replaced.
#include <sys/resource.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <fstream>
#include <map>
#include <set>

#include "cache/remains.h"
#include "cache/store_files.h"
#include "lmdb/page_layout.h"
#include "lmdb/page_scan.h"
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

// What a store had: for each key all that was ever put under it, the current tokens last.
struct Truth {
  std::map<std::string, std::vector<Ids>> tokens;
  std::set<std::string> live;

  void put(TokenizedCache& cache, const CacheKey& key, const Ids& ids) {
    cache.put(key, {.input_ids = ids});
    tokens[key.canonical()].push_back(ids);
    live.insert(key.canonical());
  }
};

std::size_t length_of(std::uint64_t i) { return i * 137 % 1700; }  // some lie inside leaves

enum class PutAgain { kSameTokens, kOtherTokens };

// Several commits, keys of two tokenizers, sections that are no hex digits, entries that were put again.
Truth make_store(const Fixture& f, std::uint64_t count, PutAgain again = PutAgain::kSameTokens) {
  const std::uint64_t other = again == PutAgain::kOtherTokens ? 5000 : 0;
  Truth truth;
  auto cache = f.open();
  const auto put = [&](std::uint64_t i, std::uint64_t seed) {
    truth.put(cache, i % 7 == 3 ? CacheKey("a section in words " + std::to_string(i), sha(1), 4096) : key(i),
              ids(seed, length_of(i)));
  };
  for (std::uint64_t i = 0; i < count; ++i) {
    put(i, i);
    if (i % (count / 4) == 0) cache.flush();
  }
  SourceFile file;
  file.name = "file";
  cache.put_source_directory("/corpus", {file});
  cache.flush();
  for (std::uint64_t i = 0; i < count; i += 5) put(i, i + other);
  cache.flush();
  for (std::uint64_t i = 1; i < count; i += 25) put(i, i + 2 * other);
  cache.flush();
  cache.close();
  return truth;
}

// Everything that is served is what was put last. Returns how many entries are.
std::size_t check_content(TokenizedCache& cache, const Truth& truth) {
  std::size_t found = 0;
  for (const auto& [canonical, puts] : truth.tokens) {
    const auto view = cache.get(CacheKey::parse(canonical));
    if (!view) continue;
    ++found;
    INFO(canonical);
    CHECK(copy_of(view->input_ids()) == puts.back());
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
  bool in_doubt = false;
  SUBCASE("both meta pages") {
    zero_page(bytes, 0);
    zero_page(bytes, 1);
  }
  SUBCASE("the first meta page") { zero_page(bytes, 0); }
  SUBCASE("the second meta page") { zero_page(bytes, 1); }
  // With many pages lost, old leaves refer to some of them: whether these had newer records nobody knows.
  SUBCASE("every branch page") {
    in_doubt = true;
    for (std::size_t page = 2; page < pages(bytes); ++page) {
      if (header(bytes, page).flags == layout::kBranchPage) zero_page(bytes, page);
    }
  }
  SUBCASE("the numbers of all pages") {
    in_doubt = true;
    for (std::size_t page = 2; page < pages(bytes); ++page) {
      if (header(bytes, page).flags != 0) bytes[page * kPage] ^= std::byte{0x40};
    }
  }
  write(f.data(), bytes);
  const std::size_t saved = open_and_check(f, truth);
  CHECK(saved >= (in_doubt ? 140 : 200));
  CHECK(f.messages.count(std::to_string(saved) +
                         " of 200 records saved, the old file is kept as data.mdb.set-aside-1") == 1);
}

TEST_CASE("what was left in the store besides entries is kept where a snapshot is whole") {
  Fixture f;
  const Truth truth = make_store(f, 100);
  const std::uint64_t runs = f.open({.observe = true}).runs().size();
  CHECK(runs > 0);
  Content bytes = content(f.data());
  const auto metas = lmdb::meta_pages(bytes);
  const std::size_t newest = metas[0]->txnid > metas[1]->txnid ? 0 : 1;
  SUBCASE("the other meta page is damaged") { zero_page(bytes, 1 - newest); }
  SUBCASE("the newest is damaged") { zero_page(bytes, newest); }
  SUBCASE("the newest tree is damaged") { zero_page(bytes, metas[newest]->main.root); }
  write(f.data(), bytes);
  auto cache = f.open();
  CHECK(check_content(cache, truth) == truth.live.size());
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
  SUBCASE("from the store") { fs::remove(f.root() / "access.shm"); }
  SUBCASE("from shared memory") {}
  Content bytes = content(f.data());
  zero_page(bytes, 0);
  zero_page(bytes, 1);
  write(f.data(), bytes);
  auto cache = f.open();
  const auto first = cache.get(key(1));
  const auto second = cache.get(key(2));
  CHECK(copy_of(first->attention_mask()) == mask);
  CHECK(copy_of(second->attention_mask()) == Ids(3000, 0));
  const CacheKey third = key(3);
  CHECK(cache.peek_many({&third, 1})[0]->info.last_access_ns == stamp);
}

TEST_CASE("a record that was replaced does not come back") {
  Fixture f;
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
  CHECK(page_of_generation(bytes, 8) != 0);  // the older one is still in the file
  zero_page(bytes, 0);
  zero_page(bytes, 1);
  const std::size_t payload = newer * kPage + 16 + record::kHeaderBytes;
  const Content intact = bytes;
  SUBCASE("the newer one is intact") {}
  SUBCASE("the newer one has one wrong bit") { bytes[payload] ^= std::byte{1}; }
  SUBCASE("the newer one is lost as a whole") { zero_page(bytes, newer); }
  SUBCASE("the newer one is lost, and so are all entry rows that know it") {
    zero_page(bytes, newer);
    for (std::size_t page = newer + 1; page < pages(bytes); ++page) {
      if (header(bytes, page).flags == layout::kOverflowPage) zero_page(bytes, page);
    }
  }
  write(f.data(), bytes);
  auto cache = f.open();
  const auto view = cache.get(key(7));
  CHECK_FALSE(view);
  // Both are there: other keys may have been put again as well, and what they had then be lost.
  const bool nothing = bytes == intact;
  for (std::uint64_t i = 0; i < 20; ++i) {
    const auto other = cache.get(key(i));
    if (i == 7) continue;
    REQUIRE(other.has_value() != nothing);
    if (other) CHECK(copy_of(other->input_ids()) == ids(i, 1500));
  }
}

TEST_CASE("an older record in an old page is not taken for an entry that was evicted") {
  Fixture f;
  const CacheKey again = key(0x5eed5eed5eed5eed, 1);
  Content before;
  {
    auto cache = f.open();
    for (std::uint64_t i = 0; i < 60; ++i) cache.put(key(i), {.input_ids = ids(i, 300)});
    cache.put(again, {.input_ids = ids(7, 300)});
    cache.flush();
    before = content(f.data());
    cache.put(again, {.input_ids = ids(700, 300)});
    cache.flush();
    cache.prune(PruneOptions{.tokenizer_sha = std::string(again.tokenizer_sha())});
    cache.put(key(1000), {.input_ids = ids(1000, 3000)});
    for (std::uint64_t i = 60; i < 120; ++i) cache.put(key(i), {.input_ids = ids(i, 300)});
    cache.flush();
  }
  const auto holds = [](const Content& bytes, std::size_t page, std::string_view text) {
    return std::string_view(reinterpret_cast<const char*>(bytes.data() + page * kPage), kPage).find(text) !=
           std::string_view::npos;
  };
  // Not only in what a split has left behind.
  const auto has_node = [&](const Content& bytes, std::size_t page, std::string_view text) {
    const layout::PageHeader leaf = header(bytes, page);
    if (leaf.flags != layout::kLeafPage) return false;
    for (std::size_t at = sizeof leaf; at < leaf.lower; at += sizeof(std::uint16_t)) {
      const auto node = layout::load<std::uint16_t>(bytes.data() + page * kPage + at);
      const std::size_t key = page * kPage + node + sizeof(layout::NodeHeader);
      if (std::memcmp(bytes.data() + key, text.data(), text.size()) == 0) return true;
    }
    return false;
  };
  Content bytes = content(f.data());
  // Nothing of the newer one is left: its leaf, and old copies of the entry rows, in which its section is the
  // hash of its id.
  const std::uint64_t number = record::hash_key(again.section_id());
  const std::string_view row(reinterpret_cast<const char*>(&number), sizeof number);
  std::size_t free_page = 0;
  for (std::size_t page = 2; page < pages(bytes); ++page) {
    if (header(bytes, page).flags == layout::kLeafPage && holds(bytes, page, again.canonical())) {
      zero_page(bytes, page);
      free_page = page;
    } else if (header(bytes, page).flags == layout::kOverflowPage && holds(bytes, page, row)) {
      zero_page(bytes, page);
    }
  }
  REQUIRE(free_page != 0);
  // The leaf of the older one comes back.
  std::size_t old_page = 2;
  while (old_page < pages(before) && !has_node(before, old_page, again.canonical())) ++old_page;
  REQUIRE(old_page < pages(before));
  std::memcpy(bytes.data() + free_page * kPage, before.data() + old_page * kPage, kPage);
  std::memcpy(bytes.data() + free_page * kPage, &free_page, sizeof free_page);
  std::size_t large = 0;  // to be damaged
  for (std::uint64_t generation = 1; generation < 200 && large == 0; ++generation)
    large = page_of_generation(bytes, generation);
  REQUIRE(large != 0);
  bytes[large * kPage] ^= std::byte{1};
  write(f.data(), bytes);

  auto cache = f.open();
  CHECK(f.messages.count("set-aside") == 1);
  CHECK_FALSE(cache.get(again));
  std::size_t found = 0;
  for (std::uint64_t i = 0; i < 120; ++i) found += cache.get(key(i)) ? 1 : 0;
  CHECK(found > 100);
}

TEST_CASE("where keys were put again with other tokens a meta page may have had the last of them") {
  Fixture f;
  const Truth truth = make_store(f, 200, PutAgain::kOtherTokens);
  Content bytes = content(f.data());
  SUBCASE("the first") { zero_page(bytes, 0); }
  SUBCASE("the second") { zero_page(bytes, 1); }
  write(f.data(), bytes);
  CHECK(open_and_check(f, truth) == 0);
}

TEST_CASE("where keys were put again with other tokens, what the last snapshot leads to is saved") {
  Fixture f;
  const Truth truth = make_store(f, 200, PutAgain::kOtherTokens);
  Content bytes = content(f.data());
  std::vector<std::size_t> leaves;
  std::vector<std::size_t> values;
  const lmdb::WalkReport walked = lmdb::walk(bytes);
  REQUIRE(walked.ok);
  for (std::size_t page = 2; page < pages(bytes); ++page) {
    if (header(bytes, page).flags == layout::kLeafPage) leaves.push_back(page);
    if (header(bytes, page).flags == layout::kOverflowPage) values.push_back(page);
  }
  // One page at a time, so that mostly little is lost; some of them are old ones.
  std::size_t most = 0;
  for (const auto& kind : {leaves, values}) {
    for (std::size_t i = 0; i < kind.size(); i += 7) {
      CAPTURE(kind[i]);
      Content damaged = bytes;
      zero_page(damaged, kind[i]);
      fs::remove(f.root() / "access.shm");
      write(f.data(), damaged);
      most = std::max(most, open_and_check(f, truth));
    }
  }
  CHECK(most > 150);
}

TEST_CASE("a file that was cut off gives what is left of it") {
  Fixture f;
  Truth truth;
  bool replaced = false;
  SUBCASE("of keys that were put once") {
    auto cache = f.open();
    for (std::uint64_t i = 0; i < 200; ++i) {
      truth.put(cache, key(i), ids(i, length_of(i)));
      if (i % 50 == 0) cache.flush();
    }
  }
  // The newer records of some, with all that knows of them, may be in what is cut off.
  SUBCASE("and nothing where keys were put again with other tokens") {
    replaced = true;
    truth = make_store(f, 200, PutAgain::kOtherTokens);
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
    if (!replaced) CHECK(found >= before);
    CHECK(cache.verify().structure_ok);
  }
  if (!replaced) CHECK(found > 100);
}

TEST_CASE("where slots were used again, a small part that is cut off may have had the last of any key") {
  Fixture f;
  Truth truth;
  std::uint64_t whole = 0;
  {
    auto cache = f.open();
    for (std::uint64_t i = 0; i < 100; ++i) truth.put(cache, key(i), ids(i, length_of(i)));
    cache.flush();
    for (std::uint64_t i = 0; i < 10; ++i) truth.put(cache, key(i), ids(1000 + i, length_of(i)));
    cache.flush();
    // The file has one record of each key now, and nothing of those before.
    cache.compact();
    whole = fs::file_size(f.data());
    for (std::uint64_t i = 50; i < 60; ++i) truth.put(cache, key(i), ids(2000 + i, length_of(i)));
  }
  const Content bytes = content(f.data());
  REQUIRE(whole < bytes.size() * 7 / 8);
  REQUIRE(whole > bytes.size() / 2);
  write(f.data(), Content(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(whole)));
  open_and_check(f, truth);
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

TEST_CASE("what a prune removed may come back as what it was, what a clear removed does not") {
  Fixture f;
  auto cache = f.open();
  for (std::uint64_t i = 0; i < 50; ++i) cache.put(key(i), {.input_ids = ids(i, 1500)});
  cache.flush();
  SUBCASE("prune") { cache.prune(PruneOptions{.tokenizer_sha = sha()}); }
  SUBCASE("clear") { cache.clear(); }
  const bool cleared = f.file_bytes() < 100'000;
  cache.close();
  Content bytes = content(f.data());
  zero_page(bytes, 0);
  zero_page(bytes, 1);
  write(f.data(), bytes);
  cache = f.open();
  std::size_t back = 0;
  for (std::uint64_t i = 0; i < 50; ++i) {
    const auto view = cache.get(key(i));
    if (view) CHECK(copy_of(view->input_ids()) == ids(i, 1500));
    back += view ? 1 : 0;
  }
  CHECK((back == 0) == cleared);
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

TEST_CASE("random damage: what is served is what was put last, or nothing") {
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
    if (found + 25 < truth.live.size()) MESSAGE(f.messages.all().back());
    CHECK(found + 25 >= truth.live.size());
    served += found;
  }
  CHECK(served > kCases * truth.live.size() * 9 / 10);
  f.expect_damage();  // damaged records in a good structure stay
}

TEST_CASE("the size of pages is found without a meta page") {
  CHECK(lmdb::guess_page_bytes({}) == 4096);
  CHECK(lmdb::guess_page_bytes(Content(100, std::byte{7})) == 4096);
  for (const std::size_t size : {512U, 1024U, 4096U, 8192U, 32768U}) {
    CAPTURE(size);
    Content bytes(64 * size);
    for (std::size_t page = 2; page < 64; ++page) {
      layout::PageHeader header{};
      header.number = page;
      header.flags = page % 2 == 0 ? layout::kLeafPage : layout::kOverflowPage;
      header.lower = header.upper = 1;
      std::memcpy(bytes.data() + page * size, &header, sizeof header);
    }
    CHECK(lmdb::guess_page_bytes(bytes) == size);
  }
}

}  // namespace tokcask
