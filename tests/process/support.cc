#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <exception>
#include <stdexcept>

#include "child.h"

namespace tokcask::test {

void Line::tell(std::uint64_t number) const {
  if (write(out_, &number, sizeof number) != static_cast<ssize_t>(sizeof number))
    throw std::runtime_error("no pipe");
}

std::optional<std::uint64_t> Line::hear() const {
  std::uint64_t number = 0;
  if (read(in_, &number, sizeof number) != static_cast<ssize_t>(sizeof number)) return std::nullopt;
  return number;
}

Child::Child(const std::function<bool(const Line&)>& act) {
  int down[2];
  int up[2];
  if (pipe2(down, O_CLOEXEC) != 0 || pipe2(up, O_CLOEXEC) != 0) throw std::runtime_error("no pipe");
  std::fflush(nullptr);
  pid_ = fork();
  if (pid_ == 0) {
    close(down[1]);
    close(up[0]);
    int code = 1;
    try {
      code = act(Line(down[0], up[1])) ? 0 : 1;
    } catch (const std::exception& error) {
      std::fprintf(stderr, "child: %s\n", error.what());
    }
    // The test's own handles are the parent's to close.
    _exit(code);
  }
  close(down[0]);
  close(up[1]);
  to_child_ = down[1];
  from_child_ = up[0];
  line_ = Line(from_child_, to_child_);
}

Child::~Child() {
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  close(to_child_);
  close(from_child_);
}

void Child::signal(int number) const { kill(pid_, number); }

bool Child::succeeded() {
  int status = 0;
  const bool ended = pid_ > 0 && waitpid(pid_, &status, 0) == pid_;
  pid_ = -1;
  return ended && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

}  // namespace tokcask::test
