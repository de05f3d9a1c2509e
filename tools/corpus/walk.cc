#include "corpus/walk.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <set>
#include <string_view>

#include <tokcask/error.h>

#include "corpus/file.h"

namespace tokcask::corpus {
namespace {

std::string error_text(int error) { return std::strerror(error); }

std::string join(std::string_view directory, std::string_view name) {
  std::string path(directory);
  if (!path.ends_with('/')) path += '/';
  return path.append(name);
}

std::optional<std::string> real_path(const std::string& path) {
  const std::unique_ptr<char, decltype(&std::free)> real(::realpath(path.c_str(), nullptr), &std::free);
  if (!real) return std::nullopt;
  return std::string(real.get());
}

struct CloseDirectory {
  void operator()(DIR* directory) const noexcept { ::closedir(directory); }
};
using UniqueDirectory = std::unique_ptr<DIR, CloseDirectory>;

// The .gitignore files that hold for a directory, innermost first. Shared, because a directory reached
// through a link is walked after the walk has left the place of the link.
struct IgnoreChain {
  IgnoreFile file;
  std::size_t base;  // bytes of the path before what `file`'s patterns are relative to
  std::shared_ptr<const IgnoreChain> outer;
};
using IgnoreScope = std::shared_ptr<const IgnoreChain>;

struct Entry {
  std::string name;
  unsigned char type;
};

// A directory about to be walked.
struct Place {
  std::string real;      // absolute path
  std::string relative;  // from the corpus, "" or with a trailing slash
  IgnoreScope ignore;
  bool included = false;  // a directory on the way here matches an include pattern
  unsigned depth = 0;
};

bool matches_any(const std::vector<PathPattern>& patterns, std::string_view path, std::string_view name,
                 bool is_directory) {
  return std::any_of(patterns.begin(), patterns.end(),
                     [&](const PathPattern& pattern) { return pattern.matches(path, name, is_directory); });
}

class Walker {
 public:
  Walker(const WalkOptions& options, Corpus& corpus) : options_(options), corpus_(corpus) {}

  void walk(UniqueFd root, std::string real) {
    Place place;
    place.real = std::move(real);
    place.included = options_.include.empty();
    directory(std::move(root), std::move(place));
    // Grows while it is worked off: what a link leads to may hold links.
    for (std::size_t i = 0; i < links_.size() && !corpus_.stopped; ++i) {
      Place link = std::move(links_[i]);
      follow(std::move(link));
    }
  }

 private:
  void follow(Place link) {
    UniqueFd fd(::open(link.real.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK));
    auto target = fd.valid() ? real_path(link.real) : std::nullopt;
    if (!target) return unreadable(link.real, errno);
    link.real = std::move(*target);
    directory(std::move(fd), std::move(link));
  }

  void directory(UniqueFd fd, Place place) {
    if (options_.stop && options_.stop()) corpus_.stopped = true;
    if (corpus_.stopped) return;
    struct stat status;
    if (::fstat(fd.get(), &status) != 0) return unreadable(place.real, errno);
    if (is_kept_out(status)) {
      ++corpus_.skipped.store;
      return;
    }
    if (!visited_.insert({status.st_dev, status.st_ino}).second) {
      ++corpus_.skipped.repeated;
      return;
    }

    const UniqueDirectory stream(::fdopendir(fd.get()));
    if (!stream) return unreadable(place.real, errno);
    fd.release();
    const int directory_fd = ::dirfd(stream.get());
    const std::vector<Entry> entries = read_entries(stream.get(), place.real);
    if (options_.ignore_files) add_ignore_file(directory_fd, entries, place);

    const auto index = static_cast<std::uint32_t>(corpus_.directories.size());
    corpus_.directories.push_back({place.real, false});
    for (const Entry& entry : entries) {
      if (corpus_.stopped) return;
      if (visit(directory_fd, entry, place, index) == Visit::kFiltered) {
        corpus_.directories[index].filtered = true;
      }
    }
  }

