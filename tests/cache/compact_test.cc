// A new data file in the place of the old one: compact(), clear(), a lower budget, and prune() with all it
// can choose by.
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <fstream>
#include <thread>

#include <tokcask/dataset.h>

#include "files/store_files.h"
#include "record/record.h"
#include "support.h"

namespace tokcask {

using namespace test;

namespace fs = std::filesystem;

namespace {

constexpr std::uint64_t kMiB = 1 << 20;

// Some inside leaves, some in pages of their own.
std::size_t length_of(std::uint64_t section) { return section * 131 % 2500; }

void put(TokenizedCache& cache, std::uint64_t section, int tokenizer = 0,
         std::int64_t sequence_len = kAnyLength) {
  cache.put(key(section, tokenizer, sequence_len), {.input_ids = ids(section, length_of(section))});
}

void fill(TokenizedCache& cache, std::uint64_t from, std::uint64_t to) {
  for (std::uint64_t i = from; i < to; ++i) put(cache, i);
  cache.flush();
}

bool has(TokenizedCache& cache, std::uint64_t section) {
  const auto view = cache.get(key(section));
  return view && copy_of(view->input_ids()) == ids(section, length_of(section));
}

bool has_all(TokenizedCache& cache, std::uint64_t from, std::uint64_t to) {
  for (std::uint64_t i = from; i < to; ++i) {
    if (!has(cache, i)) return false;
  }
  return true;
}

std::vector<EntryInfo> infos_of(TokenizedCache& cache) {
  std::vector<EntryInfo> infos;
  for (EntryPosition at;;) {
    const EntryChunk chunk = cache.entries(at);
    for (const Entry& entry : chunk.entries) infos.push_back(entry.info);
    if (chunk.end) return infos;
  }
}

// As a full disk would: files cannot grow beyond `bytes`.
class FileLimit {
 public:
  explicit FileLimit(std::uint64_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    REQUIRE(getrlimit(RLIMIT_FSIZE, &before_) == 0);
    const rlimit limit{bytes, before_.rlim_max};
    REQUIRE(setrlimit(RLIMIT_FSIZE, &limit) == 0);
  }
  ~FileLimit() {
    setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }
  FileLimit(const FileLimit&) = delete;
  FileLimit& operator=(const FileLimit&) = delete;

