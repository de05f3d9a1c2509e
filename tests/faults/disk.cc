#include "disk.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <random>
#include <stdexcept>
#include <utility>

namespace tokcask::test {

namespace fs = std::filesystem;

namespace {

constexpr std::size_t kSectorBytes = 512;
constexpr std::string_view kLocks = "locks";

std::string path_of(int fd) { return fs::read_symlink("/proc/self/fd/" + std::to_string(fd)).string(); }

std::uint64_t inode_of(int fd) {
  struct stat status{};
  return fstat(fd, &status) == 0 ? status.st_ino : 0;
}

bool is_directory(int fd) {
  struct stat status{};
  return fstat(fd, &status) == 0 && S_ISDIR(status.st_mode);
}

bool is_number(const std::string& text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

}  // namespace

// What is on the disk.
struct Disk::Tree {
  struct Name {
    Kind kind;
    FileNumber file = 0;
    std::string target;
  };
  std::map<FileNumber, std::vector<std::byte>> files;
  std::map<std::string, Name> names;
};

// ---- Events ----

void Disk::add(Event event) {
  const std::lock_guard lock(mutex_);
  events_.push_back(std::move(event));
}

Disk::FileNumber Disk::number_of(int fd) {
  const std::lock_guard lock(mutex_);
  const auto [at, is_new] = numbers_.try_emplace(inode_of(fd), last_ + 1);
  if (is_new) ++last_;
  return at->second;
}

void Disk::made_file(const std::string& path, int fd) {
  FileNumber number = 0;
  {
    const std::lock_guard lock(mutex_);
    number = ++last_;
    numbers_[inode_of(fd)] = number;  // also of an inode that another file had
    names_[path] = number;
  }
  Event event{.kind = Kind::kName};
  event.file = number;
  event.path = path;
  add(std::move(event));
}

void Disk::wrote(int fd, std::uint64_t offset, std::span<const std::byte> bytes) {
  Event event{.kind = Kind::kWrite};
  event.file = number_of(fd);
  event.at = offset;
  event.bytes.assign(bytes.begin(), bytes.end());
  const bool syncs_itself = event.syncs_itself = (fcntl(fd, F_GETFL) & O_DSYNC) != 0;
  add(std::move(event));
  // The moment between the two is in the middle of it.
  if (syncs_itself) add({.kind = Kind::kSync});
}

void Disk::resized(int fd, std::uint64_t size, bool may_shrink) {
  Event event{.kind = may_shrink ? Kind::kResize : Kind::kGrow};
  event.file = number_of(fd);
  event.at = size;
  add(std::move(event));
}

void Disk::syncing(int fd) {
  const std::lock_guard lock(mutex_);
  syncing_[fd] = events_.size();
}

void Disk::synced(int fd) {
  Event event{.kind = Kind::kSync};
  event.of_directory = is_directory(fd);
  if (event.of_directory) {
    event.path = path_of(fd);
  } else {
    event.file = number_of(fd);
  }
  {
    const std::lock_guard lock(mutex_);
    event.began = syncing_[fd];
  }
  add(std::move(event));
}

void Disk::linked(const std::string& from, const std::string& to) {
  Event event{.kind = Kind::kName};
  event.file = names_[to] = names_[from];
  event.path = to;
  add(std::move(event));
}

void Disk::renamed(const std::string& from, const std::string& to) {
  Event event{.kind = Kind::kRename};
  event.file = names_[to] = names_[from];
  names_.erase(from);
  event.path = to;
  event.other = from;
  add(std::move(event));
}

void Disk::removed(const std::string& path) {
  Event event{.kind = Kind::kRemove};
  event.path = path;
  add(std::move(event));
}

void Disk::made_symlink(const std::string& target, const std::string& path) {
  Event event{.kind = Kind::kSymlink};
  event.path = path;
  event.other = target;
  add(std::move(event));
}

void Disk::made_directory(const std::string& path) {
  Event event{.kind = Kind::kDirectory};
  event.path = path;
  const fs::path whole = path;
  if (const std::string name = whole.filename().string();
      whole.parent_path().filename() == kLocks && is_number(name)) {
    event.file = numbers_[std::stoull(name)];
  }
  add(std::move(event));
}

// ---- Moments ----

std::size_t Disk::now() const {
  const std::lock_guard lock(mutex_);
  return events_.size();
}

std::vector<std::size_t> Disk::moments() const {
  std::vector<std::size_t> moments;
  for (std::size_t i = 0; i < events_.size(); ++i) {
    const Event& event = events_[i];
    if (event.kind == Kind::kSync) moments.push_back(i);
    if (event.kind == Kind::kSync || event.syncs_itself) moments.push_back(i + 1);
  }
  moments.push_back(events_.size());
  moments.erase(std::unique(moments.begin(), moments.end()), moments.end());
  return moments;
}

bool Disk::is_durable(std::size_t change, std::size_t moment) const {
  const Event& changed = events_[change];
  if (changed.syncs_itself && moment > change + 1) return true;  // else it is in the middle of it
  const bool of_name =
      changed.kind != Kind::kWrite && changed.kind != Kind::kResize && changed.kind != Kind::kGrow;
  const std::string directory = of_name ? fs::path(changed.path).parent_path().string() : std::string();
  for (std::size_t i = change + 1; i < moment; ++i) {
    const Event& event = events_[i];
    if (event.kind != Kind::kSync || event.began <= change || event.of_directory != of_name) continue;
    if (of_name ? event.path == directory : event.file == changed.file) return true;
  }
  return false;
}

std::vector<std::size_t> Disk::undecided(std::size_t moment) const {
  std::vector<std::size_t> changes;
  for (std::size_t i = 0; i < moment; ++i) {
    if (events_[i].kind != Kind::kSync && !is_durable(i, moment)) changes.push_back(i);
  }
  return changes;
}

// ---- What is left ----

void Disk::apply(const Event& event, Tree& tree, Fate fate, std::uint64_t seed) {
  std::vector<std::byte>& content = tree.files[event.file];
  switch (event.kind) {
    case Kind::kWrite: {
      std::mt19937_64 random(seed);
      for (std::size_t from = 0; from < event.bytes.size();) {
        const std::size_t in_sector = (event.at + from) % kSectorBytes;
        const std::size_t size = std::min(kSectorBytes - in_sector, event.bytes.size() - from);
        if (fate == Fate::kWhole || (random() & 1) != 0) {
          if (content.size() < event.at + from + size) content.resize(event.at + from + size);
          std::memcpy(content.data() + event.at + from, event.bytes.data() + from, size);
        }
        from += size;
      }
      return;
    }
    case Kind::kResize:
      content.resize(event.at);
      return;
    case Kind::kGrow:
      content.resize(std::max<std::size_t>(content.size(), event.at));
      return;
    case Kind::kRename:
      tree.names.erase(event.other);
      [[fallthrough]];
    case Kind::kName:
      tree.names[event.path] = {Kind::kName, event.file, {}};
      return;
    case Kind::kRemove:
      tree.names.erase(event.path);
      return;
    case Kind::kDirectory:
    case Kind::kSymlink:
      tree.names[event.path] = {event.kind, event.file, event.other};
      return;
    case Kind::kSync:
      return;
  }
}

void Disk::leave(std::size_t moment, const std::function<Fate(std::size_t)>& fate_of, std::uint64_t seed,
                 const fs::path& to) const {
  Tree tree;
  for (std::size_t i = 0; i < moment; ++i) {
    if (events_[i].kind == Kind::kSync) continue;
    const Fate fate = is_durable(i, moment) ? Fate::kWhole : fate_of(i);
    if (fate != Fate::kLost) apply(events_[i], tree, fate, seed + i);
  }
  write_out(tree, to);
}

// In the order of the names, so directories before what is in them. A lock directory is named after the inode
// that its data file has here.
void Disk::write_out(const Tree& tree, const fs::path& to) const {
  std::map<std::string, fs::path> places;  // of directories
  places[directory_.string()] = to;
  std::map<FileNumber, fs::path> first;  // the first name of each file
  const auto place_of = [&](const std::string& path) {
    const fs::path whole = path;
    const auto parent = places.find(whole.parent_path().string());
    return parent == places.end() ? fs::path() : parent->second / whole.filename();
  };
  // Files of the root first: lock directories are named after them.
  for (const bool deep : {false, true}) {
    for (const auto& [path, name] : tree.names) {
      if ((path.find(kLocks) != std::string::npos) != deep) continue;
      fs::path place = place_of(path);
      if (place.empty()) continue;  // its directory is lost
      if (name.kind == Kind::kDirectory) {
        if (const auto file = name.file == 0 ? first.end() : first.find(name.file); file != first.end()) {
          struct stat status{};
          if (stat(file->second.c_str(), &status) == 0)
            place = place.parent_path() / std::to_string(status.st_ino);
        }
        fs::create_directory(place);
        places[path] = place;
      } else if (name.kind == Kind::kSymlink) {
        fs::create_symlink(name.target, place);
      } else if (const auto file = first.find(name.file); file != first.end()) {
        fs::create_hard_link(file->second, place);
      } else {
        const auto content = tree.files.find(name.file);
        std::ofstream out(place, std::ios::binary);
        if (content != tree.files.end()) {
          out.write(reinterpret_cast<const char*>(content->second.data()),
                    static_cast<std::streamsize>(content->second.size()));
        }
        if (!out) throw std::runtime_error("no room for an image");
        first[name.file] = place;
      }
    }
  }
}

}  // namespace tokcask::test
