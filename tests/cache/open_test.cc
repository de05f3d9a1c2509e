// Opening: what may lie where a store should be, and what becomes of it.
#include <sys/resource.h>

#include <algorithm>
#include <csignal>
#include <fstream>

#include "files/store_files.h"
#include "support.h"

namespace tokcask {

using namespace test;

namespace fs = std::filesystem;

namespace {

void fill(const Fixture& f) {
  auto cache = f.open();
  for (std::uint64_t i = 0; i < 200; ++i) cache.put(key(i), {.input_ids = ids(i, 1000)});
}

std::string content(const fs::path& file) {
  std::ifstream stream(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

void write_at(const fs::path& file, std::streamoff at, const std::string& bytes) {
  std::fstream stream(file, std::ios::binary | std::ios::in | std::ios::out);
  stream.seekp(at);
  stream << bytes;
}

std::vector<fs::path> set_aside(const Fixture& f) {
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(f.root())) {
    if (entry.path().filename().string().find("set-aside") != std::string::npos)
      found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end());
  return found;
}

}  // namespace

// What is saved of such files: salvage_test.cc.
TEST_CASE("what cannot be used is set aside, not deleted, and the store starts afresh") {
  Fixture f;
  fill(f);
  const auto data = f.data();
  SUBCASE("zero bytes") { fs::resize_file(data, 0); }
  SUBCASE("truncated to its meta pages") { fs::resize_file(data, 8192); }
  SUBCASE("truncated in the middle") { fs::resize_file(data, fs::file_size(data) / 2); }
  SUBCASE("one byte") { fs::resize_file(data, 1); }
  SUBCASE("text") { std::ofstream(data, std::ios::trunc) << "this is not a store\n"; }
  SUBCASE("garbage") { std::ofstream(data, std::ios::trunc) << std::string(1 << 20, 'g'); }
  SUBCASE("both meta pages damaged") {
    write_at(data, 16, std::string(4, 'x'));
    write_at(data, 4096 + 16, std::string(4, 'x'));
  }
  SUBCASE("another version of LMDB") {
    write_at(data, 20, std::string("\x02", 1));
    write_at(data, 4096 + 20, std::string("\x02", 1));
  }
  SUBCASE("pages of zeros") {
    for (std::streamoff page = 2; page < 40; ++page) write_at(data, page * 4096, std::string(4096, '\0'));
  }
  SUBCASE("another format version of the store") {
    // The store row's magic is found by its bytes.
    std::string bytes = content(data);
    for (std::size_t at = bytes.find(std::string("tokcask\0", 8)); at != std::string::npos;
         at = bytes.find(std::string("tokcask\0", 8), at + 1)) {
      write_at(data, static_cast<std::streamoff>(at + 8), std::string("\x63\0\0\0", 4));
    }
  }
  const std::string before = content(data);

  error_of(Errc::kDamaged, [&] { auto reader = f.open({.read_only = true}); });
  CHECK(content(data) == before);
  CHECK(set_aside(f).empty());

  auto cache = f.open();
  const std::uint64_t saved = cache.stats().entry_count;
  CHECK((f.messages.count("starts empty") == 1) == (saved == 0));
  CHECK(f.messages.count("; " + std::to_string(saved) + " of ") == (saved == 0 ? 0 : 1));
  REQUIRE(set_aside(f).size() == 1);
  CHECK(content(set_aside(f)[0]) == before);
  CHECK(f.messages.count("set-aside-1") == 1);
  cache.put(key(1), {.input_ids = ids(1, 100)});
  cache.close();
  CHECK(f.open({.read_only = true}).get(key(1)));

  // The last one is kept.
  fs::resize_file(data, 0);
  CHECK(f.open().stats().entry_count == 0);
  REQUIRE(set_aside(f).size() == 1);
  CHECK(fs::file_size(set_aside(f)[0]) == 0);
}

TEST_CASE("an LMDB file that is not a store is set aside") {
  Fixture f;
  fill(f);
  const auto data = f.data();
  std::string bytes = content(data);
  for (std::size_t at = bytes.find(std::string("tokcask\0", 8)); at != std::string::npos;
       at = bytes.find(std::string("tokcask\0", 8), at + 1)) {
    write_at(data, static_cast<std::streamoff>(at), "another");
  }
  // Its records are those of a store all the same.
  CHECK(f.open().stats().entry_count == 200);
  CHECK(set_aside(f).size() == 1);
}

TEST_CASE("one bad meta page out of two is damage too") {
  Fixture f;
  fill(f);
  write_at(f.data(), 16, std::string(4, 'x'));
  CHECK(f.open().stats().entry_count == 200);
  CHECK(set_aside(f).size() == 1);
}

TEST_CASE("a path that cannot be a store") {
  Fixture f;
  std::ofstream(f.directory() / "file") << "mine";
  for (const auto& path :
       {f.directory() / "file", f.directory() / "file" / "below", fs::path("/proc/store")}) {
    CAPTURE(path);
    const std::string message = error_of(Errc::kIo, [&] { auto cache = TokenizedCache::open(path); });
    CHECK(message.find(path.parent_path().string()) != std::string::npos);
  }
  CHECK(content(f.directory() / "file") == "mine");
  error_of(Errc::kIo,
           [&] { auto cache = TokenizedCache::open(f.directory() / "file", {.read_only = true}); });
  error_of(Errc::kNotFound,
           [&] { auto cache = TokenizedCache::open(f.directory() / "none", {.read_only = true}); });
  error_of(Errc::kNotFound, [&] { auto cache = TokenizedCache::open(f.directory(), {.read_only = true}); });
  error_of(Errc::kInvalidArgument, [&] { auto cache = TokenizedCache::open(""); });
  fs::create_directories(f.root() / "data.mdb");
  error_of(Errc::kIo, [&] { auto cache = f.open(); });
  fs::remove(f.root() / "data.mdb");
}

TEST_CASE("an empty directory, a deep path and leftovers of a killed creation become a store") {
  Fixture f;
  fs::create_directories(f.root() / ".new.999999999");
  std::ofstream(f.root() / ".new.999999999" / "data.mdb") << "half";
  std::ofstream(f.root() / "lock.mdb") << "stale";
  auto cache = f.open();
  cache.put(key(1), {.input_ids = ids(1, 10)});
  cache.flush();
  CHECK_FALSE(fs::exists(f.root() / ".new.999999999"));
  CHECK(TokenizedCache::open(f.directory() / "a" / "b" / "c").stats().entry_count == 0);
}

TEST_CASE("network file systems are known by their type") {
  CHECK(files::network_file_system(0x6969) == "NFS");
  CHECK(files::network_file_system(static_cast<long>(0xFF534D42)) == "CIFS");
  CHECK(files::network_file_system(static_cast<long>(static_cast<std::int32_t>(0xFE534D42))) == "SMB2");
  CHECK(files::network_file_system(0xEF53).empty());      // ext4
  CHECK(files::network_file_system(0x01021994).empty());  // tmpfs
  CHECK(files::network_file_system(0x58465342).empty());  // XFS
}

TEST_CASE("a relative path means the directory of that moment") {
  Fixture f;
  const fs::path before = fs::current_path();
  fs::current_path(f.directory());
  auto cache = TokenizedCache::open("store");
  fs::current_path("/");
  cache.put(key(1), {.input_ids = ids(1, 10)});
  cache.close();
  fs::current_path(before);
  CHECK(f.open({.read_only = true}).get(key(1)));
}

TEST_CASE("a store that is removed and made again is another store") {
  Fixture f;
  fill(f);
  const auto view = f.open().get(key(7));
  fs::remove_all(f.root());
  auto cache = f.open();
  CHECK(cache.stats().entry_count == 0);
  CHECK(copy_of(view->input_ids()) == ids(7, 1000));
}

// The limit on a file's size makes a write fail for real, at the place where a full disk would.
TEST_CASE("a disk that is full: what is committed stays, the error says what to do, and it goes on later") {
  Fixture f;
  fill(f);
  auto cache = f.open({.batch_bytes = 1 << 20});
  const auto previous = std::signal(SIGXFSZ, SIG_IGN);
  rlimit limit{};
  REQUIRE(getrlimit(RLIMIT_FSIZE, &limit) == 0);
  const rlimit small{f.file_bytes() + 8 * 4096, limit.rlim_max};
  REQUIRE(setrlimit(RLIMIT_FSIZE, &small) == 0);
  for (std::uint64_t i = 500; i < 600; ++i) cache.put(key(i), {.input_ids = ids(i, 1000)});
  const std::string message = error_of(Errc::kIo, [&] { cache.flush(); });
  CHECK(message.find("data.mdb") != std::string::npos);
  CHECK(cache.get(key(550)));  // still pending
  CHECK(copy_of(cache.get(key(3))) == ids(3, 1000));
  REQUIRE(setrlimit(RLIMIT_FSIZE, &limit) == 0);
  std::signal(SIGXFSZ, previous);
  cache.flush();
  CHECK(cache.stats().entry_count == 300);
  CHECK(copy_of(cache.get(key(550))) == ids(550, 1000));
}

}  // namespace tokcask
