#include "cli/cli.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <stdexcept>

#include "support.h"
#include "terminal.h"

using namespace tokcask;
using test::Outcome;

namespace {

std::vector<std::string> warm_command(const test::TempDir& dir) {
  return {"warm", dir / "store", dir / "corpus", "--tokenizer", "bytes", "--seq-len", "10"};
}

// Runs with standard output replaced by `fd`, or closed if that is -1.
int run_with_output(const std::vector<std::string>& args, int fd) {
  const int saved = ::fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 10);
  const int saved_error = ::fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 10);
  const int null = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
  ::dup2(null, STDERR_FILENO);
  ::close(null);
  if (fd >= 0) {
    ::dup2(fd, STDOUT_FILENO);
  } else {
    ::close(STDOUT_FILENO);
  }
  const int code = cli::run(args, test::no_loader());
  ::dup2(saved, STDOUT_FILENO);
  ::dup2(saved_error, STDERR_FILENO);
  ::close(saved);
  ::close(saved_error);
  return code;
}

}  // namespace

TEST_CASE("cli: help, for the program and for each verb, with examples") {
  const Outcome all = test::run({"--help"});
  CHECK(all.code == cli::kExitOk);
  CHECK(all.err.empty());
  for (const char* verb : {"warm", "show", "runs", "get", "explain", "prune", "clear", "compact", "copy",
                           "verify", "merge", "export", "import", "import-npz"}) {
    CAPTURE(verb);
    CHECK(all.out.find(verb) != std::string::npos);
    const Outcome one = test::run({verb, "--help"});
    CHECK(one.code == cli::kExitOk);
    CHECK(one.out.find("Examples:") != std::string::npos);
    CHECK(one.out.find("tokcask " + std::string(verb)) != std::string::npos);
    CHECK(one.out.find("--json") != std::string::npos);
  }
}

TEST_CASE("cli: the version") {
  const Outcome outcome = test::run({"--version"});
  CHECK(outcome.code == cli::kExitOk);
  CHECK(outcome.out.starts_with("tokcask "));
}

TEST_CASE("cli: mistakes in the command line") {
  for (const std::vector<std::string>& args : std::vector<std::vector<std::string>>{{},
                                                                                    {"frobnicate"},
                                                                                    {"show"},
                                                                                    {"show", "a", "b"},
                                                                                    {"show", "a", "--wrong"},
                                                                                    {"get", "a"},
                                                                                    {"warm", "a", "b"}}) {
    const Outcome outcome = test::run(args);
    CHECK(outcome.code == cli::kExitUsage);
    CHECK(outcome.out.empty());
    CHECK(outcome.err.find("error: ") != std::string::npos);
    CHECK(outcome.err.find("--help") != std::string::npos);
  }
  CHECK(test::run({"show"}).err ==
        "tokcask: error: show: STORE is required\nRun 'tokcask show --help' to see what it takes.\n");
  CHECK(test::run({"frobnicate"}).err ==
        "tokcask: error: there is no verb 'frobnicate'\nRun 'tokcask --help' to see what it takes.\n");
  CHECK(test::run({"--wrong"}).err.find("there is no option '--wrong'") != std::string::npos);
  CHECK(test::run({"show", "--wrong"}).err.find("there is no option '--wrong'") != std::string::npos);
  CHECK(test::run({"show", "a", "b", "c"}).err.find("'b' is one operand too many") != std::string::npos);
  CHECK(test::run({}).err.find("a verb is missing") != std::string::npos);
  // What a verb itself refuses is a mistake in the command line, too.
  CHECK(test::run({"warm", "a", "b", "--tokenizer", "bytes", "--seq-len", "8", "--max-bytes", "3x"})
            .err.find("error: warm: '3x'") != std::string::npos);
  const Outcome json = test::run({"show", "--json"});
  CHECK(json.code == cli::kExitUsage);
  CHECK(json.json()["error"]["exit_code"] == cli::kExitUsage);
}

TEST_CASE("cli: options that may be repeated take one value each") {
  const test::TempDir dir;
  dir.write("corpus/a.c", "alpha");
  dir.write("corpus/b.h", "beta");
  dir.write("corpus/c.py", "gamma");
  const Outcome outcome = test::run({"warm", "--include", "*.c", "--include", "*.h", dir / "store",
                                     dir / "corpus", "--tokenizer", "bytes", "--seq-len", "10", "--json"});
  REQUIRE(outcome.code == cli::kExitOk);
  CHECK(outcome.json()["sections"] == 2);
}

