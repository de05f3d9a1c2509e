#include "corpus/gitignore.h"

#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <set>
#include <sstream>
#include <string>

#include "corpus/walk.h"
#include "support.h"

using namespace tokcask;
using corpus::IgnoreFile;

namespace {

// 'i': ignored, 'r': re-included, '-': no pattern matches.
char decide(std::string_view patterns, std::string_view path, bool is_directory = false) {
  const std::size_t slash = path.rfind('/');
  const std::string_view name = slash == std::string_view::npos ? path : path.substr(slash + 1);
  const auto decision = IgnoreFile::parse(patterns).decide(path, name, is_directory);
  return !decision ? '-' : *decision ? 'i' : 'r';
}

}  // namespace

TEST_CASE("gitignore: lines") {
  CHECK(decide("# comment\n\nfoo\n", "foo") == 'i');
  CHECK(decide("# comment\n", "# comment") == '-');
  CHECK(decide("\\#x", "#x") == 'i');
  CHECK(decide("\\!x", "!x") == 'i');
  CHECK(decide("foo\r\nbar\r", "foo") == 'i');
  CHECK(decide("foo\r\nbar\r", "bar") == 'i');
  CHECK(decide("foo  \n", "foo") == 'i');
  CHECK(decide("foo\\  \n", "foo ") == 'i');
  CHECK(decide("foo\t\n", "foo") == '-');
  CHECK(decide("\xEF\xBB\xBF"
               "foo",
               "foo") == 'i');
  CHECK(decide(std::string("foo\0bar", 7), "foo") == 'i');
  CHECK(decide("/\n//\n!\n!/\n", "foo") == '-');
}

TEST_CASE("gitignore: anchoring, directories, negation") {
  CHECK(decide("*.o", "a/b/c.o") == 'i');
  CHECK(decide("/foo", "foo") == 'i');
  CHECK(decide("/foo", "a/foo") == '-');
  CHECK(decide("a/foo", "b/a/foo") == '-');
  CHECK(decide("foo/", "a/foo", true) == 'i');
  CHECK(decide("foo/", "a/foo", false) == '-');
  CHECK(decide("a/foo/", "a/foo", true) == 'i');
  CHECK(decide("*.o\n!keep.o\n", "x/keep.o") == 'r');
  CHECK(decide("!keep.o\n*.o\n", "keep.o") == 'i');
  CHECK(decide("**/logs/**/x.log", "a/logs/b/c/x.log") == 'i');
}

namespace {

constexpr std::string_view kNames[] = {"a",  "b",  "ab",  "a.c", "b.o",  "[x]", "a b", "foo", "bar ",
                                       "#h", "!n", "x*y", "é",   "a\\b", "-",   "FOO", "z1"};

// Composes ignore patterns from pieces that exercise each rule, meaningful or not.
class Generator {
 public:
  explicit Generator(std::uint64_t seed) : random_(seed) {}

  std::string name() { return std::string(kNames[below(std::size(kNames))]); }

  std::string pattern() {
    std::string text;
    if (below(5) == 0) text += '!';
    if (below(5) == 0) text += '/';
    for (std::size_t i = below(3) + 1; i > 0; --i) {
      text += component();
      if (i > 1) text += '/';
    }
    if (below(5) == 0) text += '/';
    if (below(12) == 0) text += ' ';
    if (below(25) == 0) text += '\r';
    return text;
  }

  void tree(const test::TempDir& dir, const std::string& at, unsigned depth) {
    if (depth < 2 || below(3) == 0) {
      std::string rules;
      for (std::size_t i = below(5); i > 0; --i) rules += pattern() + "\n";
      if (below(2) == 0) dir.write(at + ".gitignore", rules);
    }
    for (std::size_t i = below(6) + 1; i > 0; --i) {
      const std::string path = at + name();
      if (std::filesystem::exists(dir / path)) continue;
      if (depth < 4 && below(2) == 0) {
        tree(dir, path + '/', depth + 1);
      } else {
        dir.write(path, "x");
      }
    }
  }

