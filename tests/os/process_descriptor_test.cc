// A descriptor that belongs to one process, and locks of it.
#include "os/process_descriptor.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>

namespace tokcask::os {

namespace {

class File {
 public:
  File() {
    std::string name = (std::filesystem::temp_directory_path() / "tokcask-descriptor-XXXXXX").string();
    const int fd = mkstemp(name.data());
    REQUIRE(fd >= 0);
    close(fd);
    path_ = name;
  }
  ~File() { std::filesystem::remove(path_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  [[nodiscard]] const char* path() const { return path_.c_str(); }

 private:
  std::string path_;
};

// What a child exits with that returns this.
template <typename Act>
int in_child(const Act& act) {
  const pid_t pid = fork();
  if (pid == 0) _exit(act());
  int status = 0;
  REQUIRE(waitpid(pid, &status, 0) == pid);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

bool is_open(int fd) { return fcntl(fd, F_GETFD) >= 0; }

}  // namespace

TEST_CASE("a forked child has none of its parent's descriptors, and opens its own") {
  const File file;
  auto first = std::make_unique<ProcessDescriptor>(file.path(), O_RDWR);
  ProcessDescriptor second(file.path(), O_RDWR);
  const ProcessDescriptor third(file.path(), O_RDWR);
  const int closed = first->get();
  first.reset();
  CHECK_FALSE(is_open(closed));
  const int fds[] = {second.get(), third.get()};
  CHECK(in_child([&] {
          if (second.get() >= 0 || third.get() >= 0 || is_open(fds[0]) || is_open(fds[1])) return 1;
          second.open(file.path(), O_RDWR);
          return second.get() >= 0 && in_child([&] { return second.get() >= 0 ? 1 : 0; }) == 0 ? 0 : 2;
        }) == 0);
  CHECK(is_open(fds[0]));
  CHECK(is_open(fds[1]));
}

TEST_CASE("a fork while other threads open and close descriptors: the child has none, and does not hang") {
  const File file;
  std::atomic<bool> done{false};
  std::thread busy([&] {
    while (!done) const ProcessDescriptor opened(file.path(), O_RDWR);
  });
  const int highest = dup(STDERR_FILENO);
  close(highest);
  for (int i = 0; i < 200; ++i) {
    CHECK(in_child([&] {
            alarm(20);
            const ProcessDescriptor own(file.path(), O_RDWR);
            return own.get() == highest ? 0 : 1;  // so nothing is left open there
          }) == 0);
  }
  done = true;
  busy.join();
}

TEST_CASE("locks exclude other descriptors of the same process, and outlive them") {
  const File file;
  const ProcessDescriptor holder(file.path(), O_RDWR);
  CHECK(set_lock(holder.get(), F_WRLCK, 10, 20) == 0);
  {
    const ProcessDescriptor other(file.path(), O_RDWR);
    CHECK(set_lock(other.get(), F_RDLCK, 19) == EAGAIN);
    CHECK(set_lock(other.get(), F_WRLCK, 20) == 0);
    CHECK(find_lock(other.get(), 0, 10) == -1);
    CHECK(find_lock(other.get(), 0, 100) == 10);
    CHECK(find_lock(other.get(), 15, 100) == 15);
    CHECK(find_lock(holder.get(), 0, 100) == 20);
  }
  CHECK(find_lock(holder.get(), 0, 100) == -1);
  const ProcessDescriptor reader(file.path(), O_RDONLY);
  CHECK(set_lock(reader.get(), F_WRLCK, 50) == EBADF);
  CHECK(find_lock(reader.get(), 0, 100) == 10);
}

}  // namespace tokcask::os
