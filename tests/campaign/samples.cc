#include "samples.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <map>
#include <stdexcept>

#include <fmt/format.h>

#include <tokcask/dataset.h>

namespace tokcask::campaign {

namespace fs = std::filesystem;

namespace {

constexpr std::uint64_t kMiB = 1 << 20;

// How a store comes about.
struct Plan {
  const char* name;
  std::size_t keys;
  std::size_t shortest;
  std::size_t longest;
  unsigned large_in_ten;  // so many of ten have `longest` or nearly so
  unsigned rounds;        // runs, each with some commits
  unsigned growing;       // of these, those that bring new keys
  std::uint64_t max_bytes;
  unsigned tokenizers;
  bool text_sections;  // ids of sections that are no hex digits
  unsigned replaced;   // in each commit, a hundredth of the entries so far
};

constexpr Plan kPlans[] = {
    {"inline", 400, 0, 400, 0, 4, 4, 64 * kMiB, 3, false, 8},
    {"8KiB", 60, 2048, 2048, 0, 4, 4, 64 * kMiB, 1, false, 8},
    {"mixed", 120, 10, 12'000, 2, 5, 5, 64 * kMiB, 2, true, 8},
    {"evicted", 400, 100, 3'000, 1, 6, 6, kMiB, 2, false, 8},
    {"deep", 1'500, 4, 24, 0, 3, 3, 64 * kMiB, 2, false, 8},
    // So few that pages are used again for newer values of what they held before.
    {"churned", 14, 60, 60, 0, 8, 1, 64 * kMiB, 1, false, 60},
    {"churned large", 10, 600, 600, 0, 8, 1, 64 * kMiB, 1, false, 60},
};

class Maker {
 public:
  Maker(const Plan& plan, std::uint64_t seed) : plan_(plan), random_(seed) {
    sample_.name = plan.name;
    sample_.max_bytes = plan.max_bytes;
    for (std::size_t i = 0; i < plan.keys; ++i) sample_.known.push_back({key(i), false, {}});
  }

  Sample make() {
    for (unsigned round = 0; round < plan_.rounds; ++round) live(round);
    close();
    sample_.anatomy = lmdb::test::dissect(sample_.files.data);
    return std::move(sample_);
  }

 private:
  [[nodiscard]] CacheKey key(std::size_t i) const {
    const char tokenizer = static_cast<char>('a' + i % plan_.tokenizers);
    const std::int64_t length = i % 5 == 0 ? 16'384 : 32'768;
    if (!plan_.text_sections || i % 3 != 0) return key_of(i, tokenizer, length);
    return CacheKey(fmt::format("src/part {}/a file.cc#{}", i % 11, i), std::string(64, tokenizer), length);
  }
  TokenizedCache open() {
    return TokenizedCache::open(root(), {.max_bytes = plan_.max_bytes,
                                         .batch_age = std::chrono::hours(1),
                                         .derive_lengths = false,
                                         .on_message = silence()});
  }
  [[nodiscard]] fs::path root() const { return directory_ / "store"; }
  [[nodiscard]] fs::path data() const { return root() / "data.mdb"; }

  std::size_t length() {
    if (below(random_, 10) < plan_.large_in_ten) return plan_.longest - below(random_, plan_.longest / 4);
    const std::size_t most = plan_.large_in_ten == 0 ? plan_.longest : plan_.longest / 8;
    return plan_.shortest + below(random_, most - plan_.shortest + 1);
  }

  void put(TokenizedCache& cache, std::size_t i) {
    Known& known = sample_.known[i];
    const bool masked = below(random_, 10) == 0;
    known.stored.push_back(content_of(i, known.stored.size() + 1, length(), masked));
    cache.put(known.key, known.stored.back().tokens());
  }

  // One run: its share of the keys in some commits, and replacements, look-ups, directories and a prune.
  void live(unsigned round) {
    TokenizedCache cache = open();
    const std::size_t first = plan_.keys * std::min(round, plan_.growing) / plan_.growing;
    const std::size_t last = plan_.keys * std::min(round + 1, plan_.growing) / plan_.growing;
    constexpr std::size_t kCommits = 3;
    for (std::size_t commit = 0; commit < kCommits; ++commit) {
      const std::size_t end = first + (last - first) * (commit + 1) / kCommits;
      for (std::size_t i = first + (last - first) * commit / kCommits; i < end; ++i) put(cache, i);
      // A replaced entry is often as long as before, so that its record takes the same pages again.
      for (std::size_t n = end * plan_.replaced / 100; n > 0; --n) put(cache, below(random_, end));
      for (std::size_t n = end / 6; n > 0; --n)
        static_cast<void>(cache.get(sample_.known[below(random_, end)].key));
      put_directory(cache, round * kCommits + commit);
      cache.flush();
      keep_image();
    }
    if (round + 2 == plan_.rounds && plan_.tokenizers > 1) {
      PruneOptions some;
      some.tokenizer_sha = std::string(64, 'b');
      some.sequence_len = 16'384;
      cache.prune(some);
      keep_image();
    }
    cache.save_manifest(std::string(64, 'a'));
  }

  static void put_directory(TokenizedCache& cache, std::size_t number) {
    SourceDirectory files;
    for (std::size_t i = 0; i < 5 + number % 40; ++i) {
      files.push_back(
          {.name = fmt::format("file-{:03}.cc", i), .identity = {.size = i, .inode = number + i}});
    }
    cache.put_source_directory(fmt::format("/corpus/directory-{}", number % 6), files);
    cache.remember_tokenizer_file("/tokenizer.json", {.size = 7, .inode = number}, std::string(64, 'a'));
  }

  void keep_image() { sample_.older.push_back(read_bytes(data())); }

  // Notes who is there, and takes the files.
  void close() {
    {
      TokenizedCache cache = open();
      std::vector<CacheKey> present;
      for (Known& known : sample_.known) {
        const auto view = cache.get(known.key);
        known.present = view.has_value();
        known.damaged = known.stored.size();
        if (known.present && !known.stored.back().is(*view))
          throw std::runtime_error("a sample is not right");
        if (known.present) present.push_back(known.key);
      }
      cache.close();
      const TokenDataset dataset = TokenDataset::open(root(), present, {.on_message = silence()});
      for (const fs::directory_entry& entry : fs::directory_iterator(root())) {
        const std::string name = entry.path().filename().string();
        if (!name.starts_with("keys-")) continue;
        sample_.keys_name = name;
        sample_.files.keys = read_bytes(entry.path());
      }
    }
    sample_.files.data = read_bytes(data());
    sample_.files.access = read_bytes(root() / "access.shm");
    sample_.files.write_lock = read_bytes(root() / "write.lock");
    for (const fs::directory_entry& entry : fs::directory_iterator(root() / "locks"))
      sample_.files.lock = read_bytes(entry.path() / "lock.mdb");
  }

  Plan plan_;
  Random random_;
  Directory directory_;
  Sample sample_;
};

}  // namespace

Bytes read_bytes(const fs::path& file) {
  Bytes bytes(fs::file_size(file));
  std::ifstream stream(file, std::ios::binary);
  stream.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  if (!stream) throw std::runtime_error("cannot read " + file.string());
  return bytes;
}

void write_bytes(const fs::path& file, const Bytes& bytes) {
  std::ofstream stream(file, std::ios::binary | std::ios::trunc);
  stream.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  if (!stream.flush()) throw std::runtime_error("cannot write " + file.string());
}

std::vector<Sample> make_samples(std::uint64_t seed) {
  std::vector<Sample> samples;
  for (const Plan& plan : kPlans) samples.push_back(Maker(plan, mix(seed, samples.size())).make());
  return samples;
}

void write_store(const fs::path& root, const Files& files, const std::string& keys_name) {
  fs::create_directory(root);
  write_bytes(root / "data.mdb", files.data);
  if (files.access) write_bytes(root / "access.shm", *files.access);
  if (files.keys) write_bytes(root / keys_name, *files.keys);
  if (files.write_lock) write_bytes(root / "write.lock", *files.write_lock);
  if (!files.lock) return;
  struct stat status{};
  if (stat((root / "data.mdb").c_str(), &status) != 0) throw std::runtime_error("cannot look at data.mdb");
  const fs::path locks = root / "locks" / std::to_string(status.st_ino);
  fs::create_directories(locks);
  fs::create_symlink("../../data.mdb", locks / "data.mdb");
  write_bytes(locks / "lock.mdb", *files.lock);
}

}  // namespace tokcask::campaign
