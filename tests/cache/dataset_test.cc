// A data set over one store in one process: items by index, while the store changes under it.
#include <tokcask/dataset.h>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <numeric>
#include <thread>

#include "files/store_files.h"
#include "os/clock.h"
#include "shm/key_table.h"
#include "support.h"

namespace tokcask {

using namespace test;

namespace {

// Short ones lie inside leaves, long ones in pages of their own.
std::size_t length_of(std::uint64_t section) { return section % 3 == 0 ? 40 + section % 100 : 900 + section; }

std::vector<CacheKey> fill(TokenizedCache& cache, std::uint64_t count) {
  std::vector<CacheKey> keys;
  for (std::uint64_t i = 0; i < count; ++i) {
    keys.push_back(key(i));
    cache.put(keys.back(), {.input_ids = ids(i, length_of(i))});
  }
  cache.flush();
  return keys;
}

bool is(const std::optional<TokenView>& view, std::uint64_t seed, std::size_t length) {
  return view && copy_of(view->input_ids()) == ids(seed, length);
}

std::vector<std::filesystem::path> tables_in(const std::filesystem::path& root) {
  std::vector<std::filesystem::path> tables;
  for (const auto& entry : std::filesystem::directory_iterator(root)) {
    if (entry.path().filename().string().starts_with("keys-")) tables.push_back(entry.path());
  }
  return tables;
}

std::vector<std::size_t> all_of(const TokenDataset& dataset) {
  std::vector<std::size_t> indices(dataset.size());
  std::iota(indices.begin(), indices.end(), std::size_t{0});
  return indices;
}

}  // namespace

TEST_CASE("items come by index, in the order of the keys given, with lengths known before") {
  Fixture f;
  auto cache = f.open();
  std::vector<CacheKey> keys = fill(cache, 300);
  std::reverse(keys.begin(), keys.end());
  keys.push_back(keys[7]);  // twice
  auto dataset = TokenDataset::open(f.root(), keys, {.on_message = f.messages.sink()});
  REQUIRE(dataset.size() == 301);
  const std::vector<std::uint32_t> lengths = dataset.lengths();
  for (std::size_t i = 0; i < 300; ++i) {
    CHECK(is(dataset.get(i), 299 - i, length_of(299 - i)));
    CHECK(lengths[i] == length_of(299 - i));
    CHECK(dataset.key(i) == keys[i]);
  }
  CHECK(is(dataset.get(300), 292, length_of(292)));
  const auto views = dataset.get_many(std::vector<std::size_t>{5, 299, 5});
  CHECK(is(views[0], 294, length_of(294)));
  CHECK(is(views[1], 0, length_of(0)));
  CHECK(is(views[2], 294, length_of(294)));
  CHECK(dataset.get_many({}).empty());
  error_of(Errc::kInvalidArgument, [&] { static_cast<void>(dataset.get(301)); });
  error_of(Errc::kInvalidArgument,
           [&] { static_cast<void>(dataset.get_many(std::vector<std::size_t>{0, 400})); });
  CHECK(f.messages.all().empty());
}

TEST_CASE("alignment and masks are those of the store") {
  Fixture f;
  auto cache = f.open();
  const Ids tokens = ids(1, 3000);
  Ids mask(3000, 1);
  mask[17] = 0;
  cache.put(key(1), {.input_ids = tokens, .attention_mask = mask});
  cache.put(key(2), {.input_ids = {}});
  cache.put(key(3), {.input_ids = ids(3, 5)});
  cache.flush();
  auto dataset = TokenDataset::open(f.root(), std::vector{key(1), key(2), key(3)});
  const auto view = dataset.get(0);
  REQUIRE(view);
  CHECK(reinterpret_cast<std::uintptr_t>(view->input_ids().data()) % 64 == 0);
  CHECK(copy_of(view->attention_mask()) == mask);
  CHECK_FALSE(view->mask_is_all_ones());
  CHECK(copy_of(dataset.get(1)).empty());
  CHECK(dataset.get(2).value().mask_is_all_ones());
  CHECK(dataset.lengths() == std::vector<std::uint32_t>{3000, 0, 5});
}

TEST_CASE("missing keys are an error, are dropped, or are misses until they are put") {
  Fixture f;
  auto cache = f.open();
  fill(cache, 3);
  const std::vector<CacheKey> keys{key(0), key(100), key(2), key(101)};
  const std::string message = error_of(Errc::kMissing, [&] { TokenDataset::open(f.root(), keys); });
  CHECK(message.find("2 of 4 keys") != std::string::npos);
  CHECK(message.find(key(100).canonical()) != std::string::npos);

  auto dropped = TokenDataset::open(f.root(), keys, {.missing = MissingKeys::kDrop});
  REQUIRE(dropped.size() == 2);
  CHECK(std::vector(dropped.kept().begin(), dropped.kept().end()) == std::vector<std::size_t>{0, 2});
  CHECK(dropped.key(1) == key(2));
  CHECK(is(dropped.get(1), 2, length_of(2)));

  auto kept = TokenDataset::open(f.root(), keys, {.missing = MissingKeys::kKeep});
  REQUIRE(kept.size() == 4);
  CHECK(kept.kept().empty());
  CHECK_FALSE(kept.get(1));
  cache.put(key(100), {.input_ids = ids(100, 60)});
  cache.flush();
  CHECK(is(kept.get(1), 100, 60));
  CHECK_FALSE(kept.get(3));
}

TEST_CASE("no store, no data set") {
  Fixture f;
  error_of(Errc::kNotFound, [&] { TokenDataset::open(f.root(), std::vector{key(1)}); });
  CHECK_FALSE(std::filesystem::exists(f.root()));
  static_cast<void>(f.open());
  CHECK(TokenDataset::open(f.root(), {}).size() == 0);
}

TEST_CASE("closing is idempotent, and views outlive it") {
  Fixture f;
  auto cache = f.open();
  auto dataset = TokenDataset::open(f.root(), fill(cache, 30));
  const auto view = dataset.get(5);
  dataset.close();
  dataset.close();
  error_of(Errc::kClosed, [&] { static_cast<void>(dataset.get(0)); });
  cache.clear();
  fill(cache, 30);
  CHECK(is(view, 5, length_of(5)));
  CHECK(dataset.lengths().size() == 30);
}

TEST_CASE("the keys travel in 16 bytes each, and another handle takes the table that is there") {
  Fixture f;
  auto cache = f.open();
  auto dataset = TokenDataset::open(f.root(), fill(cache, 100));
  REQUIRE(tables_in(f.root()).size() == 1);
  const auto before = std::filesystem::last_write_time(tables_in(f.root()).front());
  const std::vector<std::byte> packed = dataset.packed_keys();
  CHECK(packed.size() < 100 * 16 + 200);
  auto other = TokenDataset::open_packed(f.root(), packed, {.missing = MissingKeys::kKeep});
  CHECK(std::filesystem::last_write_time(tables_in(f.root()).front()) == before);
  for (std::uint64_t i = 0; i < 100; ++i) CHECK(is(other.get(i), i, length_of(i)));
  error_of(Errc::kInvalidArgument,
           [&] { TokenDataset::open_packed(f.root(), std::span(packed).subspan(0, 40)); });
}

TEST_CASE("the table stays for the next run, which protects what it names") {
  Fixture f;
  std::vector<CacheKey> keys;
  {
    auto cache = f.open();
    keys = fill(cache, 300);
  }
  const auto table_of = [&] {
    REQUIRE(tables_in(f.root()).size() == 1);
    return files::id_of(tables_in(f.root()).front());
  };
  static_cast<void>(TokenDataset::open(f.root(), keys));
  const auto first = table_of();
  const std::uint64_t before = os::now_ns();
  {
    auto dataset = TokenDataset::open(f.root(), keys);
    CHECK(table_of() == first);
    // What is protected has not been used before the run began.
    auto cache = f.open();
    CHECK(cache.prune({.older_than = std::chrono::nanoseconds(os::now_ns() - before), .dry_run = true})
              .removed == 0);
    for (std::size_t i = 0; i < keys.size(); ++i) REQUIRE(is(dataset.get(i), i, length_of(i)));
    cache.put(key(1000), {.input_ids = ids(1000, 50)});
  }
  // Something was written since.
  static_cast<void>(TokenDataset::open(f.root(), keys));
  CHECK(table_of() != first);
  // A new file of the store.
  f.open().compact();
  static_cast<void>(TokenDataset::open(f.root(), std::span(keys).first(200)));
  CHECK(tables_in(f.root()).size() == 1);
}

// Two files of the same number of commits, of which a table fits one: the other has, where the table says, a
// record that is intact and of the key that is asked for, but was replaced.
TEST_CASE("a table of the file before an older copy took its place is not believed") {
  Fixture f;
  constexpr std::size_t kLength = 3000;
  const auto commit = [&](std::uint64_t section, std::uint64_t seed) {
    auto cache = f.open();
    cache.put(key(section), {.input_ids = ids(seed, kLength)});
    cache.flush();
  };
  const std::array<CacheKey, 2> keys{key(1), key(2)};
  commit(2, 2);
  const std::filesystem::path copy = f.root() / "copy";
  std::filesystem::copy_file(f.root() / "data.mdb", copy);
  commit(1, 10);
  commit(3, 3);
  static_cast<void>(TokenDataset::open(f.root(), keys));
  REQUIRE(tables_in(f.root()).size() == 1);
  const auto table = tables_in(f.root()).front();
  const std::filesystem::path kept = f.root() / "kept";
  std::filesystem::copy_file(table, kept);

  std::filesystem::copy_file(copy, f.root() / "data.mdb", std::filesystem::copy_options::overwrite_existing);
  commit(1, 11);
  commit(1, 12);
  std::filesystem::copy_file(kept, table, std::filesystem::copy_options::overwrite_existing);
  auto dataset = TokenDataset::open(f.root(), keys);
  CHECK(is(dataset.get(0), 12, kLength));
  CHECK(is(dataset.get(1), 2, kLength));
}

TEST_CASE("a table that is deleted or damaged is made anew") {
  Fixture f;
  auto cache = f.open();
  auto dataset = TokenDataset::open(f.root(), fill(cache, 100));
  const std::vector<std::byte> packed = dataset.packed_keys();
  const std::filesystem::path table = tables_in(f.root()).at(0);
  const auto check = [&] {
    auto other = TokenDataset::open_packed(f.root(), packed, {.missing = MissingKeys::kKeep});
    for (std::uint64_t i = 0; i < 100; ++i) CHECK(is(other.get(i), i, length_of(i)));
    for (std::uint64_t i = 0; i < 100; ++i) CHECK(is(dataset.get(i), i, length_of(i)));
  };
  std::filesystem::remove(table);
  check();
  std::ofstream(f.root() / "junk") << "not a table";
  std::filesystem::rename(f.root() / "junk", table);
  check();
}

TEST_CASE("a table that is overwritten while it is mapped costs items, and one warning") {
  Fixture f;
  auto cache = f.open();
  const std::vector<CacheKey> keys = fill(cache, 100);
  const char* filling = "";
  SUBCASE("zeros") { filling = "\0"; }
  SUBCASE("noise") { filling = "\xa7"; }
  Messages messages;
  auto dataset = TokenDataset::open(f.root(), keys, {.on_message = messages.sink()});
  const std::filesystem::path table = tables_in(f.root()).at(0);
  {
    const std::string nothing(std::filesystem::file_size(table), *filling);
    std::fstream(table, std::ios::binary | std::ios::in | std::ios::out) << nothing;
  }
  std::vector<std::size_t> all(100);
  std::iota(all.begin(), all.end(), std::size_t{0});
  for (const std::size_t i : all) CHECK_FALSE(dataset.get(i));
  for (const auto& view : dataset.get_many(all)) CHECK_FALSE(view);
  CHECK(messages.count("table of keys was damaged") == 1);
  auto again = TokenDataset::open(f.root(), keys);
  for (std::uint64_t i = 0; i < 100; ++i) CHECK(is(again.get(i), i, length_of(i)));
}

TEST_CASE("a place that is overwritten after its item was checked is not believed") {
  Fixture f;
  auto cache = f.open();
  auto dataset = TokenDataset::open(f.root(), fill(cache, 60));
  const auto check = [&] {
    for (std::uint64_t i = 0; i < 60; ++i) CHECK(is(dataset.get(i), i, length_of(i)));
  };
  check();
  std::fstream table(tables_in(f.root()).at(0), std::ios::binary | std::ios::in | std::ios::out);
  std::vector<shm::Place> places(60);
  const auto size = static_cast<std::streamsize>(60 * sizeof(shm::Place));
  table.seekg(4096);
  table.read(reinterpret_cast<char*>(places.data()), size);
  SUBCASE("lengths") {
    for (shm::Place& place : places) place.length /= 2;
  }
  SUBCASE("places") { std::rotate(places.begin(), places.begin() + 1, places.end()); }
  SUBCASE("masks") {
    for (shm::Place& place : places) place.offset_and_flags ^= shm::Place::kMask;
  }
  table.seekp(4096);
  table.write(reinterpret_cast<const char*>(places.data()), size);
  REQUIRE(table.flush());
  check();
}

TEST_CASE("a table that lies is not believed: whatever it says, an item is its own entry or none") {
  Fixture f;
  auto cache = f.open();
  const std::vector<CacheKey> keys = fill(cache, 60);
  const std::vector<std::byte> packed = TokenDataset::open(f.root(), keys).packed_keys();
  const std::uint64_t seed = test_seed();
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  // Tables with right checksums and wrong content: places of other items, of nothing, and outside the file.
  for (int round = 0; round < 42; ++round) {
    auto good = TokenDataset::open(f.root(), keys);
    std::ifstream in(tables_in(f.root()).at(0), std::ios::binary);
    std::vector<char> bytes{std::istreambuf_iterator<char>(in), {}};
    std::vector<shm::Place> places(60);
    std::memcpy(static_cast<void*>(places.data()), bytes.data() + 4096, 60 * sizeof(shm::Place));
    const int lie_about = round % 7;
    if (lie_about == 0) std::shuffle(places.begin(), places.end(), random);
    for (shm::Place& place : places) {
      if (lie_about == 1) place.offset_and_flags = random() >> (random() % 64);
      if (lie_about == 2) place.generation += random() % 3;
      if (lie_about == 3) place.length = static_cast<std::uint32_t>(random() >> (random() % 64));
      if (lie_about == 4) place.slot += static_cast<std::uint32_t>(random() % 3);
      if (lie_about == 5) {
        // The beginning of the right record, as if that were all.
        place.offset_and_flags |= shm::Place::kDerived;
        place.length = static_cast<std::uint32_t>(random() % place.length);
      }
    }
    if (lie_about == 6) places.resize(random() % 100);
    std::array<std::uint8_t, 16> uuid{};
    std::memcpy(uuid.data(), bytes.data() + 16, uuid.size());
    std::uint64_t txnid = 0;
    std::memcpy(&txnid, bytes.data() + 64, sizeof txnid);
    std::int64_t data_mtime_ns = 0;
    std::memcpy(&data_mtime_ns, bytes.data() + 72, sizeof data_mtime_ns);
    const auto lie = shm::KeyTable::publish(f.root(), {uuid, txnid, data_mtime_ns, places, packed});
    REQUIRE(lie->why_private().empty());
    auto dataset = TokenDataset::open_packed(f.root(), packed, {.missing = MissingKeys::kKeep});
    for (int twice = 0; twice < 2; ++twice) {
      for (std::uint64_t i = 0; i < 60; ++i) CHECK(is(dataset.get(i), i, length_of(i)));
    }
  }
}

TEST_CASE("an item follows its entry: replaced, removed, put again, moved by its neighbours") {
  Fixture f;
  auto cache = f.open();
  const std::vector<CacheKey> keys = fill(cache, 400);
  auto dataset = TokenDataset::open(f.root(), keys);
  const std::uint64_t seed = test_seed();
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  std::map<std::uint64_t, std::pair<std::uint64_t, std::size_t>> now;
  for (std::uint64_t i = 0; i < 400; ++i) now[i] = {i, length_of(i)};
  for (int round = 0; round < 40; ++round) {
    for (int change = 0; change < 30; ++change) {
      const std::uint64_t section = random() % 500;
      const std::size_t length = random() % 2 == 0 ? random() % 300 : 1000 + random() % 3000;
      cache.put(key(section), {.input_ids = ids(random() % 1000, length)});
      const auto put = cache.get(key(section));
      if (section < 400) now[section] = {0, 0};
      if (section < 400) {
        const Ids tokens = copy_of(put->input_ids());
        // Which ids they are is told by the first; an empty entry is any.
        for (std::uint64_t s = 0; s < 1000; ++s) {
          if (ids(s, length) == tokens) now[section] = {s, length};
        }
      }
    }
    if (round == 20) {
      CHECK(cache.clear() > 0);
      now.clear();
      for (std::uint64_t i = 0; i < 400; i += 2) {
        cache.put(key(i), {.input_ids = ids(i + 1, length_of(i))});
        now[i] = {i + 1, length_of(i)};
      }
    }
    cache.flush();
    const auto views = dataset.get_many(all_of(dataset));
    for (std::uint64_t i = 0; i < 400; ++i) {
      CAPTURE(i);
      const auto expected = now.find(i);
      if (expected == now.end()) {
        CHECK_FALSE(views[i]);
      } else {
        CHECK(is(views[i], expected->second.first, expected->second.second));
      }
    }
  }
}

TEST_CASE("a table that no longer fits is made anew") {
  Fixture f;
  auto cache = f.open();
  std::vector<CacheKey> keys;
  for (std::uint64_t i = 0; i < 2000; ++i) {
    keys.push_back(key(i));
    cache.put(keys.back(), {.input_ids = ids(i, 50)});  // all inside leaves
  }
  cache.flush();
  auto dataset = TokenDataset::open(f.root(), keys);
  const auto first = std::filesystem::last_write_time(tables_in(f.root()).at(0));
  cache.put(key(5000), {.input_ids = ids(1, 50)});
  cache.flush();
  for (int round = 0; round < 4; ++round) {
    const auto views = dataset.get_many(all_of(dataset));
    for (std::uint64_t i = 0; i < 2000; ++i) CHECK(is(views[i], i, 50));
  }
  REQUIRE(tables_in(f.root()).size() == 1);
  CHECK(std::filesystem::last_write_time(tables_in(f.root()).at(0)) != first);
}

TEST_CASE("a damaged record is a miss with one warning") {
  Fixture f;
  f.expect_damage();
  std::vector<CacheKey> keys;
  {
    auto cache = f.open();
    keys = fill(cache, 50);
    cache.close();
  }
  std::fstream file(f.data(), std::ios::in | std::ios::out | std::ios::binary);
  std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
  const Ids wanted = ids(7, length_of(7));
  const auto* const pattern = reinterpret_cast<const char*>(wanted.data());
  const auto at = std::search(bytes.begin(), bytes.end(), pattern, pattern + 200);
  REQUIRE(at != bytes.end());
  file.clear();
  file.seekp(at - bytes.begin() + 100);
  file.put(static_cast<char>(~*(at + 100)));
  file.close();
  auto dataset = TokenDataset::open(f.root(), keys, {.on_message = f.messages.sink()});
  for (int round = 0; round < 3; ++round) {
    for (std::uint64_t i = 0; i < 50; ++i) {
      if (i == 7) {
        CHECK_FALSE(dataset.get(i));
      } else {
        CHECK(is(dataset.get(i), i, length_of(i)));
      }
    }
  }
  CHECK(f.messages.count("is damaged") == 1);
}

TEST_CASE("what a data set has is protected from eviction while it is open") {
  Fixture f;
  const Options options{.max_bytes = std::uint64_t{4} << 20};
  auto cache = f.open(options);
  const std::vector<CacheKey> keys = fill(cache, 300);
  cache.close();
  auto dataset = TokenDataset::open(f.root(), keys);
  auto writer = f.open(options);
  for (std::uint64_t i = 1000; i < 3000; ++i) writer.put(key(i), {.input_ids = ids(i, 2000)});
  writer.flush();
  CHECK(writer.stats().run.declined > 0);
  for (std::uint64_t i = 0; i < 300; ++i) CHECK(is(dataset.get(i), i, length_of(i)));
}

TEST_CASE("a data set pins nothing between its calls, so a writer reuses what it frees") {
  Fixture f;
  auto cache = f.open({.batch_age = std::chrono::hours(1)});  // one commit per flush, on any machine
  const std::vector<CacheKey> keys = fill(cache, 300);
  auto dataset = TokenDataset::open(f.root(), keys);
  std::uint64_t settled = 0;
  for (int round = 0; round < 100; ++round) {
    for (std::uint64_t i = 0; i < 300; ++i) cache.put(key(i), {.input_ids = ids(i, length_of(i))});
    cache.flush();
    for (std::uint64_t i = 0; i < 300; ++i) CHECK(is(dataset.get(i), i, length_of(i)));
    if (round == 5) settled = f.file_bytes();
  }
  CHECK(f.file_bytes() <= settled + settled / 4);
}

TEST_CASE("threads read one data set while another thread writes") {
  Fixture f;
  auto cache = f.open({.batch_age = std::chrono::milliseconds(1)});
  const std::vector<CacheKey> keys = fill(cache, 500);
  auto dataset = TokenDataset::open(f.root(), keys);
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0};
  std::vector<std::thread> readers;
  for (std::uint64_t number = 0; number < 3; ++number) {
    readers.emplace_back([&, number] {
      std::mt19937_64 random(number);
      while (!stop) {
        std::vector<std::size_t> indices(64);
        for (std::size_t& index : indices) index = random() % 500;
        const auto views = dataset.get_many(indices);
        for (std::size_t i = 0; i < indices.size(); ++i) {
          if (!is(views[i], indices[i], length_of(indices[i]))) ++wrong;
        }
        static_cast<void>(dataset.lengths());
      }
    });
  }
  for (std::uint64_t round = 0; round < 60; ++round) {
    for (std::uint64_t i = 0; i < 20; ++i) {
      const std::uint64_t section = (20 * round + i) % 500;
      cache.put(key(section), {.input_ids = ids(section, length_of(section))});
    }
    cache.flush();
  }
  stop = true;
  for (std::thread& reader : readers) reader.join();
  CHECK(wrong == 0);
}

