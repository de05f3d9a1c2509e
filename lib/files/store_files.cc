#include "files/store_files.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <memory>
#include <new>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include <tokcask/error.h>

#include "lmdb/clean_mark.h"
#include "lmdb/environment.h"
#include "lmdb/lock_file.h"
#include "lmdb/walker.h"
#include "os/clock.h"
#include "os/mapped_file.h"

namespace tokcask::files {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kNewPrefix = ".new.";
constexpr std::string_view kSetAsidePrefix = "data.mdb.set-aside-";

Error io_error(const fs::path& path, std::string_view doing, int error) {
  return {Errc::kIo, fmt::format("{}: cannot {}: {}", path.string(), doing, std::strerror(error))};
}

// One look at a file that a writer may be changing. With `txnid`, that of the snapshot walked.
Inspection inspect_once(const fs::path& data, std::uint64_t& txnid) {
  const MappedFile file(data);
  switch (lmdb::probe(file.bytes())) {
    case lmdb::FileKind::kEmpty:
      return {Condition::kBad, "has zero bytes", {}};
    case lmdb::FileKind::kForeign:
      return {Condition::kBad, "is not a store, or its beginning is damaged", {}};
    case lmdb::FileKind::kOtherVersion:
      return {Condition::kBad, "was written by another version of LMDB", {}};
    case lmdb::FileKind::kLmdb:
      break;
  }
  lmdb::WalkReport report = lmdb::walk(file.bytes());
  txnid = report.txnid;
  if (report.ok) return {Condition::kGood, {}, {}};
  std::string why = fmt::format("is damaged: {}", report.findings.empty() ? "" : report.findings.front());
  return {Condition::kBad, std::move(why), std::move(report.findings)};
}

// An open directory, to be synced.
class Directory {
 public:
  explicit Directory(const fs::path& path)
      : path_(path), fd_(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
    if (fd_ < 0 && errno != EACCES) throw io_error(path_, "open", errno);
  }
  ~Directory() {
    if (fd_ >= 0) close(fd_);
  }
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;
  void sync() const {
    if (fd_ < 0 || fsync(fd_) == 0 || errno == EINVAL || errno == EROFS) return;
    throw io_error(path_, "sync the directory", errno);
  }

 private:
  const fs::path path_;
  int fd_;
};

// What lies in a directory, as far as it can be read. Not by std::filesystem: its iterators and remove_all()
// of libstdc++ 12 end the process when memory runs out.
std::vector<fs::path> children_of(const fs::path& directory) {
  const auto close = [](DIR* open) { closedir(open); };
  const std::unique_ptr<DIR, decltype(close)> stream(opendir(directory.c_str()), close);
  std::vector<fs::path> children;
  if (!stream) return children;
  while (const dirent* const entry = readdir(stream.get())) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") children.push_back(directory / name);
  }
  return children;
}

// A directory that holds no other, and what is in it. Of a link the link alone.
void remove_directory(const fs::path& directory) {
  const int fd = open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) {
    unlink(directory.c_str());
    return;
  }
  const auto close = [](DIR* open) { closedir(open); };
  const std::unique_ptr<DIR, decltype(close)> stream(fdopendir(fd), close);
  if (!stream) {
    ::close(fd);
    return;
  }
  while (const dirent* const entry = readdir(stream.get())) unlinkat(fd, entry->d_name, 0);
  rmdir(directory.c_str());
}

// What creations that were killed left behind.
void remove_leftovers(const fs::path& root) {
  for (const fs::path& path : children_of(root)) {
    const std::string name = path.filename().string();
    if (!name.starts_with(kNewPrefix)) continue;
    pid_t pid = 0;
    std::from_chars(name.data() + kNewPrefix.size(), name.data() + name.size(), pid);
    if (pid > 0 && (pid == getpid() || (kill(pid, 0) != 0 && errno == ESRCH))) remove_directory(path);
  }
}

constexpr const char* kDataLink = "../../data.mdb";

fs::path lock_directory(const fs::path& root, const FileId& id) {
  return root / "locks" / std::to_string(id.second);
}

