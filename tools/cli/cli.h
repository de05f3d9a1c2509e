// The `tokcask` command as a function, so that the C++ program and the pip-installed one are one program.
#pragma once

#include <string>
#include <vector>

#include "cli/formats.h"
#include "tokenize/tokenizer.h"

namespace tokcask::cli {

// Exit codes, after sysexits(3) where it has one.
inline constexpr int kExitOk = 0;
inline constexpr int kExitFinding = 1;  // a check found something, or a key is not there
inline constexpr int kExitUsage = 2;
inline constexpr int kExitDamaged = 65;       // EX_DATAERR
inline constexpr int kExitNoStore = 66;       // EX_NOINPUT
inline constexpr int kExitIo = 74;            // EX_IOERR
inline constexpr int kExitBusy = 75;          // EX_TEMPFAIL
inline constexpr int kExitInterrupted = 130;  // 128 + SIGINT

// Runs one command line (`args` without the program's name), writing data to standard output and messages to
// standard error. Never throws; returns the exit code. `load` is called only if a tokenizer file other than
// the built-in names is needed, and `formats` only by `export` and `import`, which are refused without it.
[[nodiscard]] int run(const std::vector<std::string>& args, const TokenizerLoader& load,
                      const FormatRunner& formats = {});

}  // namespace tokcask::cli