 private:
  rlimit before_{};
  void (*handler_)(int);
};

}  // namespace

TEST_CASE("compaction keeps every entry with all that is known of it, and the file gets smaller") {
  Fixture f;
  auto cache = f.open();
  fill(cache, 0, 600);
  cache.put(CacheKey("a section named by hand", sha(), 512), {.input_ids = ids(7, 30)});
  cache.put(key(5000, 1, 99), {.input_ids = ids(3, 4), .attention_mask = Ids{1, 0, 1, 1}});
  cache.put(key(5001), {.input_ids = ids(4, 10)}, {.created_ns = 1234, .last_access_ns = 5678});
  cache.put_source_directory("/corpus", {{"a.txt", {}}});
  cache.flush();
  for (std::uint64_t i = 0; i < 600; i += 2) REQUIRE(cache.get(key(i)));
  cache.prune({.sequence_len = 512});
  cache.put(CacheKey("a section named by hand", sha(), 2048), {.input_ids = ids(7, 30)});
  cache.save_manifest(sha(3));
  const auto before = infos_of(cache);
  const Stats figures = cache.stats();

  const CompactReport report = cache.compact();
  CHECK(report.bytes_before == figures.file_bytes);
  CHECK(report.bytes_after == f.file_bytes());
  CHECK(report.bytes_after < report.bytes_before);
  CHECK(report.entries == before.size());
  CHECK(report.damaged == 0);

  const auto check = [&](TokenizedCache& there) {
    const auto after = infos_of(there);
    REQUIRE(after.size() == before.size());
    for (std::size_t i = 0; i < after.size(); ++i) {
      CHECK(after[i].key == before[i].key);
      CHECK(after[i].created_ns == before[i].created_ns);
      CHECK(after[i].last_access_ns == before[i].last_access_ns);
      CHECK(after[i].bytes == before[i].bytes);
    }
    const Stats now = there.stats();
    CHECK(now.entry_count == figures.entry_count);
    CHECK(now.total_bytes == figures.total_bytes);
    CHECK(now.payload_bytes == figures.payload_bytes);
    CHECK(now.tokenizer_sha == sha(3));
    CHECK(now.max_bytes == Options::kDefaultMaxBytes);
    CHECK(there.source_directory("/corpus"));
    CHECK(there.tokenizers() == std::vector{sha(0), sha(1)});
    CHECK(has_all(there, 0, 600));
    const auto masked = there.get(key(5000, 1, 99));
    CHECK(copy_of(masked->attention_mask()) == Ids{1, 0, 1, 1});
    CHECK(there.get(CacheKey("a section named by hand", sha(), 2048)));
    CHECK_FALSE(there.get(CacheKey("a section named by hand", sha(), 512)));
  };
  check(cache);
  CHECK(cache.verify().structure_ok);
  // What is only in the file, without what this process or the shared memory has.
  cache.close();
  fs::remove(f.root() / "access.shm");
  const auto kept = infos_of(*std::make_unique<TokenizedCache>(f.open({.read_only = true})));
  for (std::size_t i = 0; i < kept.size(); ++i) CHECK(kept[i].last_access_ns >= before[i].last_access_ns);
  auto again = f.open();
  fill(again, 600, 700);
  CHECK(has_all(again, 0, 700));
  again.flush();
  CHECK(again.stats().run.run_id == figures.run.run_id + 1);
  CHECK(is_clean(f));
}

TEST_CASE("accesses that were only in shared memory are in the new file") {
  Fixture f;
  auto cache = f.open();
  fill(cache, 0, 10);
  cache.flush();
  auto reader = f.open({.read_only = true});
  REQUIRE(reader.get(key(3)));
  reader.close();
  const auto live = infos_of(cache);
  cache.compact();
  const fs::path copy = f.directory() / "copy";
  fs::create_directory(copy);
  fs::copy_file(f.data(), copy / "data.mdb");
  auto copied = TokenizedCache::open(copy, {.read_only = true});
  const auto stored = infos_of(copied);
  REQUIRE(stored.size() == live.size());
  for (std::size_t i = 0; i < live.size(); ++i) CHECK(stored[i].last_access_ns == live[i].last_access_ns);
}

TEST_CASE("short records and gaps: less than half is left") {
  Fixture f;
  auto cache = f.open();
  for (std::uint64_t i = 0; i < 6000; ++i) {
    cache.put(key(i, i % 3 == 0 ? 0 : 1), {.input_ids = ids(i, 20 + i % 60)});
    if (i % 100 == 0) cache.flush();
  }
  const PruneReport pruned = cache.prune({.tokenizer_sha = sha(0)});
  CHECK(pruned.removed == 2000);
  const CompactReport report = cache.compact();
  CHECK(2 * report.bytes_after <= report.bytes_before);
  // A second one has nothing to gain.
  CHECK(cache.compact().bytes_after == report.bytes_after);
}

TEST_CASE("views stay what they are, and the handle goes on, through many new files") {
  const std::uint64_t seed = test_seed();
  INFO("TOKCASK_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  Fixture f;
  auto cache = f.open();
  fill(cache, 0, 300);
  const std::uint64_t run = cache.run_id();
  std::vector<std::pair<std::uint64_t, TokenView>> held;
  for (std::uint64_t round = 0; round < 12; ++round) {
    for (int i = 0; i < 10; ++i) {
      const std::uint64_t section = random() % 300;
      held.emplace_back(section, *cache.get(key(section)));
    }
    put(cache, 1000 + round);  // pending
    held.emplace_back(1000 + round, *cache.get(key(1000 + round)));
    CHECK(cache.compact().entries == 300 + round + 1);
    CHECK(has(cache, 1000 + round));
    CHECK(has_all(cache, 0, 20));
    for (const auto& [section, view] : held)
      REQUIRE(copy_of(view.input_ids()) == ids(section, length_of(section)));
  }
  CHECK(cache.stats().entry_count == 312);
  CHECK(cache.run_id() == run);
  CHECK(f.messages.all().empty());
  CHECK(is_clean(f));
  // Who holds nothing of an old file does not keep the file.
  held.clear();
  CHECK(has(cache, 1));
  std::size_t deleted = 0;
  for (const auto& entry : fs::directory_iterator("/proc/self/fd")) {
    std::error_code ignored;
    const std::string target = fs::read_symlink(entry.path(), ignored).string();
    if (target.starts_with(f.root().string()) && target.find("data.mdb (deleted)") != std::string::npos)
      ++deleted;
  }
  CHECK(deleted == 0);
}

TEST_CASE("what wants the store alone is refused beside another handle or a data set, and changes nothing") {
  Fixture f;
  auto cache = f.open();
  fill(cache, 0, 50);
  const auto id = files::id_of(f.data());
  const auto refused = [&] {
    const std::string compacting = error_of(Errc::kBusy, [&] { cache.compact(); });
    CHECK(compacting.find("another handle or data set of this process") != std::string::npos);
    error_of(Errc::kBusy, [&] { f.open({.max_bytes = Options::kMinMaxBytes, .shrink = true}).close(); });
    CHECK(files::id_of(f.data()) == id);
    CHECK(has_all(cache, 0, 50));
  };
  {
    auto other = f.open();
    refused();
  }
  {
    auto reader = f.open({.read_only = true});
    refused();
  }
  {
    auto dataset = TokenDataset::open(f.root(), std::vector{key(1)});
    refused();
  }
  cache.compact();
  CHECK(files::id_of(f.data()) != id);
  CHECK(has_all(cache, 0, 50));
}

TEST_CASE("a data set makes a new table for a new file, and finds its items by place again") {
  Fixture f;
  std::vector<CacheKey> keys;
  auto cache = f.open();
  for (std::uint64_t i = 0; i < 500; ++i) {
    keys.push_back(key(i));
    put(cache, i);
  }
  cache.flush();
  const auto table = [&] {
    for (const auto& entry : fs::directory_iterator(f.root())) {
      if (entry.path().filename().string().starts_with("keys-")) return files::id_of(entry.path());
    }
    return std::optional<FileId>();
  };
  for (int round = 0; round < 3; ++round) {
    auto dataset = TokenDataset::open(f.root(), keys);
    const auto before = table();
    REQUIRE(before);
    dataset.close();
    cache.compact();
    auto again = TokenDataset::open(f.root(), keys);
    CHECK(table() != before);
    for (std::uint64_t i = 0; i < 500; ++i) REQUIRE(copy_of(again.get(i)) == ids(i, length_of(i)));
  }
  auto dataset = TokenDataset::open(f.root(), keys);
  cache.clear();
  CHECK_FALSE(dataset.get(77));
  put(cache, 77);
  cache.flush();
  CHECK(copy_of(dataset.get(77)) == ids(77, length_of(77)));
}

TEST_CASE("threads that put, read and flush by one handle, while another compacts") {
  Fixture f;
  auto cache = f.open({.batch_bytes = 1 << 17, .batch_age = std::chrono::milliseconds(2)});
  fill(cache, 0, 100);
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> lost{0};
  std::vector<std::thread> threads;
  for (std::uint64_t number = 0; number < 3; ++number) {
    threads.emplace_back([&, number] {
      for (std::uint64_t i = 0; !stop; ++i) {
        const std::uint64_t section = 1000 * (number + 1) + i % 900;
        put(cache, section);
        if (!has(cache, section)) ++lost;
        if (i % 50 == 0) cache.flush();
        if (!has(cache, section)) ++lost;
        if (!has(cache, i % 100)) ++lost;
      }
    });
  }
  std::uint64_t compactions = 0;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(2);
  while (std::chrono::steady_clock::now() < deadline) {
    cache.compact();
    ++compactions;
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  CHECK(compactions > 3);
  CHECK(lost == 0);
  CHECK(f.messages.all().empty());
  CHECK(cache.verify().structure_ok);
}

TEST_CASE("clear takes everything, and gives the space back where nobody else has the store; views stay") {
  Fixture f;
  auto cache = f.open({.max_bytes = 64 * kMiB});
  auto other = f.open();
  fill(cache, 0, 500);
  cache.put_source_directory("/corpus", {});
  cache.flush();
  const auto view = *cache.get(key(7));
  const std::uint64_t run = cache.stats().run.run_id;
  put(other, 900);
  const auto pending = *other.get(key(900));
  CHECK(cache.clear() == 501);
  CHECK(f.file_bytes() > 16 * 4096);
  for (TokenizedCache* handle : {&cache, &other}) {
    CHECK(handle->stats().entry_count == 0);
    CHECK(handle->stats().total_bytes == 0);
    CHECK(handle->stats().max_bytes == 64 * kMiB);
    CHECK_FALSE(handle->get(key(7)));
    CHECK_FALSE(handle->get(key(900)));
    CHECK_FALSE(handle->source_directory("/corpus"));
  }
  CHECK(copy_of(view.input_ids()) == ids(7, length_of(7)));
  CHECK(copy_of(pending.input_ids()) == ids(900, length_of(900)));
  fill(cache, 0, 100);
  CHECK(has_all(other, 0, 100));
  other.close();
  CHECK(cache.clear() == 100);
  CHECK(f.file_bytes() < 16 * 4096);
  CHECK(copy_of(view.input_ids()) == ids(7, length_of(7)));
  fill(cache, 0, 100);
  CHECK(has_all(cache, 0, 100));
  CHECK(cache.stats().run.run_id == run);
  CHECK(is_clean(f));
}

TEST_CASE("damaged records are left out, counted, and their slots are free again") {
  Fixture f;
  {
    auto cache = f.open();
    fill(cache, 0, 50);
  }
  const auto flip = [](std::vector<std::byte>& value) { value[50] ^= std::byte{0x10}; };
  change_record(f, key(13), flip);
  change_record(f, key(14), flip);
  auto cache = f.open();
  CHECK(cache.verify().damaged == 2);
  const CompactReport report = cache.compact();
  CHECK(report.entries == 48);
  CHECK(report.damaged == 2);
  CHECK(cache.verify().damaged == 0);
  CHECK(cache.verify().structure_ok);
  CHECK(cache.stats().entry_count == 48);
  put(cache, 13);
  cache.flush();
  CHECK(has(cache, 13));
  CHECK(cache.verify().structure_ok);
}

TEST_CASE("lock directories of files that are no more are removed, with whatever lies in them") {
  Fixture f;
  auto cache = f.open();
  fill(cache, 0, 10);
  CHECK(is_clean(f));
  fs::create_directories(f.root() / "locks" / "12345");
  std::ofstream(f.root() / "locks" / "12345" / "data.mdb") << "stray";
  std::ofstream(f.root() / "lock.mdb") << "of another time";
  cache.compact();
  CHECK(is_clean(f));
  CHECK_FALSE(fs::exists(f.root() / "lock.mdb"));
  CHECK(has_all(cache, 0, 10));
  cache.close();
  // One of an inode that was used before: whatever it holds, nobody has it open.
  const fs::path current = f.root() / "locks" / std::to_string(files::id_of(f.data())->second);
  fs::remove(current / "data.mdb");
  std::ofstream(current / "data.mdb") << "stray";
  std::ofstream(current / "lock.mdb", std::ios::trunc) << std::string(100'000, 'x');
  auto again = f.open();
  CHECK(has_all(again, 0, 10));
  CHECK(fs::is_regular_file(fs::symlink_status(f.data())));
  CHECK(fs::is_symlink(fs::symlink_status(current / "data.mdb")));
}

TEST_CASE("not enough disk for the new file: the old one stays, nothing else does") {
  Fixture f;
  auto cache = f.open();
  fill(cache, 0, 300);
  cache.flush();  // the run's figures too, so that nothing is left to commit to the old file
  const auto id = files::id_of(f.data());
  {
    const FileLimit limit(f.file_bytes() / 2);
    const std::string message = error_of(Errc::kIo, [&] { cache.compact(); });
    CAPTURE(message);
    CHECK(message.find("data.mdb") != std::string::npos);
    CHECK(message.find("stays as it was") != std::string::npos);
  }
  CHECK(files::id_of(f.data()) == id);
  CHECK(is_clean(f));
  fill(cache, 300, 310);
  CHECK(has_all(cache, 0, 310));
  cache.compact();
  CHECK(files::id_of(f.data()) != id);
  CHECK(has_all(cache, 0, 310));
}

TEST_CASE("a copy is a store of its own, made while others write, of what was committed") {
  Fixture f;
  auto cache = f.open();
  fill(cache, 0, 400);
  put(cache, 900);  // pending
  auto other = f.open();
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    for (std::uint64_t i = 1000; !stop; ++i) {
      put(other, i);
      other.flush();
    }
  });
  const fs::path to = f.directory() / "copy";
  const CopyReport report = cache.copy(to);
  stop = true;
  writer.join();
  CHECK(report.entries >= 401);
  CHECK(report.bytes == fs::file_size(to / "data.mdb"));
  auto copied = TokenizedCache::open(to, {.on_message = f.messages.sink()});
  CHECK(has_all(copied, 0, 400));
  CHECK(has(copied, 900));
  CHECK(copied.stats().entry_count == report.entries);
  const VerifyReport whole = copied.verify();
  CHECK(whole.structure_ok);
  CHECK(whole.damaged == 0);
  // Two stores: what is put into one is not in the other, and runs of one are not the other's.
  put(copied, 2'000'000);
  copied.flush();
  CHECK_FALSE(cache.get(key(2'000'000)));
  const std::string message = error_of(Errc::kInvalidArgument, [&] { static_cast<void>(cache.copy(to)); });
  CHECK(message.find("holds a store") != std::string::npos);
  auto reader = f.open({.read_only = true});
  CHECK(reader.copy(f.directory() / "by a reader").entries >= report.entries);
}

// ---- A lower budget ----

TEST_CASE("a lower budget: the entries used last stay, the file fits, and the writer goes on") {
  Fixture f;
  {
    auto cache = f.open({.max_bytes = 64 * kMiB});
    for (std::uint64_t i = 0; i < 1500; ++i) cache.put(key(i), {.input_ids = ids(i, 2000)});
    cache.flush();
    for (std::uint64_t i = 100; i < 200; ++i) REQUIRE(cache.get(key(i)));
  }
  const std::uint64_t before = f.file_bytes();
  CHECK(before > 8 * kMiB);
  // A reader never does that, and nobody who was not told to.
  f.open({.max_bytes = 4 * kMiB, .read_only = true}).close();
  f.open({.max_bytes = 4 * kMiB, .shrink = true, .read_only = true}).close();
  CHECK(f.file_bytes() == before);

  auto cache = f.open({.max_bytes = 4 * kMiB, .shrink = true});
  CHECK(f.file_bytes() <= 4 * kMiB);
  CHECK(f.messages.count("made smaller for a budget of 4194304 bytes") == 1);
  CHECK(cache.stats().max_bytes == 4 * kMiB);
  // The read ones were used last, and before them the ones put last.
  const std::uint64_t left = cache.stats().entry_count;
  CHECK(left > 350);
  for (std::uint64_t i = 100; i < 200; ++i) CHECK(cache.get(key(i)));
  for (std::uint64_t i = 1500 - (left - 100); i < 1500; ++i) CHECK(cache.get(key(i)));
  CHECK_FALSE(cache.get(key(0)));
  // There is room to remove and put: nothing is stuck. What was just read is protected, so some are declined.
  cache.close();
  auto writer = f.open();
  CHECK(writer.stats().max_bytes == 4 * kMiB);
  for (std::uint64_t i = 3000; i < 3100; ++i) writer.put(key(i), {.input_ids = ids(i, 2000)});
  writer.flush();
  CHECK(writer.stats().run.puts == 100);
  CHECK(writer.stats().run.declined == 0);
  CHECK(f.file_bytes() <= 4 * kMiB);
}

TEST_CASE("a budget that is lower than what is stored is an error, and removes nothing") {
  Fixture f;
  {
    auto cache = f.open({.max_bytes = 64 * kMiB});
    for (std::uint64_t i = 0; i < 1500; ++i) cache.put(key(i), {.input_ids = ids(i, 2000)});
  }
  const std::uint64_t before = f.file_bytes();
  const auto id = files::id_of(f.data());
  const std::string error =
      error_of(Errc::kInvalidArgument, [&] { f.open({.max_bytes = 4 * kMiB}).close(); });
  CHECK(error.find("max_bytes is 4194304,") != std::string::npos);
  CHECK(error.find(std::to_string(before)) != std::string::npos);
  CHECK(error.find("--shrink") != std::string::npos);
  // Entries take less than the file does, but a little less than that is too little too.
  const std::uint64_t close = f.open().stats().total_bytes + 4096;
  error_of(Errc::kInvalidArgument, [&] { f.open({.max_bytes = close}).close(); });
  CHECK(f.file_bytes() == before);
  CHECK(files::id_of(f.data()) == id);
  CHECK(is_clean(f));
  // The advice is good.
  auto cache = f.open({.max_bytes = before});
  CHECK(cache.stats().entry_count == 1500);
  // Beside one that has it open, nothing can be made smaller.
  error_of(Errc::kBusy, [&] { f.open({.max_bytes = 4 * kMiB}).close(); });
  CHECK(cache.stats().entry_count == 1500);
  CHECK(cache.stats().max_bytes == before);
  // Who joins a run keeps its budget for what it puts, and neither fails nor removes.
  auto joined = f.open({.max_bytes = 4 * kMiB, .run_id = cache.run_id()});
  CHECK(joined.stats().entry_count == 1500);
}

TEST_CASE("a lower budget that compaction alone can keep costs no entry") {
  Fixture f;
  {
    auto cache = f.open();
    for (std::uint64_t i = 0; i < 1200; ++i)
      cache.put(key(i, i % 4 == 0 ? 0 : 1), {.input_ids = ids(i, 2000)});
    cache.flush();
    cache.prune({.tokenizer_sha = sha(1)});
  }
  CHECK(f.file_bytes() > 8 * kMiB);
  auto cache = f.open({.max_bytes = 4 * kMiB});
  CHECK(f.file_bytes() <= 4 * kMiB);
  CHECK(cache.stats().entry_count == 300);
  CHECK(f.messages.count("0 entries removed") == 1);
}

TEST_CASE("a lower budget is a hard line, down to the least; views stay") {
  Fixture f;
  auto cache = f.open({.max_bytes = 64 * kMiB});
  for (std::uint64_t i = 0; i < 1000; ++i) cache.put(key(i), {.input_ids = ids(i, 2000)});
  cache.put_source_directory("/corpus", {});
  cache.flush();
  const auto view = *cache.get(key(3));
  cache.close();
  auto small = f.open({.max_bytes = Options::kMinMaxBytes, .shrink = true});
  CHECK(f.file_bytes() <= Options::kMinMaxBytes);
  CHECK(copy_of(view.input_ids()) == ids(3, 2000));
  CHECK(small.verify().structure_ok);
  small.put(key(5000), {.input_ids = ids(5000, 20)});
  small.flush();
  CHECK(f.file_bytes() <= Options::kMinMaxBytes);
}

TEST_CASE("after a budget was lowered to whatever, the next run's entries find room") {
  // In the least budget of all there may be room for fewer.
  for (std::uint64_t budget = Options::kMinMaxBytes + 64 * 1024; budget <= 2 * kMiB; budget += 53 * 1024) {
    CAPTURE(budget);
    Fixture f;
    {
      auto cache = f.open();
      fill(cache, 0, 600);
    }
    f.open({.max_bytes = budget, .shrink = true}).close();
    REQUIRE(f.file_bytes() <= budget);
    auto cache = f.open();
    for (std::uint64_t i = 1000; i < 1004; ++i) {
      put(cache, i);
      cache.flush();
      CHECK(has(cache, i));
    }
    REQUIRE(f.file_bytes() <= budget);
  }
}

TEST_CASE("a budget that is not given is the one that was given last") {
  Fixture f;
  CHECK(f.open().stats().max_bytes == Options::kDefaultMaxBytes);
  {
    auto cache = f.open({.max_bytes = 5 * kMiB});
    fill(cache, 0, 10);
  }
  auto cache = f.open();
  CHECK(cache.stats().max_bytes == 5 * kMiB);
  for (std::uint64_t i = 0; i < 1000; ++i) cache.put(key(i), {.input_ids = ids(i, 2000)});
  cache.flush();
  CHECK(f.file_bytes() <= 5 * kMiB);
  {
    auto more = f.open({.max_bytes = 6 * kMiB});
    put(more, 3000);
  }
  CHECK(cache.stats().max_bytes == 6 * kMiB);
}

// ---- Pruning ----

TEST_CASE("prune by tokenizer, length, age and runs: all that is given must hold") {
  Fixture f;
  auto cache = f.open();
  for (std::uint64_t i = 0; i < 10; ++i) {
    put(cache, i, 0, 3000);
    put(cache, i, 0, 4000);
    put(cache, i, 1, 3000);
    put(cache, i, 1, 4000);
  }
  cache.flush();
  const auto left = [&](int tokenizer, std::int32_t length) {
    return cache.keys(sha(tokenizer), length).size();
  };

  error_of(Errc::kInvalidArgument, [&] { cache.prune(PruneOptions{}); });
  error_of(Errc::kInvalidArgument, [&] { cache.prune({.dry_run = true}); });
  error_of(Errc::kInvalidArgument, [&] { cache.prune({.sequence_len = 0}); });
  error_of(Errc::kInvalidArgument, [&] { cache.prune({.keep_last_runs = 0}); });

  const PruneOptions both{.tokenizer_sha = sha(0), .sequence_len = 3000};
  PruneOptions dry = both;
  dry.dry_run = true;
  const std::uint64_t before = cache.stats().total_bytes;
  const PruneReport would = cache.prune(dry);
  CHECK(would.removed == 10);
  CHECK(cache.stats().entry_count == 40);
  const PruneReport did = cache.prune(both);
  CHECK(did.removed == would.removed);
  CHECK(did.bytes == would.bytes);
  CHECK(did.bytes == before - cache.stats().total_bytes);
  CHECK(left(0, 3000) == 0);
  CHECK(left(0, 4000) == 10);
  CHECK(left(1, 3000) == 10);

  CHECK(cache.prune({.older_than = std::chrono::hours(1), .tokenizer_sha = sha(1)}).removed == 0);
  CHECK(cache.prune({.tokenizer_sha = "none such"}).removed == 0);
  CHECK(cache.prune({.sequence_len = 4000}).removed == 20);
  CHECK(left(1, 3000) == 10);
  put(cache, 77, 1, 3000);  // pending: committed, then removed
  CHECK(cache.prune({.older_than = std::chrono::nanoseconds(0), .tokenizer_sha = sha(1)}).removed == 11);
  CHECK(cache.stats().entry_count == 0);
}

TEST_CASE("prune keeps what the newest runs have used") {
  Fixture f;
  for (std::uint64_t run = 0; run < 4; ++run) {
    auto cache = f.open();
    put(cache, run);
    static_cast<void>(cache.get(key(0)));
  }
  auto cache = f.open();
  const auto would = [&](unsigned runs) {
    return cache.prune({.keep_last_runs = runs, .dry_run = true}).removed;
  };
  CHECK(would(5) == 0);  // there are only four
  CHECK(would(4) == 0);
  CHECK(would(3) == 0);  // the first run's entry was used in all of them; 1 was put in the third to last
  CHECK(would(2) == 1);
  CHECK(would(1) == 2);
  CHECK(cache.prune({.keep_last_runs = 2}).removed == 1);
  CHECK_FALSE(cache.get(key(1)));
  CHECK(cache.get(key(0)));
  // This run has figures now, so it is the newest.
  CHECK(cache.prune({.keep_last_runs = 1}).removed == 2);
  CHECK(cache.keys() == std::vector{key(0)});
}

TEST_CASE("a large prune lets others write in between") {
  Fixture f;
  auto cache = f.open();
  for (std::uint64_t i = 0; i < 20'000; ++i) cache.put(key(i), {.input_ids = ids(i, 4)});
  cache.flush();
  auto other = f.open({.lock_timeout = std::chrono::milliseconds(10'000)});
  std::atomic<bool> pruning{true};
  std::uint64_t flushes = 0;
  std::thread writer([&] {
    for (std::uint64_t i = 0; pruning; ++i) {
      put(other, 100'000 + i, 1);
      other.flush();
      ++flushes;
    }
  });
  CHECK(cache.prune({.tokenizer_sha = sha(0)}).removed == 20'000);
  pruning = false;
  writer.join();
  CHECK(flushes > 2);
  CHECK(cache.stats().entry_count == flushes);
}

}  // namespace tokcask
