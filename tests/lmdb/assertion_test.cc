// LMDB meets damage that it cannot handle, in a file that was good when it was opened: LMDB's assertion
// becomes an error, and the process lives.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "child.h"
#include "files/store_files.h"
#include "lmdb/environment.h"
#include "lmdb/page_layout.h"

namespace tokcask::lmdb {

namespace {

namespace fs = std::filesystem;

class Store {
 public:
  Store() {
    std::string name = (fs::temp_directory_path() / "tokcask-assertion-XXXXXX").string();
    REQUIRE(mkdtemp(name.data()) != nullptr);
    root_ = name;
    files::create(root_);
    const auto environment = open();
    for (std::uint64_t first = 0; first < kKeys; first += 500) {
      WriteTransaction transaction(*environment);
      for (std::uint64_t i = first; i < first + 500; ++i) transaction.put(Table::kRecords, key(i), value_);
      transaction.commit();
    }
  }
  ~Store() { fs::remove_all(root_); }
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;

  static constexpr std::uint64_t kKeys = 5000;
  static Bytes key(std::uint64_t number) {
    static thread_local std::uint64_t bytes = 0;
    bytes = __builtin_bswap64(number);
    return std::as_bytes(std::span(&bytes, 1));
  }
  [[nodiscard]] std::unique_ptr<Environment> open() const {
    auto environment = files::open_environment(root_, *files::id_of(data()), Environment::Mode::kReadWrite,
                                               std::chrono::milliseconds(100));
    REQUIRE(environment);
    return environment;
  }
  [[nodiscard]] fs::path data() const { return root_ / "data.mdb"; }
  [[nodiscard]] Bytes value() const { return value_; }

  // Every leaf of records becomes a page that is neither leaf nor branch.
  void damage() const {
    const int fd = ::open(data().c_str(), O_RDWR | O_CLOEXEC);
    const auto pages = fs::file_size(data()) / 4096;
    for (std::uint64_t page = 2; page < pages; ++page) {
      layout::PageHeader header{};
      const auto at = static_cast<off_t>(page * 4096);
      REQUIRE(pread(fd, &header, sizeof header, at) == static_cast<ssize_t>(sizeof header));
      constexpr unsigned kFewNodes = 64;  // bytes: of a leaf of LMDB's own
      if (header.flags != layout::kLeafPage || header.lower < kFewNodes) continue;
      header.flags = 0x40;
      REQUIRE(pwrite(fd, &header, sizeof header, at) == static_cast<ssize_t>(sizeof header));
    }
    close(fd);
  }

 private:
  fs::path root_;
  std::vector<std::byte> value_ = std::vector<std::byte>(64, std::byte{7});
};

int in_child(const std::function<bool()>& act) { return test::status_of_child(30, act); }

std::string damage_of(const std::function<void()>& act) { return test::error_text(Errc::kDamaged, act); }

bool has(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE(
    "a walk over a page that was overwritten: an error of the store, again and again, and it can be closed") {
  const Store store;
  CHECK(in_child([&] {
          auto environment = store.open();
          {
            const ReadTransaction snapshot(*environment);
            const Cursor cursor(snapshot, Table::kRecords);
            if (!cursor.first()) return false;
            store.damage();
            const std::string why = damage_of([&] {
              while (cursor.next()) continue;
            });
            if (!has(why, "Assertion") || !has(why, "open it again")) return false;
            // From then on nothing is done with it.
            if (damage_of([&] { static_cast<void>(snapshot.get(Table::kRecords, Store::key(1))); }) != why)
              return false;
            if (damage_of([&] { const ReadTransaction another(*environment); }) != why) return false;
            if (damage_of([&] { const WriteTransaction another(*environment); }) != why) return false;
          }
          environment.reset();
          return files::inspect(store.data().parent_path()).condition == files::Condition::kBad;
        }) == 0);
}

TEST_CASE(
    "damage in the middle of a write: an error, others are told and do not hang, and it can be closed") {
  const Store store;
  int down[2];
  int up[2];
  REQUIRE((pipe(down) == 0 && pipe(up) == 0));
  char byte = 0;
  std::fflush(nullptr);
  const pid_t writer = fork();
  if (writer == 0) {
    alarm(60);
    auto environment = store.open();
    std::string why;
    {
      const WriteTransaction transaction(*environment);
      const Cursor cursor(transaction, Table::kRecords);
      cursor.first();
      store.damage();
      why = damage_of([&] {
        while (cursor.next()) continue;
      });
    }
    environment.reset();
    const bool told = has(why, "Assertion") && has(why, "End this process");
    if (!told) std::fprintf(stderr, "child: %s\n", why.c_str());
    static_cast<void>(write(up[1], &byte, 1) == 1 && read(down[0], &byte, 1) == 1);
    _exit(told ? 0 : 1);
  }
  REQUIRE(read(up[0], &byte, 1) == 1);
  CHECK(in_child([&] {
          const auto environment = store.open();
          try {
            const WriteTransaction transaction(*environment);
          } catch (const Error& error) {
            return error.code() == Errc::kBusy &&
                   has(error.what(), ("process " + std::to_string(writer)).c_str());
          }
          return false;
        }) == 0);
  REQUIRE(write(down[1], &byte, 1) == 1);
  int status = 0;
  REQUIRE(waitpid(writer, &status, 0) == writer);
  CHECK(status == 0);
  // Its mutex is free again.
  CHECK(in_child([&] {
          const auto environment = store.open();
          const WriteTransaction transaction(*environment);
          return true;
        }) == 0);
  for (const int fd : {down[0], down[1], up[0], up[1]}) close(fd);
}

TEST_CASE("look-ups in a file whose pages were overwritten are errors or misses") {
  const Store store;
  CHECK(in_child([&] {
          const auto environment = store.open();
          const ReadTransaction snapshot(*environment);
          store.damage();
          for (std::uint64_t i = 0; i < Store::kKeys; ++i) {
            try {
              const auto found = snapshot.get(Table::kRecords, Store::key(i));
              if (found && found->size() != store.value().size()) return false;
            } catch (const Error&) {
            }
          }
          return true;
        }) == 0);
}

}  // namespace tokcask::lmdb