 private:
  std::size_t below(std::size_t limit) {
    return std::uniform_int_distribution<std::size_t>(0, limit - 1)(random_);
  }

  std::string component() {
    static constexpr std::string_view kPieces[] = {
        "*", "**", "?", "[ab]", "[!a]", "[a-f]", "[[:alpha:]]", "[]x]", "\\a", "\\[", "[",           "\\",
        ".", "a",  "b", "o",    "c",    "***",   "[^b]",        "[a-]", "x",   "\\*", "[[:bogus:]]", "[b-a]"};
    if (below(3) == 0) return name();
    if (below(5) == 0) return "**";
    std::string text;
    for (std::size_t i = below(3) + 1; i > 0; --i) {
      text += below(3) == 0 ? name() : std::string(kPieces[below(std::size(kPieces))]);
    }
    return text;
  }

  std::mt19937_64 random_;
};

int shell(const std::string& command) {
  const int status = std::system(command.c_str());
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

std::string slurp(const std::string& path) {
  std::ostringstream content;
  content << std::ifstream(path, std::ios::binary).rdbuf();
  return content.str();
}

// The files of `tree` that git itself does not ignore.
std::set<std::string> kept_by_git(const test::TempDir& dir, const std::string& tree) {
  std::set<std::string> files;
  std::string list;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(tree)) {
    const std::string path = entry.path().string().substr(tree.size() + 1);
    if (path == ".git" || path.starts_with(".git/") || entry.is_directory()) continue;
    files.insert(path);
    list.append("./" + path).push_back('\0');
  }
  dir.write("list", list);
  const std::string git =
      "cd '" + tree + "' && HOME=/nonexistent GIT_CONFIG_NOSYSTEM=1 git -c core.excludesFile= ";
  REQUIRE(shell(git + "init -q . && rm -f .git/info/exclude") == 0);
  REQUIRE(shell(git + "check-ignore --no-index -z --stdin < ../list > ../ignored") <= 1);
  std::istringstream ignored(slurp(dir / "ignored"));
  for (std::string path; std::getline(ignored, path, '\0');) files.erase(path.substr(2));
  std::filesystem::remove_all(tree + "/.git");
  return files;
}

std::set<std::string> kept_by_walk(const std::string& tree, bool ignore_files = true) {
  corpus::WalkOptions options;
  options.ignore_files = ignore_files;
  options.hidden = true;
  const corpus::Corpus corpus = corpus::walk(tree, options);
  std::set<std::string> files;
  for (const auto& file : corpus.files) files.insert(corpus.path_of(file).substr(tree.size() + 1));
  return files;
}

}  // namespace

TEST_CASE("gitignore: random trees and patterns, compared with git") {
  const std::uint64_t seed = test::test_seed();
  CAPTURE(seed);
  std::size_t kept = 0;
  std::size_t rules_used = 0;
  for (std::uint64_t round = 0; round < 60; ++round) {
    CAPTURE(round);
    const test::TempDir dir;
    Generator(seed + round).tree(dir, "tree/", 0);
    const std::string tree = dir / "tree";
    const auto expected = kept_by_git(dir, tree);
    const auto found = kept_by_walk(tree);
    kept += expected.size();
    if (expected.size() != kept_by_walk(tree, false).size()) ++rules_used;
    if (expected != found) {
      // The tree is gone after the test: show what it takes to see the difference.
      std::ostringstream difference;
      for (const auto& path : expected) {
        if (!found.contains(path)) difference << "git keeps " << path << '\n';
      }
      for (const auto& path : found) {
        if (!expected.contains(path)) difference << "git ignores " << path << '\n';
      }
      for (const auto& entry : std::filesystem::recursive_directory_iterator(tree)) {
        if (entry.path().filename() != ".gitignore") continue;
        difference << "--- " << entry.path().string().substr(tree.size() + 1) << '\n' << slurp(entry.path());
      }
      FAIL_CHECK(difference.str());
    }
  }
  // The comparison says something only if the patterns bite, and not on everything.
  CHECK(kept > 100);
  CHECK(rules_used > 5);
}
