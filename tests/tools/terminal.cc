#include "terminal.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <cstdlib>
#include <stdexcept>

namespace tokcask::test {

Terminal::Terminal(unsigned short columns) {
  master_ = ::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
  char name[128];
  if (master_ < 0 || ::grantpt(master_) != 0 || ::unlockpt(master_) != 0 ||
      ::ptsname_r(master_, name, sizeof name) != 0) {
    throw std::runtime_error("no pseudo-terminal");
  }
  slave_ = ::open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (slave_ < 0) throw std::runtime_error("no pseudo-terminal");
  struct winsize size = {};
  size.ws_row = 24;
  size.ws_col = columns;
  ::ioctl(slave_, TIOCSWINSZ, &size);
  // What is typed is not shown again, so that output() is the command's alone.
  struct termios settings;
  ::tcgetattr(slave_, &settings);
  settings.c_lflag &= ~static_cast<tcflag_t>(ECHO);
  ::tcsetattr(slave_, TCSANOW, &settings);
}

Terminal::~Terminal() {
  ::close(slave_);
  ::close(master_);
}

void Terminal::type(std::string_view text) {
  if (::write(master_, text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    throw std::runtime_error("the pseudo-terminal takes no input");
  }
}

int Terminal::run(const std::vector<std::string>& args, const cli::TokenizerLoader& load) {
  int saved[3];
  for (int fd = 0; fd < 3; ++fd) {
    saved[fd] = ::fcntl(fd, F_DUPFD_CLOEXEC, 10);
    ::dup2(slave_, fd);
  }
  const int code = cli::run(args, load);
  for (int fd = 0; fd < 3; ++fd) {
    ::dup2(saved[fd], fd);
    ::close(saved[fd]);
  }
  return code;
}

const std::string& Terminal::output() {
  char buffer[4096];
  ssize_t count = 0;
  while ((count = ::read(master_, buffer, sizeof buffer)) > 0) {
    output_.append(buffer, static_cast<std::size_t>(count));
  }
  return output_;
}

}  // namespace tokcask::test
