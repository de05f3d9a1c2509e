#include "corpus/walk.h"

#include <doctest/doctest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <vector>

#include <tokcask/error.h>

#include "corpus/file.h"
#include "support.h"

using namespace tokcask;
using namespace tokcask::corpus;

namespace {

using Names = std::vector<std::string>;

Names names_of(const Corpus& corpus, const std::string& root) {
  Names names;
  for (const CorpusFile& file : corpus.files) {
    const std::string path = corpus.path_of(file);
    names.push_back(path.starts_with(root + '/') ? path.substr(root.size() + 1) : path);
  }
  return names;
}

Names walked(const test::TempDir& dir, const WalkOptions& options = {}) {
  return names_of(walk(dir.path(), options), dir.path());
}

std::vector<PathPattern> globs(std::initializer_list<const char*> texts) {
  return {texts.begin(), texts.end()};
}

bool names(const NamedFiles& files, std::string_view part) {
  return std::any_of(files.names.begin(), files.names.end(),
                     [&](const std::string& name) { return name.find(part) != std::string::npos; });
}

}  // namespace

TEST_CASE("walk: one order, with subdirectories in their place") {
  const test::TempDir dir;
  for (const char* name : {"b", "a/z", "a/b/c", "a-b", "a.txt", "B", "\xC3\xA9", "c/d"})
    dir.write(name, name);
  dir.make_directory("empty");
  CHECK(walked(dir) == Names{"B", "a/b/c", "a/z", "a-b", "a.txt", "b", "c/d", "\xC3\xA9"});
}

TEST_CASE("walk: files of rows are for those who name them") {
  const test::TempDir dir;
  for (const char* name : {"a.jsonl", "b.NDJSON", "c.jsonl.gz", "d.jsonl.zst", "e.json.gz", "f.parquet",
                           "g.arrow", "h.json", "i.jsonl.txt", "j.jsonlx", "sub/k.jsonl", "sub/l.txt"})
    dir.write(name, name);
  dir.link("m", "a.jsonl");
  const Corpus corpus = walk(dir.path(), {});
  CHECK(names_of(corpus, dir.path()) == Names{"h.json", "i.jsonl.txt", "j.jsonlx", "m", "sub/l.txt"});
  CHECK(corpus.skipped.rows == 8);
  CHECK(corpus.directories.front().filtered);
  WalkOptions options;
  options.include = globs({"*.jsonl", "*.json"});
  CHECK(walked(dir, options) == Names{"a.jsonl", "h.json", "sub/k.jsonl"});
  options.include = globs({"sub"});  // names the directory, not the file
  CHECK(walked(dir, options) == Names{"sub/l.txt"});

  // As the corpus itself.
  dir.link("n.parquet", "h.json");
  for (const char* name : {"a.jsonl", "b.NDJSON", "e.json.gz", "m", "n.parquet"}) {
    CAPTURE(name);
    try {
      static_cast<void>(walk(dir / name, {}));
      FAIL_CHECK("nothing was thrown");
    } catch (const Error& error) {
      CHECK(error.code() == Errc::kInvalidArgument);
      CHECK(std::string_view(error.what()).find("pretokenize_rows") != std::string_view::npos);
    }
  }
  options.include = globs({"*.jsonl"});
  CHECK(names_of(walk(dir / "a.jsonl", options), dir.path()) == Names{"a.jsonl"});
  CHECK(names_of(walk(dir / "h.json", {}), dir.path()) == Names{"h.json"});
}

TEST_CASE("walk: a file's figures are those of stat") {
  const test::TempDir dir;
  const std::string path = dir.write("file", "12345");
  const Corpus corpus = walk(dir.path(), {});
  struct stat status;
  REQUIRE(::stat(path.c_str(), &status) == 0);
  REQUIRE(corpus.files.size() == 1);
  CHECK(corpus.files[0].identity == identity_of(status));
  CHECK(corpus.files[0].identity.size == 5);
}

TEST_CASE("walk: hidden names are left out and counted, unless asked for") {
  const test::TempDir dir;
  for (const char* name : {".profile", ".cache/x", "seen", "d/.y", ".git/config", "d/.git"})
    dir.write(name, "x");
  Corpus corpus = walk(dir.path(), {});
  CHECK(names_of(corpus, dir.path()) == Names{"seen"});
  CHECK(corpus.skipped.hidden == 3);
  CHECK(corpus.skipped.ignored == 2);
  CHECK(corpus.directories[0].filtered);

  WalkOptions options;
  options.hidden = true;
  CHECK(walked(dir, options) == Names{".cache/x", ".profile", "d/.y", "seen"});
  options.ignore_files = false;
  CHECK(walked(dir, options).size() == 6);
}

