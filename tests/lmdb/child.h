// What the tests of environments share: another process, and the text of an error.
#pragma once

#include <doctest/doctest.h>
#include <sys/wait.h>
#include <tokcask/error.h>
#include <unistd.h>

#include <cstdio>
#include <functional>
#include <string>

namespace tokcask::lmdb::test {

// How a child ends that does this; 0 if `act` returns true. A signal ends the child after `seconds`.
inline int status_of_child(unsigned seconds, const std::function<bool()>& act) {
  std::fflush(nullptr);
  const pid_t pid = fork();
  if (pid == 0) {
    alarm(seconds);
    bool done = false;
    try {
      done = act();
    } catch (const std::exception& error) {
      std::fprintf(stderr, "child: %s\n", error.what());
    }
    _exit(done ? 0 : 1);
  }
  int status = 0;
  REQUIRE(waitpid(pid, &status, 0) == pid);
  return status;
}

// The text of the Error with this code that `act` throws, or nothing.
inline std::string error_text(Errc code, const std::function<void()>& act) {
  try {
    act();
  } catch (const Error& error) {
    return error.code() == code ? error.what() : "";
  }
  return {};
}

}  // namespace tokcask::lmdb::test
