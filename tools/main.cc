// The C++ program. It has the built-in tokenizer only; other tokenizers come with the Python package, which
// runs the same command.
#include <string>
#include <vector>

#include <tokcask/error.h>

#include "cli/cli.h"

namespace {

std::unique_ptr<tokcask::cli::Tokenizer> refuse(const std::string& file, unsigned /*jobs*/) {
  throw tokcask::Error(
      tokcask::Errc::kInvalidArgument,
      file +
          ": this program has only the built-in tokenizer 'bytes'; to use tokenizer files, install the "
          "Python package tokcask, which brings the same command");
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> args(argv + (argc > 0 ? 1 : 0), argv + argc);
  return tokcask::cli::run(args, refuse);
}
