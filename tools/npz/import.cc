#include "npz/import.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "npz/archive.h"

namespace tokcask::npz {
namespace {

using corpus::UniqueFd;

// Many enough for one look-up, and few enough that their tokens fit in memory, whatever the files hold.
constexpr std::size_t kRowsAtOnce = 64;
constexpr std::size_t kTokensAtOnce = std::size_t{4} << 20;

UniqueFd open_directory(int parent, const char* name, int more_flags = O_NOFOLLOW) {
  return UniqueFd(::openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | more_flags));
}

std::string name_of(const ManifestRow& row) { return row.shard + '/' + row.filename; }

// What lies in a directory, without "." and "..". Closes `directory`.
std::vector<std::string> names_in(UniqueFd directory) {
  std::vector<std::string> names;
  const std::unique_ptr<DIR, int (*)(DIR*)> stream(::fdopendir(directory.get()), ::closedir);
  if (!stream) return names;
  static_cast<void>(directory.release());
  while (const dirent* entry = ::readdir(stream.get())) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

// DIR/entries, and the files in it.
class Entries {
 public:
  explicit Entries(const std::string& directory) {
    const UniqueFd root = open_directory(AT_FDCWD, directory.c_str(), 0);
    if (root.valid()) entries_ = open_directory(root.get(), "entries");
    // Without it, each entry's file is missing.
    if (!entries_.valid() && errno != ENOENT) {
      throw Error(
          errno == ENOTDIR || errno == ELOOP ? Errc::kDamaged : Errc::kIo,
          fmt::format("{}/entries: cannot be read as a directory: {}", directory, std::strerror(errno)));
    }
  }

  // Not valid, with errno, if it cannot be opened. Rows come sorted, so that a directory is opened once.
  UniqueFd open(const ManifestRow& row) {
    if (!entries_.valid()) {
      errno = ENOENT;
      return UniqueFd();
    }
    if (!shard_.valid() || row.shard != shard_name_) {
      shard_ = open_directory(entries_.get(), row.shard.c_str());
      if (!shard_.valid()) return UniqueFd();
      shard_name_ = row.shard;
    }
    return UniqueFd(::openat(shard_.get(), row.filename.c_str(),
                             O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  }

  // Calls `found(name)` for each file below that `manifest` does not know.
  template <typename Found>
  void find_orphans(const Manifest& manifest, Found found) const {
    if (!entries_.valid()) return;
    for (const std::string& shard : names_in(open_directory(entries_.get(), "."))) {
      UniqueFd directory = open_directory(entries_.get(), shard.c_str());
      if (!directory.valid()) {
        found(shard);
        continue;
      }
      for (const std::string& name : names_in(std::move(directory))) {
        if (!manifest.knows(shard, name)) found(shard + '/' + name);
      }
    }
  }

 private:
  UniqueFd entries_;
  UniqueFd shard_;
  std::string shard_name_;
};

// An entry as its file has it.
struct Loaded {
  const ManifestRow* row;
  Arrays arrays;
  std::uint64_t created_ns;
};

bool same_tokens(const TokenView& view, const Arrays& arrays) {
  return std::ranges::equal(view.input_ids(), arrays.input_ids) &&
         std::ranges::equal(view.attention_mask(), arrays.attention_mask);
}

class Import {
 public:
  Import(TokenizedCache& cache, const Manifest& manifest, const ImportOptions& options,
         warm::Monitor& monitor)
      : cache_(cache),
        manifest_(manifest),
        options_(options),
        monitor_(monitor),
        entries_(options.directory),
        now_ns_(static_cast<std::uint64_t>(corpus::realtime_ns())) {}

  ImportFigures run() {
    figures_.malformed = manifest_.malformed;
    cache_.flush();  // what this process has pending would not be seen
    const std::uint64_t declined_before = cache_.stats().run.declined;
    monitor_.begin("importing", manifest_.rows.size());
    const std::span<const ManifestRow> rows(manifest_.rows);
    for (std::size_t at = 0; at < rows.size() && !monitor_.stopped(); at += kRowsAtOnce) {
      import_rows(rows.subspan(at, std::min(kRowsAtOnce, rows.size() - at)));
      monitor_.advance(at + kRowsAtOnce);
    }
    figures_.interrupted = monitor_.stopped();
    if (!figures_.interrupted) {
      entries_.find_orphans(manifest_, [&](std::string name) { figures_.orphans.add(std::move(name)); });
    }
    finish(declined_before);
    return std::move(figures_);
  }

 private:
  void import_rows(std::span<const ManifestRow> rows) {
    std::vector<Loaded> loaded;
    std::size_t tokens = 0;
    for (const ManifestRow& row : rows) {
      if (auto entry = load(row)) {
        tokens += entry->arrays.input_ids.size();
        loaded.push_back(*std::move(entry));
      }
      if (tokens >= kTokensAtOnce) {
        settle(std::exchange(loaded, {}));
        tokens = 0;
      }
    }
    settle(loaded);
  }

  void settle(const std::vector<Loaded>& loaded) {
    std::vector<CacheKey> keys;
    for (const Loaded& entry : loaded) keys.push_back(entry.row->key);
    const std::vector<std::optional<Entry>> there = cache_.peek_many(keys);
    for (std::size_t i = 0; i < loaded.size(); ++i) settle(loaded[i], there[i]);
  }

  // Nothing, and counted why, if it cannot be had.
  std::optional<Loaded> load(const ManifestRow& row) {
    UniqueFd file = entries_.open(row);
    struct stat status;
    if (!file.valid() || ::fstat(file.get(), &status) != 0) {
      const int error = errno;
      if (error == ENOENT) {
        figures_.missing.add(name_of(row));
      } else if (error == ELOOP || error == ENOTDIR) {
        figures_.malformed.add(name_of(row) + ": a link or no directory on the way");
      } else {
        figures_.damaged.add(fmt::format("{}: {}", name_of(row), std::strerror(error)));
      }
      return std::nullopt;
    }
    if (!S_ISREG(status.st_mode)) {
      figures_.malformed.add(name_of(row) + ": no regular file");
      return std::nullopt;
    }
    try {
      Loaded loaded{&row, read_npz(std::move(file)), 0};
      if (loaded.arrays.input_ids.size() > static_cast<std::size_t>(row.key.sequence_len())) {
        figures_.malformed.add(fmt::format("{}: it has {} tokens, more than its sequence length {}",
                                           name_of(row), loaded.arrays.input_ids.size(),
                                           row.key.sequence_len()));
        return std::nullopt;
      }
      loaded.created_ns =
          static_cast<std::uint64_t>(std::max<std::int64_t>(corpus::identity_of(status).mtime_ns, 0));
      return loaded;
    } catch (const Error& error) {
      corpus::NamedFiles& files = error.code() == Errc::kDamaged ? figures_.damaged : figures_.malformed;
      files.add(fmt::format("{}: it {}", name_of(row), error.what()));
      return std::nullopt;
    }
  }

  void settle(const Loaded& loaded, const std::optional<Entry>& there) {
    const ManifestRow& row = *loaded.row;
    const std::uint64_t last_access = std::min(row.last_access_ns, now_ns_);
    if (!there) {
      ++figures_.imported;
      return put(loaded, last_access);
    }
    const EntryInfo& info = there->info;
    if (same_tokens(there->view, loaded.arrays)) {
      if (last_access > info.last_access_ns) {
        if (!cache_.raise_last_access(row.key, last_access)) {
          // It has just been evicted, or removed by somebody.
          ++figures_.imported;
          return put(loaded, last_access);
        }
        ++figures_.newer_access;
      }
      ++figures_.already_there;
    } else if (options_.replace) {
      ++figures_.replaced;
      put(loaded, std::max(last_access, info.last_access_ns));
    } else {
      figures_.conflicts.add(row.key.canonical());
    }
  }

  void put(const Loaded& loaded, std::uint64_t last_access) {
    cache_.put(loaded.row->key,
               {.input_ids = loaded.arrays.input_ids, .attention_mask = loaded.arrays.attention_mask},
               {.created_ns = loaded.created_ns, .last_access_ns = last_access});
  }

  void finish(std::uint64_t declined_before) {
    if (!manifest_.tokenizer_sha.empty() && cache_.stats().tokenizer_sha.empty()) {
      cache_.save_manifest(manifest_.tokenizer_sha.substr(0, 64));
    } else {
      cache_.flush();
    }
    figures_.store = cache_.stats();
    figures_.declined = figures_.store.run.declined - declined_before;
    // Which of the two were declined is not told.
    const std::uint64_t new_declined = std::min(figures_.declined, figures_.imported);
    figures_.imported -= new_declined;
    figures_.replaced -= std::min(figures_.declined - new_declined, figures_.replaced);
  }

  TokenizedCache& cache_;
  const Manifest& manifest_;
  const ImportOptions& options_;
  warm::Monitor& monitor_;
  Entries entries_;
  const std::uint64_t now_ns_;
  ImportFigures figures_;
};

}  // namespace

ImportFigures import_entries(TokenizedCache& cache, const Manifest& manifest, const ImportOptions& options,
                             warm::Monitor& monitor) {
  return Import(cache, manifest, options, monitor).run();
}

}  // namespace tokcask::npz
