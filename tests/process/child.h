// A child process, made by fork(), that a test talks to and may stop or kill.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <optional>

namespace tokcask::test {

// The child's end: what it tells its parent, and what it waits for.
class Line {
 public:
  Line(int in, int out) : in_(in), out_(out) {}
  void tell(std::uint64_t number) const;
  // The next number, or nothing when the other side is gone.
  std::optional<std::uint64_t> hear() const;

 private:
  int in_;
  int out_;
};

// Runs `act` in a child, which exits with 0 if that returns true. Killed with SIGKILL if it is still there
// when this is destroyed.
class Child {
 public:
  explicit Child(const std::function<bool(const Line&)>& act);
  ~Child();
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  [[nodiscard]] pid_t pid() const { return pid_; }
  [[nodiscard]] const Line& line() const { return line_; }
  void signal(int number) const;
  // Waits for its end. True if `act` returned true.
  bool succeeded();

 private:
  pid_t pid_ = -1;
  int to_child_ = -1;
  int from_child_ = -1;
  Line line_{-1, -1};
};

}  // namespace tokcask::test
