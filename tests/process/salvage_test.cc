// A damaged store that is saved by processes that are killed.
#include <csignal>
#include <cstring>
#include <fstream>
#include <thread>

#include "child.h"
#include "files/store_files.h"
#include "lmdb/walker.h"
#include "support.h"

namespace tokcask {

using namespace test;

namespace fs = std::filesystem;

namespace {

constexpr std::uint64_t kEntries = 300;

void fill(const Fixture& f) {
  auto cache = f.open();
  for (std::uint64_t i = 0; i < kEntries; ++i) cache.put(key(i), {.input_ids = ids(i, 1200)});
}

void write_page(const fs::path& file, std::uint64_t page, const std::string& bytes) {
  std::fstream stream(file, std::ios::binary | std::ios::in | std::ios::out);
  stream.seekp(static_cast<std::streamoff>(page * 4096));
  stream << bytes;
}

bool has_all(TokenizedCache& cache) {
  for (std::uint64_t i = 0; i < kEntries; ++i) {
    const auto view = cache.get(key(i));
    if (!view || copy_of(view->input_ids()) != ids(i, 1200)) return false;
  }
  return true;
}

}  // namespace

TEST_CASE("a salvage that is killed at any moment leaves the old file or the new one, and nothing else") {
  const std::uint64_t seed = test_seed();
  INFO("TOKCASK_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  Fixture f;
  fill(f);
  const fs::path damaged = f.directory() / "damaged.mdb";
  fs::copy_file(f.data(), damaged);
  write_page(damaged, 0, std::string(8192, '\0'));
  std::size_t before = 0;
  std::size_t after = 0;
  for (int round = 0; round < 25; ++round) {
    CAPTURE(round);
    fs::remove_all(f.root());
    fs::create_directories(f.root());
    fs::copy_file(damaged, f.data());
    const auto id = files::id_of(f.data());
    Child saver([&](const Line& line) {
      line.tell(1);
      auto cache = TokenizedCache::open(f.root(), {.on_message = [](Severity, auto) {}});
      line.tell(2);
      line.hear();
      return false;
    });
    REQUIRE(saver.line().hear() == 1);
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 60'000));
    saver.signal(SIGKILL);
    CHECK_FALSE(saver.succeeded());
    REQUIRE(fs::exists(f.data()));
    const bool is_old = files::id_of(f.data()) == id;
    ++(is_old ? before : after);
    auto cache = f.open();
    CHECK(has_all(cache));
    CHECK(cache.stats().entry_count == kEntries);
    if (is_old) CHECK(is_clean(f));  // else the next who makes a file cleans up
    std::size_t aside = 0;
    for (const auto& entry : fs::directory_iterator(f.root()))
      aside += entry.path().filename().string().starts_with("data.mdb.set-aside-") ? 1 : 0;
    CHECK(aside == 1);
  }
  INFO(before << " with the old file, " << after << " with the new one");
  CHECK(before > 0);
}

}  // namespace tokcask