  std::vector<Entry> read_entries(DIR* stream, const std::string& path) {
    std::vector<Entry> entries;
    for (;;) {
      errno = 0;
      const struct dirent* entry = ::readdir(stream);
      if (entry == nullptr) break;
      const std::string_view name = entry->d_name;
      if (name != "." && name != "..") entries.push_back({std::string(name), entry->d_type});
    }
    if (errno != 0) unreadable(path, errno);
    std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.name < b.name; });
    return entries;
  }

  void add_ignore_file(int directory_fd, const std::vector<Entry>& entries, Place& place) {
    const bool present = std::any_of(entries.begin(), entries.end(),
                                     [](const Entry& entry) { return entry.name == ".gitignore"; });
    if (!present) return;
    constexpr std::uint64_t kMaxIgnoreFileBytes = std::uint64_t{16} << 20;
    // Like git, do not follow a .gitignore that is a symbolic link.
    const UniqueFd fd(::openat(directory_fd, ".gitignore", O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW));
    struct stat status;
    std::string content;
    int error = fd.valid() && ::fstat(fd.get(), &status) == 0 ? 0 : errno;
    if (error == 0 && !S_ISREG(status.st_mode)) return;
    if (error == 0) {
      error = read_all(fd.get(), static_cast<std::uint64_t>(status.st_size), kMaxIgnoreFileBytes, content);
    }
    if (error != 0) return unreadable(join(place.real, ".gitignore"), error);
    IgnoreFile file = IgnoreFile::parse(content);
    if (file.empty()) return;
    place.ignore = std::make_shared<const IgnoreChain>(
        IgnoreChain{std::move(file), place.relative.size(), place.ignore});
  }

  // Whether an entry is there for the options given; one that is not may still have been remembered before.
  enum class Visit { kSeen, kFiltered };

  Visit visit(int directory_fd, const Entry& entry, const Place& place, std::uint32_t index) {
    if (options_.ignore_files && entry.name == ".git") return filtered(corpus_.skipped.ignored);
    if (!options_.hidden && entry.name.front() == '.') return filtered(corpus_.skipped.hidden);
    struct stat status;
    unsigned char type = entry.type;
    if (type == DT_UNKNOWN) {
      if (::fstatat(directory_fd, entry.name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) {
        unreadable(join(place.real, entry.name), errno);
        return Visit::kSeen;
      }
      type = static_cast<unsigned char>(IFTODT(status.st_mode));
    }
    const std::string path = place.relative + entry.name;
    const bool is_directory = type == DT_DIR;
    if (is_ignored(place.ignore.get(), path, entry.name, is_directory)) {
      return filtered(corpus_.skipped.ignored);
    }
    if (matches_any(options_.exclude, path, entry.name, is_directory)) {
      return filtered(corpus_.skipped.excluded);
    }
    if (is_directory) {
      subdirectory(directory_fd, entry, place, path);
    } else if (type == DT_REG || type == DT_LNK) {
      return file_or_link(directory_fd, entry, place, path, index);
    } else {
      ++corpus_.skipped.special;
    }
    return Visit::kSeen;
  }

  Visit file_or_link(int directory_fd, const Entry& entry, const Place& place, const std::string& path,
                     std::uint32_t index) {
    const bool named = matches_any(options_.include, path, entry.name, false);
    const bool included = place.included || named;
    if (entry.type == DT_REG && !included) return filtered(corpus_.skipped.excluded);
    struct stat status;
    if (::fstatat(directory_fd, entry.name.c_str(), &status, 0) != 0) {
      unreadable(join(place.real, entry.name), errno);
    } else if (S_ISDIR(status.st_mode)) {
      links_.push_back({join(place.real, entry.name), path + '/', place.ignore, included, place.depth + 1});
    } else if (!included) {
      return filtered(corpus_.skipped.excluded);
    } else if (S_ISREG(status.st_mode) && !named && is_of_rows(entry.name)) {
      return filtered(corpus_.skipped.rows);
    } else {
      file(entry.name, status, index);
    }
    return Visit::kSeen;
  }

  static Visit filtered(std::uint64_t& counter) {
    ++counter;
    return Visit::kFiltered;
  }

  void file(const std::string& name, const struct stat& status, std::uint32_t index) {
    if (!S_ISREG(status.st_mode)) {
      ++corpus_.skipped.special;
    } else if (is_kept_out(status)) {
      ++corpus_.skipped.store;
    } else {
      corpus_.files.push_back({index, name, identity_of(status)});
    }
  }

  void subdirectory(int directory_fd, const Entry& entry, const Place& place, const std::string& path) {
    Place next{join(place.real, entry.name), path + '/', place.ignore, place.included, place.depth + 1};
    if (next.depth > kMaxDepth) {
      return corpus_.skipped.unreadable.add(next.real + ": nested more than " + std::to_string(kMaxDepth) +
                                            " directories deep");
    }
    next.included = next.included || matches_any(options_.include, path, entry.name, true);
    UniqueFd fd(::openat(directory_fd, entry.name.c_str(),
                         O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
    if (!fd.valid()) return unreadable(next.real, errno);
    directory(std::move(fd), std::move(next));
  }

  static bool is_ignored(const IgnoreChain* scope, std::string_view path, std::string_view name,
                         bool is_directory) {
    for (; scope != nullptr; scope = scope->outer.get()) {
      if (const auto decision = scope->file.decide(path.substr(scope->base), name, is_directory)) {
        return *decision;
      }
    }
    return false;
  }

  [[nodiscard]] bool is_kept_out(const struct stat& status) const {
    return std::find(options_.never.begin(), options_.never.end(), std::pair(status.st_dev, status.st_ino)) !=
           options_.never.end();
  }

  void unreadable(const std::string& path, int error) {
    corpus_.skipped.unreadable.add(path + ": " + error_text(error));
  }

  const WalkOptions& options_;
  Corpus& corpus_;
  std::set<std::pair<dev_t, ino_t>> visited_;
  std::vector<Place> links_;
};

[[noreturn]] void throw_root(const std::string& root, int error) {
  const bool absent = error == ENOENT || error == ENOTDIR;
  throw Error(absent ? Errc::kNotFound : Errc::kIo, "corpus " + root + ": " + error_text(error));
}

}  // namespace

bool is_of_rows(std::string_view name) {
  std::string lower(name);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c; });
  constexpr std::array<std::string_view, 9> kEndings = {".jsonl",     ".ndjson",    ".jsonl.gz",
                                                        ".ndjson.gz", ".jsonl.zst", ".ndjson.zst",
                                                        ".json.gz",   ".parquet",   ".arrow"};
  return std::any_of(kEndings.begin(), kEndings.end(),
                     [&](std::string_view ending) { return lower.ends_with(ending); });
}

