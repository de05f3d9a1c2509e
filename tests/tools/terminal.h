// A pseudo-terminal, to see what the command does when a person is watching.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "cli/cli.h"
#include "support.h"

namespace tokcask::test {

class Terminal {
 public:
  // `columns`: the width that the command is told.
  explicit Terminal(unsigned short columns = 80);
  ~Terminal();
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  // What the person will have typed.
  void type(std::string_view text);
  // Runs a command line with all three standard descriptors on the terminal; returns the exit code.
  int run(const std::vector<std::string>& args, const cli::TokenizerLoader& load = no_loader());
  // All that has been written to the terminal so far.
  [[nodiscard]] const std::string& output();

 private:
  int master_ = -1;
  int slave_ = -1;
  std::string output_;
};

}  // namespace tokcask::test