namespace {

// The share of a file's pages that are in the page cache.
double resident(const std::filesystem::path& file) {
  const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  REQUIRE(fd >= 0);
  const std::size_t size = std::filesystem::file_size(file);
  void* const map = mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
  REQUIRE(map != MAP_FAILED);
  std::vector<unsigned char> pages((size + 4095) / 4096);
  REQUIRE(mincore(map, size, pages.data()) == 0);
  munmap(map, size);
  close(fd);
  const auto in =
      std::count_if(pages.begin(), pages.end(), [](unsigned char page) { return (page & 1) != 0; });
  return static_cast<double>(in) / static_cast<double>(pages.size());
}

// Has the kernel drop what it can of a file from the page cache: what nobody has mapped and touched.
void drop(const std::filesystem::path& file) {
  const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  REQUIRE(fd >= 0);
  CHECK(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) == 0);
  close(fd);
}

// Page faults that touching all of a file takes. As many as its pieces in the page cache need.
long faults_of(const std::filesystem::path& file, bool large_pages = false) {
  const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  REQUIRE(fd >= 0);
  const std::size_t size = std::filesystem::file_size(file);
  void* const map = mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
  REQUIRE(map != MAP_FAILED);
  close(fd);
  if (large_pages) madvise(map, size, MADV_HUGEPAGE);
  struct rusage before{};
  struct rusage after{};
  getrusage(RUSAGE_THREAD, &before);
  for (std::size_t at = 0; at < size; at += 4096) {
    static_cast<void>(*(static_cast<const volatile char*>(map) + at));
  }
  getrusage(RUSAGE_THREAD, &after);
  munmap(map, size);
  return after.ru_minflt + after.ru_majflt - before.ru_minflt - before.ru_majflt;
}