TEST_CASE("cli: standard output that nobody reads, that is full, or that is closed") {
  const test::TempDir dir;
  dir.write("corpus/a", "alpha");
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  ::close(ends[0]);
  CHECK(run_with_output(warm_command(dir), ends[1]) == cli::kExitOk);
  ::close(ends[1]);

  const int full = ::open("/dev/full", O_WRONLY | O_CLOEXEC);
  CHECK(run_with_output({"show", dir / "store"}, full) == cli::kExitIo);
  CHECK(run_with_output({"show", dir / "store", "--json"}, full) == cli::kExitIo);
  ::close(full);

  // The store must not be opened as descriptor 1 and printed into.
  const test::TempDir other;
  other.write("corpus/a", "alpha");
  CHECK(run_with_output(warm_command(other), -1) == cli::kExitIo);
  CHECK(test::run({"verify", other / "store"}).code == cli::kExitOk);
  CHECK(test::run({"show", other / "store", "--json"}).json()["entry_count"] == 1);
}

TEST_CASE("cli: a progress line on a terminal, erased at the end; none elsewhere") {
  const test::Environment term("TERM", "xterm");
  const test::TempDir dir;
  for (int i = 0; i < 20; ++i) dir.write("corpus/" + std::to_string(i), "file " + std::to_string(i));
  test::Terminal terminal;
  CHECK(terminal.run(warm_command(dir)) == cli::kExitOk);
  const std::string& output = terminal.output();
  CHECK(output.find("\r\x1b[Kscanning ...") != std::string::npos);
  const std::size_t line = output.find("\r\x1b[Ktokenizing [");
  CHECK(line != std::string::npos);
  CHECK(output.find("\r\x1b[Kfiles", line) != std::string::npos);
  CHECK(output.find("tokenizing", line + 20) == std::string::npos);

  test::Terminal quiet;
  std::vector<std::string> args = warm_command(dir);
  args.emplace_back("--quiet");
  CHECK(quiet.run(args) == cli::kExitOk);
  CHECK(quiet.output().find('\x1b') == std::string::npos);
  CHECK(test::run(warm_command(dir)).err.empty());
  const test::Environment dumb("TERM", "dumb");
  test::Terminal simple;
  CHECK(simple.run(warm_command(dir)) == cli::kExitOk);
  CHECK(simple.output().find('\x1b') == std::string::npos);
}

TEST_CASE("cli: color on a terminal only, and not with NO_COLOR") {
  const test::Environment term("TERM", "xterm");
  const std::vector<std::string> args{"show", "/nonexistent/store"};
  {
    const test::Environment unset("NO_COLOR", "");
    test::Terminal terminal;
    CHECK(terminal.run(args) == cli::kExitNoStore);
    CHECK(terminal.output().find("\x1b[31merror: ") != std::string::npos);
  }
  const test::Environment set("NO_COLOR", "1");
  test::Terminal terminal;
  CHECK(terminal.run(args) == cli::kExitNoStore);
  CHECK(terminal.output().find('\x1b') == std::string::npos);
  CHECK(test::run(args).err.find('\x1b') == std::string::npos);
}

TEST_CASE("cli: a loader that throws anything at all does not get past run") {
  const test::TempDir dir;
  dir.write("corpus/a", "alpha");
  const std::string file = dir.write("tokenizer.json", "x");
  const std::vector<std::string> args{"warm",      dir / "store", dir / "corpus", "--tokenizer", file,
                                      "--seq-len", "10"};
  CHECK(test::run(args, [](const std::string&, unsigned) -> std::unique_ptr<cli::Tokenizer> {
          throw std::runtime_error("broken");
        }).code == cli::kExitUsage);
  CHECK(test::run(args, [](const std::string&, unsigned) -> std::unique_ptr<cli::Tokenizer> {
          throw 42;
        }).code == cli::kExitIo);
  CHECK(test::run(args, [](const std::string&, unsigned) {
          return std::unique_ptr<cli::Tokenizer>();
        }).code == cli::kExitUsage);
}