TEST_CASE("walk: include and exclude patterns") {
  const test::TempDir dir;
  for (const char* name :
       {"a.py", "src/b.py", "src/c.c", "src/sub/d.py", "build/e.py", "build.txt", "t/src/f.c"}) {
    dir.write(name, name);
  }
  WalkOptions options;
  options.include = globs({"*.py"});
  Corpus corpus = walk(dir.path(), options);
  CHECK(names_of(corpus, dir.path()) == Names{"a.py", "build/e.py", "src/b.py", "src/sub/d.py"});
  CHECK(corpus.skipped.excluded == 3);
  options.exclude = globs({"build", "src/sub/"});
  CHECK(walked(dir, options) == Names{"a.py", "src/b.py"});
  options.exclude = globs({"/a.py", "**/sub/**"});
  CHECK(walked(dir, options) == Names{"build/e.py", "src/b.py"});

  options = {};
  options.include = globs({"src/"});
  CHECK(walked(dir, options) == Names{"src/b.py", "src/c.c", "src/sub/d.py", "t/src/f.c"});
  options.include = globs({"/src/*.c", "build.txt"});
  CHECK(walked(dir, options) == Names{"build.txt", "src/c.c"});
  options.include = globs({"!a.py"});
  CHECK(walked(dir, options).empty());
}

TEST_CASE("walk: .gitignore files, each for its directory, the deepest first") {
  const test::TempDir dir;
  dir.write(".gitignore", "*.log\n/out/\n");
  dir.write("d/.gitignore", "!keep.log\nlocal\n");
  for (const char* name :
       {"a.log", "out/x", "d/out/y", "d/keep.log", "d/b.log", "d/e/keep.log", "d/local", "local"}) {
    dir.write(name, name);
  }
  const Corpus corpus = walk(dir.path(), {});
  CHECK(names_of(corpus, dir.path()) == Names{"d/e/keep.log", "d/keep.log", "d/out/y", "local"});
  CHECK(corpus.skipped.ignored == 4);
  CHECK(corpus.skipped.hidden == 2);

  // The directory above the corpus has no say.
  CHECK(names_of(walk(dir / "out", {}), dir / "out") == Names{"x"});
}

TEST_CASE("walk: loops and repeats of directories through links are survived and counted") {
  const test::TempDir dir;
  const test::TempDir outside;
  outside.write("o", "outside");
  outside.link("back", dir.path());
  dir.write("a/f", "x");
  dir.link("a/self", ".");
  dir.link("a/up", "..");
  dir.link("0first", "a");
  dir.link("ext", outside.path());
  dir.link("ext2", outside.path());
  const Corpus corpus = walk(dir.path(), {});
  CHECK(names_of(corpus, dir.path()) == Names{"a/f", outside / "o"});
  CHECK(corpus.skipped.repeated == 5);
  CHECK(corpus.skipped.unreadable.total == 0);
}

TEST_CASE("walk: a link to a directory that is otherwise left out is followed") {
  const test::TempDir dir;
  dir.write(".data/f", "x");
  dir.link("data", ".data");
  const Corpus corpus = walk(dir.path(), {});
  CHECK(names_of(corpus, dir.path()) == Names{".data/f"});
  WalkOptions options;
  options.exclude = globs({"data"});
  CHECK(walked(dir, options).empty());
}

TEST_CASE("walk: links to files are followed, links to nowhere are named") {
  const test::TempDir dir;
  dir.write("file", "x");
  dir.link("link", "file");
  dir.link("nowhere", "absent");
  dir.link("loop", "loop");
  const Corpus corpus = walk(dir.path(), {});
  CHECK(names_of(corpus, dir.path()) == Names{"file", "link"});
  CHECK(corpus.skipped.unreadable.total == 2);
  CHECK(names(corpus.skipped.unreadable, "nowhere: No such file"));
  CHECK(names(corpus.skipped.unreadable, "loop: Too many levels"));
}

TEST_CASE("walk: FIFOs, sockets and devices are counted and never opened") {
  const test::TempDir dir;
  dir.write("file", "x");
  REQUIRE(::mkfifo((dir / "fifo").c_str(), 0600) == 0);
  struct sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  const std::string path = dir / "socket";
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  const UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  REQUIRE(::bind(socket.get(), static_cast<const sockaddr*>(static_cast<const void*>(&address)),
                 sizeof address) == 0);
  dir.link("zero", "/dev/zero");
  const Corpus corpus = walk(dir.path(), {});
  CHECK(names_of(corpus, dir.path()) == Names{"file"});
  CHECK(corpus.skipped.special == 3);
}

