// What somebody may have put in the way: links to files and directories that are not the store's, and what is
// no file at all. Nothing outside of the store is written, removed or waited for.
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <iterator>
#include <string>

#include <tokcask/dataset.h>

#include "files/store_files.h"
#include "support.h"

namespace tokcask {

using namespace test;
namespace fs = std::filesystem;

namespace {

void fill(const Fixture& f) {
  auto cache = f.open();
  for (std::uint64_t i = 0; i < 20; ++i) cache.put(key(i), {.input_ids = ids(i, 100 * i)});
}

// All that a store's files are made for.
void use(const Fixture& f) {
  fill(f);
  auto cache = f.open();
  const std::vector<CacheKey> keys{key(1), key(2), key(3)};
  auto dataset = TokenDataset::open(f.root(), keys);
  CHECK(dataset.size() == 3);
  dataset.close();
  cache.compact();
  CHECK(cache.stats().entry_count == 20);
}

std::string content(const fs::path& file) {
  std::ifstream stream(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

// A file that is somebody's, large enough for what would be written to it.
class Victim {
 public:
  explicit Victim(fs::path path) : path_(std::move(path)) {
    std::ofstream(path_, std::ios::binary) << content_;
  }
  [[nodiscard]] const fs::path& path() const { return path_; }
  [[nodiscard]] bool untouched() const { return content(path_) == content_; }

 private:
  fs::path path_;
  const std::string content_ = std::string(400'000, 'v');
};

fs::path lock_directory(const Fixture& f) {
  return f.root() / "locks" / std::to_string(files::id_of(f.data())->second);
}

}  // namespace

TEST_CASE("a store belongs to its owner, whatever the umask lets through") {
  Fixture f;
  const mode_t before = ::umask(0);
  use(f);
  auto cache = f.open();
  const std::vector<CacheKey> keys{key(1)};
  const auto dataset = TokenDataset::open(f.root(), keys);
  ::umask(before);
  CHECK(fs::status(f.root()).permissions() == fs::perms::owner_all);
  std::size_t files = 0;
  for (const auto& entry : fs::recursive_directory_iterator(f.root())) {
    CAPTURE(entry.path());
    if (entry.is_symlink()) continue;
    const fs::perms wanted =
        entry.is_directory() ? fs::perms::owner_all : fs::perms::owner_read | fs::perms::owner_write;
    CHECK(entry.status().permissions() == wanted);
    if (entry.path().filename() != "clean") ++files;  // which not all file systems have
  }
  CHECK(files == 7);  // data.mdb, access.shm, write.lock, a key table, locks/, its directory and lock.mdb
}

TEST_CASE("a store in a directory that is there keeps the directory's mode") {
  Fixture f;
  fs::create_directory(f.root());
  fs::permissions(f.root(), fs::perms::owner_all | fs::perms::group_all);
  fill(f);
  CHECK(fs::status(f.root()).permissions() == (fs::perms::owner_all | fs::perms::group_all));
}

TEST_CASE("data.mdb is a link: refused, and what it leads to stays as it is") {
  Fixture f;
  const Victim victim(f.directory() / "victim");
  fs::create_directory(f.root());
  for (const fs::path& to : {victim.path(), f.directory() / "nowhere"}) {
    fs::create_symlink(to, f.data());
    CHECK(error_of(Errc::kIo, [&] { auto cache = f.open(); }).find("data.mdb: a link") != std::string::npos);
    error_of(Errc::kIo, [&] { auto cache = f.open({.read_only = true}); });
    fs::remove(f.data());
  }
  CHECK(victim.untouched());
  CHECK_FALSE(fs::exists(f.directory() / "nowhere"));
}

TEST_CASE("locks is a link: refused, and nothing that it leads to is removed") {
  Fixture f;
  fill(f);
  fs::create_directory(f.directory() / "mine");
  const Victim victim(f.directory() / "mine" / "data.mdb");
  const auto refused = [&] {
    CHECK(error_of(Errc::kIo, [&] { auto cache = f.open(); }).find("not a directory") != std::string::npos);
    CHECK(victim.untouched());
    CHECK(std::distance(fs::directory_iterator(f.directory() / "mine"), fs::directory_iterator()) == 1);
  };
  SUBCASE("the directory of all") {
    fs::remove_all(f.root() / "locks");
    fs::create_directory_symlink(f.directory() / "mine", f.root() / "locks");
    refused();
    fs::remove(f.root() / "locks");
  }
  SUBCASE("that of the data file") {
    const fs::path directory = lock_directory(f);
    fs::remove_all(directory);
    fs::create_directory_symlink(f.directory() / "mine", directory);
    refused();
    fs::remove(directory);
  }
  SUBCASE("that of another data file") {
    fs::create_directory_symlink(f.directory() / "mine", f.root() / "locks" / "1");
    f.open().compact();
    CHECK(victim.untouched());
    CHECK(is_clean(f));
  }
  CHECK(f.open().stats().entry_count == 20);
}

TEST_CASE("links in the place of files: what they lead to stays as it is, and the store works") {
  Fixture f;
  fill(f);
  const Victim victim(f.directory() / "victim");
  fs::path file;
  SUBCASE("lock.mdb") { file = lock_directory(f) / "lock.mdb"; }
  SUBCASE("access.shm") { file = f.root() / "access.shm"; }
  SUBCASE("access.shm in the making") { file = f.root() / ("access.shm." + std::to_string(getpid())); }
  SUBCASE("a file set aside") { file = f.root() / "data.mdb.set-aside-1"; }
  SUBCASE("a data file in the making") { file = f.root() / (".new." + std::to_string(getpid())); }
  fs::remove(f.root() / "access.shm");
  fs::remove(file);
  fs::create_symlink(victim.path(), file);
  use(f);
  CHECK(victim.untouched());
  CHECK(f.messages.all().empty());
}

TEST_CASE("the leftovers of a killed creation are a link: the link alone is removed") {
  Fixture f;
  fs::create_directories(f.root());
  fs::create_directory(f.directory() / "mine");
  const Victim victim(f.directory() / "mine" / "data.mdb");
  fs::create_directory_symlink(f.directory() / "mine", f.root() / ".new.999999999");
  fill(f);
  CHECK(victim.untouched());
  CHECK(is_clean(f));
}

TEST_CASE("write.lock is a link or no file: writing is refused, and says why") {
  Fixture f;
  const Victim victim(f.directory() / "victim");
  fill(f);
  const fs::path lock = f.root() / "write.lock";
  fs::remove(lock);
  SUBCASE("a link") { fs::create_symlink(victim.path(), lock); }
  SUBCASE("a link to nowhere") { fs::create_symlink(f.directory() / "nowhere", lock); }
  SUBCASE("a FIFO") { REQUIRE(mkfifo(lock.c_str(), 0600) == 0); }
  const std::string message = error_of(Errc::kIo, [&] {
    auto cache = f.open();
    cache.put(key(100), {.input_ids = ids(1, 10)});
    cache.flush();
  });
  CHECK(message.find("write.lock: not a regular file") != std::string::npos);
  CHECK(victim.untouched());
  CHECK_FALSE(fs::exists(f.directory() / "nowhere"));
  fs::remove(lock);
  CHECK(f.open().stats().entry_count == 20);
}

TEST_CASE("FIFOs in the place of files are not waited for") {
  Fixture f;
  fill(f);
  const std::vector<CacheKey> keys{key(1), key(2), key(3)};
  fs::path table;
  {
    const auto dataset = TokenDataset::open(f.root(), keys);
    for (const auto& entry : fs::directory_iterator(f.root())) {
      if (entry.path().filename().string().starts_with("keys-")) table = entry.path();
    }
  }
  REQUIRE_FALSE(table.empty());
  const auto replace = [&](const fs::path& file) {
    CAPTURE(file);
    REQUIRE(fs::remove(file));
    REQUIRE(mkfifo(file.c_str(), 0600) == 0);
    use(f);
    CHECK(TokenDataset::open(f.root(), keys).get(1));
  };
  {
    auto dataset = TokenDataset::open(f.root(), keys);
    dataset.close();
    replace(table);
  }
  replace(f.root() / "access.shm");
  replace(lock_directory(f) / "lock.mdb");
  fs::remove(f.data());
  REQUIRE(mkfifo(f.data().c_str(), 0600) == 0);
  CHECK(error_of(Errc::kIo, [&] { auto cache = f.open(); }).find("not a regular file") != std::string::npos);
  fs::remove(f.data());
}

}  // namespace tokcask
