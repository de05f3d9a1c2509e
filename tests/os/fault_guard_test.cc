// Faults in mapped files. What would end the process is done in a child.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "os/fault_guard.h"

namespace tokcask::os {

namespace {

const auto kPage = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
constexpr int kRead = PROT_READ;

// A file of `pages` pages of 'a', without a name, mapped.
class MappedPages {
 public:
  explicit MappedPages(std::size_t pages, int protection = kRead) : bytes_(pages * kPage) {
    std::string name = (std::filesystem::temp_directory_path() / "tokcask-guard-XXXXXX").string();
    fd_ = mkstemp(name.data());
    REQUIRE(fd_ >= 0);
    unlink(name.c_str());
    const std::string text(bytes_, 'a');
    REQUIRE(write(fd_, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
    base_ = mmap(nullptr, bytes_, protection, MAP_SHARED, fd_, 0);
    REQUIRE(base_ != MAP_FAILED);
  }
  ~MappedPages() {
    munmap(base_, bytes_);
    close(fd_);
  }
  MappedPages(const MappedPages&) = delete;
  MappedPages& operator=(const MappedPages&) = delete;

  void cut(std::size_t pages) const { REQUIRE(ftruncate(fd_, static_cast<off_t>(pages * kPage)) == 0); }
  [[nodiscard]] volatile char& at(std::size_t i) const { return static_cast<char*>(base_)[i]; }
  [[nodiscard]] void* base() const { return base_; }
  [[nodiscard]] std::size_t size() const { return bytes_; }

 private:
  std::size_t bytes_;
  int fd_ = -1;
  void* base_ = nullptr;
};

// The signal that ends a child that does this, or 0.
int signal_of(const std::function<void()>& act) {
  const pid_t child = fork();
  if (child == 0) {
    act();
    _exit(0);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

volatile sig_atomic_t told = 0;

void tell(int) { told = told + 1; }

}  // namespace

TEST_CASE("what is cut off reads as what was asked for, and the rest as it was") {
  const MappedPages pages(200);
  const std::array<std::byte, 2> head{std::byte{'h'}, std::byte{'d'}};
  const FaultGuard guard(pages.base(), pages.size(), kRead, head, std::byte{'f'});
  CHECK(pages.at(199 * kPage) == 'a');
  CHECK_FALSE(guard.hit());
  pages.cut(3);
  CHECK(pages.at(3 * kPage - 1) == 'a');
  CHECK_FALSE(guard.hit());
  for (const std::size_t page : {std::size_t{3}, std::size_t{4}, std::size_t{100}, std::size_t{199}}) {
    CHECK(pages.at(page * kPage) == 'h');
    CHECK(pages.at(page * kPage + 1) == 'd');
    CHECK(pages.at(page * kPage + 2) == 'f');
    CHECK(pages.at((page + 1) * kPage - 1) == 'f');
  }
  CHECK(guard.hit());
  CHECK(pages.at(0) == 'a');
}

TEST_CASE("what is cut off can be written to, where the range can") {
  const MappedPages pages(8, PROT_READ | PROT_WRITE);
  const FaultGuard guard(pages.base(), pages.size(), PROT_READ | PROT_WRITE);
  pages.cut(1);
  pages.at(5 * kPage + 7) = 'w';
  CHECK(pages.at(5 * kPage + 7) == 'w');
  CHECK(pages.at(5 * kPage) == 0);
  CHECK(guard.hit());
}

TEST_CASE("several threads at once") {
  const MappedPages pages(256);
  const FaultGuard guard(pages.base(), pages.size(), kRead, {}, std::byte{'f'});
  pages.cut(0);
  std::vector<std::thread> threads;
  std::atomic<std::size_t> wrong{0};
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&] {
      for (std::size_t page = 0; page < 256; ++page) wrong += pages.at(page * kPage + 9) != 'f' ? 1U : 0U;
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
}

// A sanitizer would print a report and end with a code of its own.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
TEST_CASE("a fault elsewhere, or after the guard, ends the process as before") {
  const MappedPages guarded(2);
  const MappedPages other(2);
  const FaultGuard guard(guarded.base(), guarded.size(), kRead);
  guarded.cut(0);
  other.cut(0);
  CHECK(signal_of([&] { static_cast<void>(char{guarded.at(0)}); }) == 0);
  CHECK(signal_of([&] {
          const char touched = other.at(0);
          static_cast<void>(touched);
        }) == SIGBUS);
  CHECK(signal_of([&] { kill(getpid(), SIGBUS); }) == SIGBUS);
  CHECK(signal_of([] {
          const MappedPages pages(2);
          {
            const FaultGuard past(pages.base(), pages.size(), kRead);
          }
          pages.cut(0);
          const char touched = pages.at(0);
          static_cast<void>(touched);
        }) == SIGBUS);
}
#endif

TEST_CASE("a handler that was there before is called for what is not ours") {
  CHECK(signal_of([] {
          struct sigaction own{};
          own.sa_handler = &tell;
          sigaction(SIGBUS, &own, nullptr);
          const MappedPages pages(2);
          const FaultGuard guard(pages.base(), pages.size(), kRead);
          pages.cut(0);
          const char touched = pages.at(0);
          static_cast<void>(touched);
          if (told != 0) abort();
          raise(SIGBUS);
          if (told != 1) abort();
        }) == 0);
}

// As Python's faulthandler does when it is enabled after the first store was opened.
TEST_CASE("handlers that call each other in a circle end the process") {
  CHECK(signal_of([] {
          const MappedPages pages(2);
          const FaultGuard first(pages.base(), pages.size(), kRead);
          static struct sigaction before{};
          struct sigaction own{};
          own.sa_handler = [](int signal) {
            sigaction(signal, &before, nullptr);
            raise(signal);
          };
          own.sa_flags = SA_NODEFER;
          sigaction(SIGBUS, &own, &before);
          const FaultGuard second(pages.base(), pages.size(), kRead);
          alarm(20);
          raise(SIGBUS);
        }) == SIGBUS);
}

TEST_CASE("more ranges than there is room for are not guarded, and none is lost") {
  const MappedPages pages(2);
  std::vector<FaultGuard> guards;
  for (int i = 0; i < 2000; ++i) guards.emplace_back(pages.base(), pages.size(), kRead);
  guards.clear();
  const FaultGuard guard(pages.base(), pages.size(), kRead);
  pages.cut(0);
  CHECK(pages.at(0) == 0);
  CHECK(guard.hit());
}

}  // namespace tokcask::os