// Real blocks for LMDB's lock file, which it maps: a hole on a full disk would be a signal. Only for one that
// is not there yet, so that nobody has it open. LMDB would follow a link and write to what it leads to.
void make_lock_file(const fs::path& file) {
  struct stat status{};
  if (lstat(file.c_str(), &status) == 0 && !S_ISREG(status.st_mode)) unlink(file.c_str());
  const int fd = open(file.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0 && errno == EEXIST) return;
  if (fd < 0) throw io_error(file, "make", errno);
  const int error = posix_fallocate(fd, 0, lmdb::kLockFileBytes);
  close(fd);
  if (error == 0) return;
  unlink(file.c_str());
  throw io_error(file, "make", error);
}

bool has_data_link(const fs::path& directory) {
  std::error_code ignored;
  return fs::read_symlink(directory / "data.mdb", ignored) == kDataLink;
}

// Makes what is missing of it. Returns false on a file system that is read-only.
bool make_lock_directory(const fs::path& root, const FileId& id) {
  const fs::path directory = lock_directory(root, id);
  for (const fs::path& path : {directory.parent_path(), directory}) {
    if (mkdir(path.c_str(), 0700) == 0) continue;
    const int error = errno;
    struct stat status{};
    if (lstat(path.c_str(), &status) == 0) {
      // Behind a link lie somebody else's files, and what is found there would be removed.
      if (S_ISDIR(status.st_mode)) continue;
      throw Error(Errc::kIo,
                  fmt::format("{}: not a directory; remove it, and it is made anew", path.string()));
    }
    if (error == EROFS) return false;
    throw io_error(path, "make the directory", error);
  }
  if (!has_data_link(directory)) {
    // What else lies there was made by LMDB when the link was removed under its hands.
    const fs::path link = directory / "data.mdb";
    unlink(link.c_str());
    if (symlink(kDataLink, link.c_str()) != 0 && !has_data_link(directory)) {
      if (errno == EROFS) return false;
      throw io_error(link, "make the link", errno);
    }
  }
  make_lock_file(directory / "lock.mdb");
  return true;
}

lmdb::CleanMark clean_mark(const fs::path& root, const struct stat& data) {
  return lmdb::CleanMark(lock_directory(root, {data.st_dev, data.st_ino}));
}

void remove_other_lock_directories(const fs::path& root, const FileId& current) {
  unlink((root / "lock.mdb").c_str());  // of a program that had no lock directories yet
  const fs::path keep = lock_directory(root, current).filename();
  for (const fs::path& path : children_of(root / "locks")) {
    if (path.filename() != keep) remove_directory(path);
  }
}

}  // namespace

Inspection inspect(const fs::path& root) {
  const fs::path data = root / "data.mdb";
  struct stat status{};
  if (lstat(data.c_str(), &status) != 0) {
    if (errno == ENOENT) return {};
    throw io_error(data, "look at", errno);
  }
  // While a writer commits, the file may grow beyond what was mapped, a meta page may be half written, and
  // pages of the snapshot walked may be reused, though not before two more commits. So damage is what is
  // found again and again while the newest transaction stays the same.
  constexpr int kMostLooks = 4;
  constexpr std::chrono::milliseconds kPause{2};
  // Anything that changes it from here on is told by another ctime.
  const bool settled = lmdb::is_settled(status);
  std::uint64_t txnid = 0;
  Inspection inspection = inspect_once(data, txnid);
  for (int looks = 1; inspection.condition == Condition::kBad && looks < kMostLooks; ++looks) {
    std::this_thread::sleep_for(kPause);
    std::uint64_t next = 0;
    inspection = inspect_once(data, next);
    if (std::exchange(txnid, next) != next) looks = 0;
  }
  if (inspection.condition == Condition::kBad) clean_mark(root, status).remove();
  if (struct stat now{}; settled && inspection.condition == Condition::kGood &&
                         lstat(data.c_str(), &now) == 0 && lmdb::looks_the_same(now, status)) {
    clean_mark(root, now).set(now);
  }
  return inspection;
}

bool is_known_good(const fs::path& root) {
  struct stat status{};
  return lstat((root / "data.mdb").c_str(), &status) == 0 && S_ISREG(status.st_mode) &&
         clean_mark(root, status).covers(status);
}