std::string Corpus::path_of(const CorpusFile& file) const {
  return join(directories[file.directory].path, file.name);
}

Corpus walk(const std::string& root, const WalkOptions& options) {
  Corpus corpus;
  const auto real = real_path(root);
  struct stat status;
  if (!real || ::stat(real->c_str(), &status) != 0) throw_root(root, errno);
  if (S_ISREG(status.st_mode)) {
    const std::size_t slash = real->rfind('/');
    // By the name that was given, too: a link may lead to a file whose name tells nothing.
    const std::string_view name = std::string_view(root).substr(root.rfind('/') + 1);
    if ((is_of_rows(name) || is_of_rows(*real)) && !matches_any(options.include, name, name, false)) {
      throw Error(
          Errc::kInvalidArgument,
          "corpus " + root +
              ": a file of rows, of which this would make one text. Rows are for pretokenize_rows() of the "
              "Python package; to take the file as one text all the same, name it with --include");
    }
    corpus.directories.push_back({slash == 0 ? "/" : real->substr(0, slash), true});
    const auto inode = std::pair(status.st_dev, status.st_ino);
    if (std::find(options.never.begin(), options.never.end(), inode) != options.never.end()) {
      ++corpus.skipped.store;
    } else {
      corpus.files.push_back({0, real->substr(slash + 1), identity_of(status)});
    }
    return corpus;
  }
  if (!S_ISDIR(status.st_mode)) {
    throw Error(Errc::kInvalidArgument, "corpus " + root + ": neither a directory nor a regular file");
  }
  UniqueFd fd(::open(real->c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK));
  if (!fd.valid()) throw_root(root, errno);
  Walker(options, corpus).walk(std::move(fd), *real);
  return corpus;
}

}  // namespace tokcask::corpus
