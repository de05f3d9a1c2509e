#include "corpus/glob.h"

#include <doctest/doctest.h>

#include <chrono>
#include <string>

using tokcask::corpus::glob_match;

TEST_CASE("glob: plain characters and single wildcards") {
  CHECK(glob_match("", ""));
  CHECK_FALSE(glob_match("", "a"));
  CHECK_FALSE(glob_match("a", ""));
  CHECK(glob_match("foo.c", "foo.c"));
  CHECK_FALSE(glob_match("foo.c", "foo.cc"));
  CHECK(glob_match("f?o", "fxo"));
  CHECK_FALSE(glob_match("f?o", "f/o"));
  CHECK(glob_match("*", "anything"));
  CHECK(glob_match("*", ""));
  CHECK_FALSE(glob_match("*", "a/b"));
  CHECK(glob_match("*.c", ".c"));
  CHECK(glob_match("a*b*c", "aXbYbZc"));
  CHECK_FALSE(glob_match("a*b*c", "aXbY/c"));
  CHECK(glob_match("src/*.c", "src/main.c"));
  CHECK_FALSE(glob_match("src/*.c", "src/x/main.c"));
}

TEST_CASE("glob: two stars cross directories only as a whole component") {
  CHECK(glob_match("**/foo", "foo"));
  CHECK(glob_match("**/foo", "a/b/foo"));
  CHECK_FALSE(glob_match("**/foo", "a/bfoo"));
  CHECK(glob_match("foo/**", "foo/a"));
  CHECK(glob_match("foo/**", "foo/a/b"));
  CHECK_FALSE(glob_match("foo/**", "foo"));
  CHECK(glob_match("a/**/b", "a/b"));
  CHECK(glob_match("a/**/b", "a/x/y/b"));
  CHECK_FALSE(glob_match("a/**/b", "a/xb"));
  CHECK(glob_match("**", "a/b/c"));
  CHECK_FALSE(glob_match("a**b", "a/b"));
  CHECK(glob_match("a**b", "axxb"));
  CHECK_FALSE(glob_match("x**/b", "xa/c/b"));
  CHECK(glob_match("**/a*/b/**/c?", "q/ax/b/c1"));
  CHECK(glob_match("**/a*/b/**/c?", "ay/z/ax/b/c/d/c1"));
}

TEST_CASE("glob: sets") {
  CHECK(glob_match("[abc]", "b"));
  CHECK_FALSE(glob_match("[abc]", "d"));
  CHECK(glob_match("[!abc]", "d"));
  CHECK(glob_match("[^abc]", "d"));
  CHECK_FALSE(glob_match("[!abc]", "/"));
  CHECK(glob_match("[a-cx-z]", "y"));
  CHECK(glob_match("[]]", "]"));
  CHECK(glob_match("[]-a]", "^"));
  CHECK_FALSE(glob_match("[!]a-]", "-"));
  CHECK(glob_match("[a-]", "-"));
  CHECK(glob_match("[\\]]", "]"));
  CHECK(glob_match("[[:digit:][:upper:]]x", "7x"));
  CHECK_FALSE(glob_match("[[:digit:]]", "a"));
  CHECK(glob_match("[[:xdigit:]]", "F"));
  CHECK_FALSE(glob_match("[[:nonsense:]]", "a"));
  CHECK_FALSE(glob_match("[abc", "a"));
  CHECK_FALSE(glob_match("[", "["));
  CHECK(glob_match("[[:alpha]", ":"));
  CHECK(glob_match("[\x80-\xff]", "\xc3"));
}

TEST_CASE("glob: escapes") {
  CHECK(glob_match("\\*", "*"));
  CHECK_FALSE(glob_match("\\*", "x"));
  CHECK(glob_match("a\\b", "ab"));
  CHECK_FALSE(glob_match("a\\", "a\\"));
  CHECK(glob_match("\\[a]", "[a]"));
}

TEST_CASE("glob: a hostile pattern takes no unreasonable time") {
  const auto start = std::chrono::steady_clock::now();
  std::string pattern;
  for (int i = 0; i < 40; ++i) pattern += "**/*a*a*a*";
  std::string text;
  for (int i = 0; i < 300; ++i) text += "aaaaaaaaaa/";
  CHECK_FALSE(glob_match(pattern + "b", text + "c"));
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(5));
}