void make_directory(const fs::path& root) {
  std::error_code error;
  const fs::file_status status = fs::status(root, error);
  if (fs::exists(status) && !fs::is_directory(status)) {
    throw Error(
        Errc::kIo,
        fmt::format("{}: a file; a store is a directory, so name one that is not there yet", root.string()));
  }
  if (fs::exists(status)) return;
  if (root.has_parent_path()) {
    std::vector<fs::path> grown;  // get a new name in them
    for (fs::path path = root.parent_path(); path.has_relative_path() && !fs::exists(path, error);)
      grown.push_back(path = path.parent_path());
    fs::create_directories(root.parent_path(), error);
    if (error) throw io_error(root.parent_path(), "make the directory", error.value());
    for (const fs::path& path : grown) sync_directory(path);
  }
  if (mkdir(root.c_str(), 0700) != 0 && errno != EEXIST) throw io_error(root, "make the directory", errno);
}

void refuse_link(const fs::path& root) {
  const fs::path data = root / "data.mdb";
  struct stat status{};
  if (lstat(data.c_str(), &status) != 0 || !S_ISLNK(status.st_mode)) return;
  throw Error(
      Errc::kIo,
      fmt::format("{}: a link; a store's file lies in its directory itself, so name the directory that "
                  "the link leads into",
                  data.string()));
}

void sync_directory(const fs::path& directory) { Directory(directory).sync(); }

std::string_view network_file_system(long type) noexcept {
  // From the kernel's linux/magic.h and statfs(2). FUSE is not here: it may be a local disk as well.
  static constexpr std::array<std::pair<unsigned long, std::string_view>, 14> kNetwork = {{
      {0x6969, "NFS"},
      {0x517B, "SMB"},
      {0xFF534D42, "CIFS"},
      {0xFE534D42, "SMB2"},
      {0x564C, "NCP"},
      {0x73757245, "Coda"},
      {0x5346414F, "AFS"},
      {0x6B414653, "kAFS"},
      {0x01021997, "9P"},
      {0x00C36400, "Ceph"},
      {0x0BD00BD0, "Lustre"},
      {0x47504653, "GPFS"},
      {0x19830326, "BeeGFS"},
      {0x7461636F, "OCFS2"},
  }};
  const auto* const found = std::find_if(kNetwork.begin(), kNetwork.end(), [&](const auto& entry) {
    return entry.first == (static_cast<unsigned long>(type) & 0xffffffff);
  });
  return found == kNetwork.end() ? std::string_view() : found->second;
}

void refuse_network_file_system(const fs::path& root) {
  struct statfs status{};
  if (statfs(root.c_str(), &status) != 0) throw io_error(root, "look at the file system", errno);
  if (const std::string_view name = network_file_system(static_cast<long>(status.f_type)); !name.empty()) {
    throw Error(
        Errc::kUnsupported,
        fmt::format("{}: on a network file system ({}), which does not share memory maps and locks between "
                    "hosts; use a local disk, or set allow_network_filesystem if one host alone uses it",
                    root.string(), name));
  }
}

std::optional<FileId> id_of(const fs::path& file) {
  struct stat status{};
  if (stat(file.c_str(), &status) == 0) return FileId{status.st_dev, status.st_ino};
  if (errno == ENOENT || errno == ENOTDIR) return std::nullopt;
  throw io_error(file, "look at", errno);
}

std::unique_ptr<lmdb::Environment> open_environment(const fs::path& root, const FileId& id,
                                                    lmdb::Environment::Mode mode,
                                                    std::chrono::milliseconds timeout, std::uint64_t budget) {
  const fs::path data = root / "data.mdb";
  try {
    const fs::path directory = make_lock_directory(root, id) ? lock_directory(root, id) : root;
    struct stat status{};
    const auto bytes =
        stat(data.c_str(), &status) == 0 ? static_cast<std::uint64_t>(status.st_size) : std::uint64_t{0};
    return lmdb::Environment::open_linked(directory, mode, data, id, timeout,
                                          lmdb::Environment::map_bytes_for(std::max(budget, bytes)));
  } catch (const Error&) {
    if (id_of(data) == id) throw;
    return nullptr;  // its lock directory was removed meanwhile
  }
}