TEST_CASE("walk: names are bytes") {
  const test::TempDir dir;
  const Names expected{"\x01new\nline", "-rf", "\xFF\xFE",
                       "\xFF"
                       "dir/\x80"};
  for (const std::string& name : expected) dir.write(name, "x");
  Names found = walked(dir);
  std::sort(found.begin(), found.end());
  Names sorted = expected;
  std::sort(sorted.begin(), sorted.end());
  CHECK(found == sorted);
}

TEST_CASE("walk: directories nested beyond the limit are named, not followed") {
  const test::TempDir dir;
  std::string path = "d";
  for (unsigned i = 1; i < kMaxDepth + 5; ++i) path += "/d";
  dir.write(path + "/bottom", "x");
  dir.write("top", "x");
  const Corpus corpus = walk(dir.path(), {});
  CHECK(names_of(corpus, dir.path()) == Names{"top"});
  CHECK(corpus.skipped.unreadable.total == 1);
  CHECK(names(corpus.skipped.unreadable, "nested more than"));
}

TEST_CASE("walk: more unreadable names than are kept are still counted") {
  const test::TempDir dir;
  for (int i = 0; i < 50; ++i) dir.link("l" + std::to_string(i), "absent");
  const Corpus corpus = walk(dir.path(), {});
  CHECK(corpus.skipped.unreadable.total == 50);
  CHECK(corpus.skipped.unreadable.names.size() == NamedFiles::kMaxNames);
}

TEST_CASE("walk: a .gitignore that is no readable file does no harm") {
  const test::TempDir dir;
  dir.make_directory("a/.gitignore");
  dir.link("b/.gitignore", "absent");
  dir.write("a/x", "x");
  dir.write("b/y", "y");
  const Corpus corpus = walk(dir.path(), {});
  CHECK(names_of(corpus, dir.path()) == Names{"a/x", "b/y"});
  CHECK(corpus.skipped.unreadable.total == 1);
}

TEST_CASE("walk: what must not be touched is not, under any name") {
  const test::TempDir dir;
  dir.write("store/data", "x");
  dir.write("file", "x");
  dir.link("alias", "store");
  dir.link("data", "store/data");
  WalkOptions options;
  struct stat status;
  for (const char* name : {"store", "store/data"}) {
    REQUIRE(::stat((dir / name).c_str(), &status) == 0);
    options.never.emplace_back(status.st_dev, status.st_ino);
  }
  const Corpus corpus = walk(dir.path(), options);
  CHECK(names_of(corpus, dir.path()) == Names{"file"});
  CHECK(corpus.skipped.store == 3);
  CHECK(walk(dir / "store/data", options).files.empty());
}

TEST_CASE("walk: one file as a corpus, whatever its name") {
  const test::TempDir dir;
  dir.write(".hidden", "x");
  dir.write(".gitignore", "*");
  const Corpus corpus = walk(dir / ".hidden", {});
  CHECK(names_of(corpus, dir.path()) == Names{".hidden"});
  CHECK(corpus.directories[0].path == dir.path());
  CHECK(corpus.directories[0].filtered);
}

TEST_CASE("walk: a corpus that is not there, or is neither directory nor file") {
  const test::TempDir dir;
  const auto code_of = [](const std::string& root) {
    try {
      static_cast<void>(walk(root, {}));
    } catch (const Error& error) {
      CHECK(std::string(error.what()).find(root) != std::string::npos);
      return error.code();
    }
    FAIL("no error for " << root);
    return Errc::kClosed;
  };
  CHECK(code_of(dir / "absent") == Errc::kNotFound);
  dir.write("file", "x");
  CHECK(code_of(dir / "file/below") == Errc::kNotFound);
  CHECK(code_of("/dev/null") == Errc::kInvalidArgument);
}

TEST_CASE("walk: ends early when told to") {
  const test::TempDir dir;
  for (int i = 0; i < 20; ++i) dir.write("d" + std::to_string(i) + "/f", "x");
  WalkOptions options;
  int asked = 0;
  options.stop = [&] { return ++asked > 5; };
  const Corpus corpus = walk(dir.path(), options);
  CHECK(corpus.stopped);
  CHECK(corpus.files.size() == 4);
}
