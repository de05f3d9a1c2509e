#include "corpus/gitignore.h"
#include "corpus/glob.h"
#include "corpus/utf8.h"
#include "target.h"

namespace tokcask::fuzz {
namespace {

// A path, a line feed, and either a pattern or, as a whole, a .gitignore file.
std::vector<std::string> seeds() {
  return {"src/main.c\n*.c",
          "a/x/y/b\na/**/b",
          "q/ax/b/c/d/c1\n**/a*/b/**/c?",
          "Makefile\n[A-M]ake[[:alpha:]]*",
          "a]b\na[]-a]b",
          "a*b\na\\*b",
          "build/x.o\n# made\n*.o\n!keep.o\nbuild/\n/top\n\\#x \n\\!y\n  \n",
          "aaaaaaaaaaaaaaaaaaaaaaaaaaaa/b\n*a*a*a*a*a*a*a*/**/*a*a*c"};
}

void run(std::string_view input) {
  // More takes a fuzzer's time and shows nothing else: matching is quadratic.
  constexpr std::size_t kMost = 4096;
  Feed feed(input.substr(0, kMost));
  const std::string path(feed.until('\n'));
  const std::string pattern(feed.rest());
  const bool matched = corpus::glob_match(pattern, path);
  require(corpus::literal_prefix(pattern) <= pattern.size(), "a prefix is no longer than the whole");
  if (corpus::literal_prefix(pattern) == pattern.size()) {
    require(matched == (pattern == path), "a pattern without wildcards matches itself alone");
  }
  const std::string name = path.substr(path.rfind('/') + 1);
  for (const bool directory : {false, true}) {
    static_cast<void>(corpus::PathPattern(pattern).matches(path, name, directory));
    const corpus::IgnoreFile file = corpus::IgnoreFile::parse(pattern);
    require(!file.empty() || !file.decide(path, name, directory), "an empty file decides nothing");
  }
  static_cast<void>(corpus::classify(input));
}

void mutate(std::string& bytes, std::size_t most, Random& random) {
  constexpr std::string_view kSpecial = "*?[]!^\\/-:a\n# ";
  for (std::size_t changes = 1 + below(random, 4); changes > 0; --changes) {
    const std::size_t at = below(random, bytes.size() + 1);
    const char c = kSpecial[below(random, kSpecial.size())];
    if (at < bytes.size() && below(random, 2) == 0) {
      bytes[at] = c;
    } else {
      bytes.insert(at, 1, c);
    }
  }
  if (bytes.size() > most) bytes.resize(most);
}

}  // namespace

const Target patterns_target{
    .name = "patterns", .seeds = seeds, .run = run, .mutate = mutate, .rounds = 50'000};

}  // namespace tokcask::fuzz