rows::StoreRow new_store_row(std::size_t page_bytes) {
  rows::StoreRow row;
  row.page_bytes = static_cast<std::uint32_t>(page_bytes);
  std::random_device random;
  for (auto& byte : row.uuid) byte = static_cast<std::uint8_t>(random());
  row.created_ns = os::now_ns();
  return row;
}

void make_empty(const fs::path& directory, const fs::path& name) {
  const auto environment = lmdb::Environment::open(directory, lmdb::Environment::Mode::kCreate, name);
  lmdb::WriteTransaction transaction(*environment);
  const rows::StoreRow row = new_store_row(environment->page_bytes());
  transaction.put(lmdb::Table::kMeta, rows::MetaKey(rows::Tag::kStore, 0).bytes(), rows::bytes_of(row));
  transaction.commit();
  environment->sync();
}

void create(const fs::path& root) {
  // A data file that is there says that the names above it are durable.
  sync_directory((root / "").parent_path().parent_path());  // also of a path that ends with a slash
  NewFile fresh(root);
  make_empty(fresh.directory(), root / "data.mdb");
  fresh.install();
}

// ---- SetAside ----

namespace {

std::vector<fs::path> set_aside_files(const fs::path& root) {
  std::vector<fs::path> found = children_of(root);
  std::erase_if(found,
                [](const fs::path& path) { return !path.filename().string().starts_with(kSetAsidePrefix); });
  return found;
}

}  // namespace

SetAside::SetAside(const fs::path& root) : root_(root) {
  const fs::path data = root / "data.mdb";
  const auto id = id_of(data);
  for (const fs::path& file : set_aside_files(root)) {
    if (id && id_of(file) != id) continue;
    path_ = file;  // from one that was killed here
    linked_ = true;
    return;
  }
  for (unsigned n = 1;; ++n) {
    path_ = root / fmt::format("{}{}", kSetAsidePrefix, n);
    struct stat status{};
    if (lstat(path_.c_str(), &status) != 0 && errno == ENOENT) break;
  }
  linked_ = link(data.c_str(), path_.c_str()) == 0;
  if (!linked_ && rename(data.c_str(), path_.c_str()) != 0) throw io_error(data, "rename", errno);
}

SetAside::~SetAside() {
  if (kept_) return;
  if (linked_) {
    unlink(path_.c_str());
  } else {
    static_cast<void>(rename(path_.c_str(), (root_ / "data.mdb").c_str()));
  }
}

void SetAside::keep() {
  kept_ = true;
  unlink((root_ / "access.shm").c_str());
  for (const fs::path& file : set_aside_files(root_)) {
    if (file != path_) unlink(file.c_str());
  }
}

// ---- NewFile ----

NewFile::NewFile(const fs::path& root)
    : root_(root), directory_(root / fmt::format("{}{}", kNewPrefix, getpid())) {
  remove_leftovers(root);
  if (mkdir(directory_.c_str(), 0700) != 0) throw io_error(directory_, "make the directory", errno);
}

NewFile::~NewFile() {
  try {
    remove_directory(directory_);
  } catch (const std::bad_alloc&) {
    // The next new file removes it.
  }
}

FileId NewFile::install() {
  const fs::path fresh = directory_ / "data.mdb";
  const fs::path data = root_ / "data.mdb";
  const auto id = id_of(fresh);
  if (!id) throw io_error(fresh, "look at", ENOENT);
  // Before the rename: on a full disk nobody shall be left with a file that cannot be opened.
  make_lock_directory(root_, *id);
  const Directory directory(root_);
  if (rename(fresh.c_str(), data.c_str()) != 0) throw io_error(data, "replace", errno);
  directory.sync();
  // LMDB has just written it for us. The rename gave it another ctime.
  if (struct stat status{}; lstat(data.c_str(), &status) == 0 &&
                            FileId(status.st_dev, status.st_ino) == *id && lmdb::settle(status))
    clean_mark(root_, status).set(status);
  try {
    remove_other_lock_directories(root_, *id);
  } catch (const std::bad_alloc&) {
    // The next new file does.
  }
  return *id;
}

}  // namespace tokcask::files
