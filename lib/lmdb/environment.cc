#include "lmdb/environment.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <lmdb.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <memory>
#include <utility>

#include "lmdb/lock_file.h"
#include "lmdb/page_layout.h"
#include "lmdb/writing_here.h"
#include "os/clock.h"

namespace tokcask::lmdb {

namespace {

// Asked for, and taken where address space is short.
constexpr std::uint64_t kLeastMapBytes = std::uint64_t{1} << 36;
constexpr std::uint64_t kSmallestMapBytes = std::uint64_t{1} << 32;
constexpr std::array<const char*, kTableCount> kTableNames = {"records", "meta"};
constexpr mdb_mode_t kFileMode = 0600;
// Parts of at least this size are read in pieces that the processor can map as one.
constexpr std::uint64_t kLargePageBytes = 2 << 20;

// Of Linux 5.14, which headers of Debian 11 do not have yet.
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

// The one error map.
Error error_of(int code, const char* doing, const std::filesystem::path& path) {
  Errc errc = Errc::kIo;
  std::string advice;
  switch (code) {
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INVALID:
    case MDB_VERSION_MISMATCH:
    case MDB_INCOMPATIBLE:
    case MDB_NOTFOUND:
      errc = Errc::kDamaged;
      break;
    case MDB_PANIC:
      // LMDB could not write a meta page. What is committed is whole, in the file.
      advice =
          "; a commit failed on the disk, and LMDB does nothing more until all handles and views of the "
          "store are let go in this process; then open it again";
      break;
    case MDB_BAD_RSLOT:
      advice =
          "; the lock file was overwritten while it was open: close the store in all processes, then open it "
          "again";
      break;
    case MDB_READERS_FULL:
      errc = Errc::kBusy;
      advice = fmt::format("; {} readers have the store open", kMaxReaders);
      break;
    case MDB_MAP_RESIZED:
      advice =
          "; other processes have made the file larger than the part of it that this process has mapped: "
          "close all handles of it in this process and let go of all views, then open it again, with a "
          "max_bytes as large as theirs, and a higher limit on address space (ulimit -v) if there is one";
      break;
    case MDB_MAP_FULL:
      advice =
          "; the file cannot become larger than the part of it that this process has mapped, which is little "
          "where address space is limited (ulimit -v): give the process more, or the store a max_bytes that "
          "is less than half of that part";
      break;
    case EAGAIN:
      errc = Errc::kBusy;
      advice =
          "; another process that has the store open seems to have this process's id: two containers that "
          "share a store must share their process ids too (for example docker run --pid)";
      break;
    case EIO:
      // LMDB's word for a write that was cut short, too.
      advice =
          "; the disk fails, or it is full, or a quota or the limit on the size of files is reached: nothing "
          "that was committed is lost";
      break;
    case EFBIG:
      advice = "; see the limit on the size of files (ulimit -f): nothing that was committed is lost";
      break;
    case ENOSPC:
      advice = "; free some space: nothing that was committed is lost";
      break;
    default:
      break;
  }
  return Error(errc, fmt::format("{}: cannot {}: {}{}", path.string(), doing, mdb_strerror(code), advice));
}

}  // namespace

std::unique_ptr<Environment> Environment::open(const std::filesystem::path& directory, Mode mode,
                                               const std::filesystem::path& name) {
  std::unique_ptr<Environment> self(
      new Environment(directory, mode, name.empty() ? directory / "data.mdb" : name));
  self->open_tables(mode);
  return self;
}

std::unique_ptr<Environment> Environment::open_linked(const std::filesystem::path& directory, Mode mode,
                                                      const std::filesystem::path& name, const FileId& id,
                                                      std::chrono::milliseconds timeout,
                                                      std::uint64_t map_bytes) {
  const bool has_locks = directory != name.parent_path();
  auto lock_file = std::make_unique<LockFile>(has_locks ? directory : std::filesystem::path(), name, timeout);
  std::unique_ptr<Environment> self(new Environment(directory, mode, name, std::move(lock_file), map_bytes));
  // LMDB opens the path more than once, and the lock file before. It was the same file each time if it still
  // is: one that was replaced does not come back.
  struct stat status{};
  if (!self->lock_file_->is_in_place() || self->file_id() != id || stat(name.c_str(), &status) != 0 ||
      FileId(status.st_dev, status.st_ino) != id) {
    return nullptr;
  }
  if (has_locks) self->clean_mark_.emplace(directory);
  self->open_tables(mode);
  self->lock_file_->keep_process();
  return self;
}

Environment::Environment(const std::filesystem::path& directory, Mode mode, std::filesystem::path name,
                         std::unique_ptr<LockFile> lock_file, std::uint64_t map_bytes)
    : lock_file_(std::move(lock_file)), path_(std::move(name)), read_only_(mode == Mode::kReadOnly) {
  const unsigned flags =
      MDB_NOTLS | (read_only_ ? MDB_RDONLY : 0U) | (mode == Mode::kCreate ? MDB_NOLOCK | MDB_NOSYNC : 0U);
  for (map_bytes_ = map_bytes;; map_bytes_ /= 2) {
    check(mdb_env_create(&env_), "create an environment");
    int code = mdb_env_set_mapsize(env_, map_bytes_);
    if (code == MDB_SUCCESS) code = mdb_env_set_maxreaders(env_, kMaxReaders);
    if (code == MDB_SUCCESS) code = mdb_env_set_maxdbs(env_, kTableCount);
    if (code == MDB_SUCCESS) code = mdb_env_open(env_, directory.c_str(), flags, kFileMode);
    if (code == MDB_SUCCESS) break;
    // LMDB wants a failed environment closed before anything else.
    mdb_env_close(env_);
    env_ = nullptr;
    // Too little address space. Under valgrind the same is EINVAL.
    if ((code != ENOMEM && code != EINVAL) || map_bytes_ <= kSmallestMapBytes)
      throw error_of(code, "open", path_);
  }
  mdb_env_set_userctx(env_, this);
  mdb_env_set_assert(env_, &on_assertion);
  if (lock_file_) lock_file_->keep_open();
}

std::uint64_t Environment::map_bytes_for(std::uint64_t bytes) noexcept {
  constexpr std::uint64_t kRoom = 4;
  const std::uint64_t wanted = std::min(bytes, kMostMapBytes / kRoom) * kRoom;
  return std::bit_ceil(std::max(wanted, kLeastMapBytes));
}

void Environment::open_tables(Mode mode) {
  const bool create = mode == Mode::kCreate;
  MDB_txn* begun = nullptr;
  check(mdb_txn_begin(env_, nullptr, create ? 0 : MDB_RDONLY, &begun), "begin a transaction");
  std::unique_ptr<MDB_txn, decltype(&mdb_txn_abort)> txn(begun, &mdb_txn_abort);
  for (std::size_t i = 0; i < kTableCount; ++i) {
    check(mdb_dbi_open(txn.get(), kTableNames[i], create ? MDB_CREATE : 0U, &tables_[i]), "open its tables");
  }
  MDB_stat stat;
  check(mdb_env_stat(env_, &stat), "read the page size");
  page_bytes_ = stat.ms_psize;
  if (!create) find_map(txn.get());
  // Also a read-only one is committed, because abort would close the handles again.
  check(mdb_txn_commit(txn.release()), "open its tables");
}

// Finds the map. LMDB does not tell where it is; but a value of a read transaction lies in a
// page that says by its header where in the file it is, and the map is aligned to the system's pages.
void Environment::find_map(MDB_txn* txn) {
  constexpr MDB_dbi kMain = 1;  // has the tables' names
  MDB_cursor* opened = nullptr;
  check(mdb_cursor_open(txn, kMain, &opened), "read");
  const std::unique_ptr<MDB_cursor, decltype(&mdb_cursor_close)> cursor(opened, &mdb_cursor_close);
  MDB_val key;
  MDB_val value;
  check(mdb_cursor_get(opened, &key, &value, MDB_FIRST), "read");
  if (page_bytes_ > static_cast<std::size_t>(sysconf(_SC_PAGESIZE))) return;
  const auto* const at = static_cast<const std::byte*>(key.mv_data);
  const auto* const page = at - reinterpret_cast<std::uintptr_t>(at) % page_bytes_;
  map_ = page - layout::load<layout::PageHeader>(page).number * page_bytes_;
}

Environment::~Environment() {
  if (env_ != nullptr && is_stuck_) {
    // The locked mutex is in its thread's list of robust mutexes, which the C library writes to.
    static_cast<void>(lock_file_.release());
  } else if (env_ != nullptr) {
    mdb_env_close(env_);
  }
  delete failure_.load();
}

// Called by LMDB in the place of abort(). An exception is the only way out, because LMDB calls abort() when
// this returns. It passes LMDB's functions, which have nothing to clean up, by their unwind tables: compilers
// make these for C too where the system's ABI wants them, as on x86-64 and AArch64.
void Environment::on_assertion(MDB_env* env, const char* text) {
  static_cast<const Environment*>(mdb_env_get_userctx(env))->fail(text);
}

void Environment::fail(const char* text) const {
  const bool writes = writing_here == this;
  auto message = std::make_unique<std::string>(fmt::format(
      "{}: is damaged, as LMDB found while it used it ({}). {}, then open it again: its pages are looked "
      "through then",
      path_.string(), text,
      writes ? "End this process" : "Close all handles of it in this process and let go of all views"));
  const std::string* expected = nullptr;
  if (failure_.compare_exchange_strong(expected, message.get())) static_cast<void>(message.release());
  if (clean_mark_) clean_mark_->remove();
  if (writes && lock_file_) lock_file_->claim().note_stuck_writer();
  if (writes) is_stuck_ = true;
  throw failed();
}

Error Environment::failed() const { return {Errc::kDamaged, *failure_.load(std::memory_order_acquire)}; }

Alone Environment::alone() const { return Alone(lock_file_->claim()); }

Error Environment::not_alone(std::string_view doing) const { return lock_file_->claim().not_alone(doing); }

void Environment::require_writable() const {
  require_usable();
  if (!lock_file_) return;
  if (const auto why = lock_file_->claim().why_not_to_write()) throw Error(Errc::kBusy, *why);
}

void Environment::check(int code, const char* doing) const {
  if (code == MDB_SUCCESS) return;
  Error error = error_of(code, doing, path_);
  if (error.code() == Errc::kDamaged && clean_mark_) clean_mark_->remove();
  throw error;
}

std::uint64_t Environment::last_txnid() const noexcept {
  MDB_envinfo info;
  mdb_env_info(env_, &info);
  return info.me_last_txnid;
}

std::uint64_t Environment::page_count() const noexcept {
  MDB_envinfo info;
  mdb_env_info(env_, &info);
  return info.me_last_pgno + 1;
}

struct stat Environment::status() const {
  mdb_filehandle_t fd = -1;
  check(mdb_env_get_fd(env_, &fd), "find its descriptor");
  struct stat status{};
  check(fstat(fd, &status) == 0 ? MDB_SUCCESS : errno, "look at it");
  return status;
}

int Environment::descriptor() const noexcept {
  mdb_filehandle_t fd = -1;
  mdb_env_get_fd(env_, &fd);
  return fd;
}

bool Environment::is_clean() const noexcept {
  struct stat status{};
  return clean_mark_ && fstat(descriptor(), &status) == 0 && clean_mark_->covers(status);
}

void Environment::move_mark() const noexcept {
  const int fd = descriptor();
  struct stat status{};
  struct stat now{};
  if (fstat(fd, &status) == 0 &&
      (closing_.load(std::memory_order_relaxed) > 0 ? settle(status) : is_settled(status)) &&
      fstat(fd, &now) == 0 && looks_the_same(now, status)) {
    clean_mark_->set(now);
  }
}

std::uint64_t Environment::file_bytes() const { return static_cast<std::uint64_t>(status().st_size); }

std::int64_t Environment::modified_ns() const { return os::ns_of(status().st_mtim); }

Environment::FileId Environment::file_id() const {
  const struct stat status = this->status();
  return {status.st_dev, status.st_ino};
}

void Environment::sync() const {
  constexpr int kAlsoWithNoSync = 1;
  check(mdb_env_sync(env_, kAlsoWithNoSync), "sync");
}

void Environment::read_ahead(std::uint64_t offset, std::uint64_t bytes) const noexcept {
  // What posix_fadvise brings lies in the page cache page by page, whoever uses it later. What is touched in
  // a mapping for which large pages are asked lies there in large pieces, if the file system has them, and is
  // mapped by as few page faults: those of 380 MB took 50 ms, and take 2 (Linux 6.18, ext4). But it is read
  // in pieces of as much, so this is for large parts only. Not by the environment's own mapping: its pages
  // would count as this process's memory.
  const int fd = descriptor();
  if (bytes >= kLargePageBytes && offset % page_bytes() == 0) {
    void* const base = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd, static_cast<off_t>(offset));
    if (base != MAP_FAILED) {
      madvise(base, bytes, MADV_HUGEPAGE);
      // Unlike a touch, it fails where the file has ended.
      const bool done = madvise(base, bytes, MADV_POPULATE_READ) == 0;
      munmap(base, bytes);
      if (done) return;
    }
  }
  posix_fadvise(fd, static_cast<off_t>(offset), static_cast<off_t>(bytes), POSIX_FADV_WILLNEED);
}

