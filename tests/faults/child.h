// What has to happen in a process of its own.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <exception>
#include <functional>

namespace tokcask::test {

inline constexpr unsigned kPatience = 60;  // seconds

// Runs `act` in a child, which ends with what it returns, or with 1 after an exception. Returns that, or -1
// if the child ended otherwise.
inline int in_child(const std::function<int()>& act) {
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    alarm(kPatience);
    int code = 1;
    try {
      code = act();
    } catch (const std::exception& error) {
      std::fprintf(stderr, "  child: %s\n", error.what());
    }
    _exit(code);
  }
  int status = 0;
  return waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace tokcask::test