bool becomes(const std::function<bool()>& true_at_last) {
  for (int i = 0; i < 500; ++i) {
    if (true_at_last()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return false;
}

}  // namespace

TEST_CASE("what is prefetched, and all of a store that is populated, comes into the page cache") {
  Fixture f;
  std::vector<CacheKey> keys;
  {
    auto cache = f.open();
    for (std::uint64_t i = 0; i < 2000; ++i) {
      keys.push_back(key(i));
      cache.put(keys.back(), {.input_ids = ids(i, 3000)});
    }
    cache.close();
  }
  auto dataset = TokenDataset::open(f.root(), keys);
  dataset.close();
  drop(f.data());
  if (resident(f.data()) > 0.5) {
    MESSAGE("this file system keeps its pages (tmpfs); nothing to be seen here");
    return;
  }
  SUBCASE("some items") {
    auto again = TokenDataset::open(f.root(), keys);
    drop(f.data());
    const double before = resident(f.data());
    std::vector<std::size_t> most(1800);
    std::iota(most.begin(), most.end(), std::size_t{0});
    again.prefetch(most);
    CHECK(becomes([&] { return resident(f.data()) > std::max(before, 0.8); }));
  }
  SUBCASE("the whole store") {
    auto cache = f.open({.read_only = true, .populate = true});
    CHECK(becomes([&] { return resident(f.data()) > 0.95; }));
  }
}

TEST_CASE("what is populated lies in the page cache in large pieces, where the file system has them") {
  Fixture f;
  {
    auto cache = f.open();
    for (std::uint64_t i = 0; i < 2000; ++i) cache.put(key(i), {.input_ids = ids(i, 3000)});
  }
  drop(f.data());
  static_cast<void>(faults_of(f.data(), /*large_pages=*/true));
  const long large = faults_of(f.data());
  drop(f.data());
  const int fd = ::open(f.data().c_str(), O_RDONLY | O_CLOEXEC);
  constexpr off_t kPiece = 1 << 20;
  for (off_t at = 0; at < static_cast<off_t>(std::filesystem::file_size(f.data())); at += kPiece) {
    CHECK(posix_fadvise(fd, at, kPiece, POSIX_FADV_WILLNEED) == 0);
  }
  close(fd);
  REQUIRE(becomes([&] { return resident(f.data()) > 0.95; }));
  const long small = faults_of(f.data());
  if (large * 4 > small) {
    MESSAGE("this file system or kernel has no large pieces; nothing to be seen here");
    return;
  }
  drop(f.data());
  {
    auto cache = f.open({.read_only = true, .populate = true});
    REQUIRE(becomes([&] { return resident(f.data()) > 0.95; }));
  }
  CHECK(faults_of(f.data()) < small * 2 / 3);
}

TEST_CASE("prefetching takes any indices, and opening may populate the whole file") {
  Fixture f;
  auto cache = f.open();
  auto dataset = TokenDataset::open(f.root(), fill(cache, 200), {.populate = true});
  dataset.prefetch(all_of(dataset));
  dataset.prefetch({});
  dataset.prefetch(std::vector<std::size_t>(100'000, 3));
  error_of(Errc::kInvalidArgument, [&] { dataset.prefetch(std::vector<std::size_t>{200}); });
  CHECK(is(dataset.get(3), 3, length_of(3)));
}

}  // namespace tokcask