bool Environment::allocate(std::uint64_t offset, std::uint64_t bytes) const noexcept {
  const int fd = descriptor();
  const bool clean = is_clean();
  int result = 0;
  do {
    result = fallocate(fd, FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset), static_cast<off_t>(bytes));
  } while (result != 0 && errno == EINTR);
  const int error = errno;
  if (clean) move_mark();
  return result == 0 || (error != ENOSPC && error != EDQUOT);
}

std::optional<std::uint64_t> Environment::oldest_reader() const {
  // LMDB tells its reader table only as text: one line per slot with pid, thread and txnid, or "-" for a slot
  // that holds no snapshot.
  std::optional<std::uint64_t> oldest;
  const auto line = [](const char* text, void* context) {
    std::string_view rest(text);
    while (!rest.empty() && (rest.back() == '\n' || rest.back() == ' ')) rest.remove_suffix(1);
    const std::string_view last = rest.substr(rest.rfind(' ') + 1);
    std::uint64_t txnid = 0;
    if (std::from_chars(last.data(), last.data() + last.size(), txnid).ec == std::errc()) {
      auto& found = *static_cast<std::optional<std::uint64_t>*>(context);
      found = std::min(found.value_or(txnid), txnid);
    }
    return 0;
  };
  mdb_reader_list(env_, line, &oldest);
  return oldest;
}

int Environment::clear_dead_readers() const noexcept {
  int dead = 0;
  mdb_reader_check(env_, &dead);
  return dead;
}

}  // namespace tokcask::lmdb
