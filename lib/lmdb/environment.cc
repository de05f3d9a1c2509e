#include "lmdb/environment.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <lmdb.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>

#include "lmdb/page_layout.h"
#include "os/clock.h"

namespace tokcask::lmdb {

namespace {

constexpr std::uint64_t kMapBytes = std::uint64_t{1} << 40;
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
    case EAGAIN:
      errc = Errc::kBusy;
      advice =
          "; another process that has the store open seems to have this process's id: two containers that "
          "share "
          "a store must share their process ids too (for example docker run --pid)";
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

MDB_val value_of(Bytes bytes) {
  // LMDB takes what it only reads as a pointer to non-const.
  return {bytes.size(), const_cast<std::byte*>(bytes.data())};
}
Bytes bytes_of(const MDB_val& value) { return {static_cast<const std::byte*>(value.mv_data), value.mv_size}; }

std::optional<Bytes> get_value(const Environment& environment, MDB_txn* txn, unsigned dbi, Bytes key) {
  MDB_val k = value_of(key);
  MDB_val v;
  const int code = mdb_get(txn, dbi, &k, &v);
  environment.require_read();
  if (code == MDB_NOTFOUND) return std::nullopt;
  environment.check(code, "read");
  return bytes_of(v);
}

// How a leaf page without nodes begins. LMDB looks at the first node of a page without counting, so there are
// zeros where its offset would be: then it is an empty key in the header.
Bytes empty_leaf(std::size_t page_bytes) {
  struct Leaf {
    layout::PageHeader header;
    std::uint64_t no_nodes;
  };
  static const Leaf leaf{
      {0, 0, layout::kLeafPage, sizeof(layout::PageHeader), static_cast<std::uint16_t>(page_bytes)}, 0};
  return std::as_bytes(std::span(&leaf, 1));
}

TableStat stat_of(const Environment& environment, MDB_txn* txn, unsigned dbi) {
  MDB_stat stat;
  const int code = mdb_stat(txn, dbi, &stat);
  environment.require_read();
  environment.check(code, "read a table's figures");
  return {stat.ms_depth, stat.ms_branch_pages, stat.ms_leaf_pages, stat.ms_overflow_pages, stat.ms_entries};
}

std::size_t index(Table table) { return static_cast<std::size_t>(table); }

}  // namespace

// ---- Environment ----

std::unique_ptr<Environment> Environment::open(const std::filesystem::path& directory, Mode mode,
                                               const std::filesystem::path& name) {
  std::unique_ptr<Environment> self(
      new Environment(directory, mode, name.empty() ? directory / "data.mdb" : name));
  self->open_tables(mode);
  return self;
}

std::unique_ptr<Environment> Environment::open_linked(const std::filesystem::path& directory, Mode mode,
                                                      const std::filesystem::path& name, const FileId& id,
                                                      std::chrono::milliseconds timeout) {
  // In the store's own directory LMDB is without one, because nothing can be made there.
  auto lock_file =
      directory == name.parent_path() ? nullptr : std::make_unique<LockFile>(directory, name, timeout);
  std::unique_ptr<Environment> self(new Environment(directory, mode, name, std::move(lock_file)));
  // LMDB opens the path more than once, and the lock file before. It was the same file each time if it still
  // is: one that was replaced does not come back.
  struct stat status{};
  if ((self->lock_file_ && !self->lock_file_->guard()) || self->file_id() != id ||
      stat(name.c_str(), &status) != 0 || FileId(status.st_dev, status.st_ino) != id) {
    return nullptr;
  }
  if (self->lock_file_) self->clean_mark_.emplace(directory);
  self->open_tables(mode);
  return self;
}

Environment::Environment(const std::filesystem::path& directory, Mode mode, std::filesystem::path name,
                         std::unique_ptr<LockFile> lock_file)
    : lock_file_(std::move(lock_file)), path_(std::move(name)), read_only_(mode == Mode::kReadOnly) {
  const unsigned flags =
      MDB_NOTLS | (read_only_ ? MDB_RDONLY : 0U) | (mode == Mode::kCreate ? MDB_NOLOCK | MDB_NOSYNC : 0U);
  for (std::uint64_t map_bytes = kMapBytes;; map_bytes /= 2) {
    check(mdb_env_create(&env_), "create an environment");
    int code = mdb_env_set_mapsize(env_, map_bytes);
    if (code == MDB_SUCCESS) code = mdb_env_set_maxreaders(env_, kMaxReaders);
    if (code == MDB_SUCCESS) code = mdb_env_set_maxdbs(env_, kTableCount);
    if (code == MDB_SUCCESS) code = mdb_env_open(env_, directory.c_str(), flags, kFileMode);
    if (code == MDB_SUCCESS) break;
    // LMDB wants a failed environment closed before anything else.
    mdb_env_close(env_);
    env_ = nullptr;
    // Too little address space. Under valgrind the same is EINVAL.
    if ((code != ENOMEM && code != EINVAL) || map_bytes <= kSmallestMapBytes)
      throw error_of(code, "open", path_);
  }
  if (lock_file_) lock_file_->opened();
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

// Finds the map, and guards it. LMDB does not tell where it is; but a value of a read transaction lies in a
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
  MDB_envinfo info;
  mdb_env_info(env_, &info);
  guard_ = os::FaultGuard(map_, info.me_mapsize, PROT_READ, empty_leaf(page_bytes_), std::byte{0xff});
}

Environment::~Environment() {
  guard_ = os::FaultGuard();
  if (env_ == nullptr) return;
  if (lock_file_ && lock_file_->is_cut()) {
    // A mutex that a thread held when it was cut off is still in that thread's list of robust mutexes, which
    // the C library writes to: its memory has to stay. Those that stay are a list.
    static std::atomic<MDB_env*> kept{nullptr};
    lock_file_->keep();
    mdb_env_set_userctx(env_, kept.exchange(env_));
    return;
  }
  if (lock_file_) lock_file_->closing();
  mdb_env_close(env_);
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

std::uint64_t Environment::map_bytes() const noexcept {
  MDB_envinfo info;
  mdb_env_info(env_, &info);
  return info.me_mapsize;
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

void Environment::require_whole() const {
  if (lock_file_ && lock_file_->hit()) throw lock_file_error();
  if (guard_.hit() || looked_ns_.load(std::memory_order_relaxed) != os::coarse_now_ns() ||
      looked_txnid_.load(std::memory_order_relaxed) != last_txnid()) {
    require_uncut();
  }
}

void Environment::require_uncut() const {
  const std::int64_t tick = os::coarse_now_ns();
  const bool hit = guard_.hit();
  if (lock_file_ && lock_file_->is_cut()) throw lock_file_error();
  // Before the length is read: another thread may see a longer file meanwhile.
  const std::uint64_t longest = longest_.load(std::memory_order_acquire);
  const std::uint64_t bytes = file_bytes();
  if (bytes < longest) cut_.store(true, std::memory_order_relaxed);
  if (hit || cut_.load(std::memory_order_relaxed)) {
    throw Error(
        Errc::kDamaged,
        fmt::format("{}: was cut off while it was open, or its disk fails: it had {} bytes; close it and "
                    "open it again for writing: that saves what is left. Views of it that are still held "
                    "may have ids of -1 now",
                    path_.string(), longest));
  }
  for (std::uint64_t known = longest; bytes > known;) {
    if (longest_.compare_exchange_weak(known, bytes, std::memory_order_release)) break;
  }
  looked_txnid_.store(last_txnid(), std::memory_order_relaxed);
  looked_ns_.store(tick, std::memory_order_relaxed);
}

void Environment::require_locks(std::uint64_t begun, std::uint64_t least) const {
  require_read();
  if (!lock_file_ || begun >= least) return;
  lock_file_->note_wrong();
  throw lock_file_error();
}

Error Environment::lock_file_error() const {
  return {
      Errc::kIo,
      fmt::format(
          "{}: its lock file was cut short or overwritten while it was open, so processes do not see each "
          "other any more; nothing that was committed is lost: close it in all "
          "processes, then open it again",
          path_.string())};
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

// ---- ReadTransaction ----

ReadTransaction::ReadTransaction(const Environment& environment) : environment_(&environment) {
  environment.require_whole();
  const std::uint64_t least = least_id();
  int code = mdb_txn_begin(environment.env_, nullptr, MDB_RDONLY, &txn_);
  if (code == MDB_READERS_FULL && environment.clear_dead_readers() > 0) {
    code = mdb_txn_begin(environment.env_, nullptr, MDB_RDONLY, &txn_);
  }
  environment.check(code, "begin a snapshot");
  try {
    environment.require_locks(id(), least);
  } catch (...) {
    mdb_txn_abort(txn_);
    throw;
  }
}

ReadTransaction::~ReadTransaction() {
  if (txn_ != nullptr) mdb_txn_abort(txn_);
}

// A commit is in the data file a moment before it is in the lock file, where a snapshot begins.
std::uint64_t ReadTransaction::least_id() const noexcept {
  const std::uint64_t last = environment_->last_txnid();
  return last - std::min<std::uint64_t>(last, 1);
}

void ReadTransaction::reset() noexcept { mdb_txn_reset(txn_); }

void ReadTransaction::renew() {
  environment_->require_whole();
  const std::uint64_t least = least_id();
  environment_->check(mdb_txn_renew(txn_), "renew a snapshot");
  try {
    environment_->require_locks(id(), least);
  } catch (...) {
    mdb_txn_reset(txn_);
    throw;
  }
}

std::uint64_t ReadTransaction::id() const noexcept { return mdb_txn_id(txn_); }

std::optional<Bytes> ReadTransaction::get(Table table, Bytes key) const {
  return get_value(*environment_, txn_, environment_->tables_[index(table)], key);
}

TableStat ReadTransaction::stat(Table table) const {
  return stat_of(*environment_, txn_, environment_->tables_[index(table)]);
}

std::vector<FreedPages> ReadTransaction::free_list() const {
  // Database 0 is the free list: txnid -> count, then that many page numbers. LMDB opens it to read-only
  // transactions (its mdb_stat does the same).
  std::vector<FreedPages> list;
  MDB_cursor* opened = nullptr;
  environment_->check(mdb_cursor_open(txn_, 0, &opened), "read the free list");
  const std::unique_ptr<MDB_cursor, decltype(&mdb_cursor_close)> cursor(opened, &mdb_cursor_close);
  MDB_val key;
  MDB_val value;
  while (mdb_cursor_get(cursor.get(), &key, &value, MDB_NEXT) == MDB_SUCCESS) {
    FreedPages& record = list.emplace_back();
    if (key.mv_size == sizeof record.txnid) std::memcpy(&record.txnid, key.mv_data, sizeof record.txnid);
    if (value.mv_size < sizeof record.count) continue;
    std::memcpy(&record.count, value.mv_data, sizeof record.count);
    const auto* const numbers = static_cast<const std::uint64_t*>(value.mv_data) + 1;
    record.pages = {numbers, std::min<std::size_t>(record.count, value.mv_size / sizeof record.count - 1)};
  }
  environment_->require_read();
  return list;
}

// ---- WriteTransaction ----

WriteTransaction::WriteTransaction(const Environment& environment) : environment_(&environment) {
  environment.require_whole();
  // Readers that are not in the table any more would have their pages overwritten.
  if (environment.lock_file_ && environment.lock_file_->is_cut()) throw environment.lock_file_error();
  environment.check(mdb_txn_begin(environment.env_, nullptr, 0, &txn_), "begin a write");
  try {
    environment.require_locks(mdb_txn_id(txn_), environment.last_txnid() + 1);
    require_known_layout();
  } catch (...) {
    mdb_txn_abort(txn_);
    throw;
  }
}

std::uint64_t WriteTransaction::id() const noexcept { return mdb_txn_id(txn_); }

namespace {

// How struct MDB_txn begins in LMDB 0.9.18 to 0.9.33.
struct TransactionHead {
  MDB_txn* parent;
  MDB_txn* child;
  std::size_t next_page;
  std::size_t txnid;
  MDB_env* environment;
};

TransactionHead head_of(const MDB_txn* txn) {
  TransactionHead head;
  std::memcpy(&head, static_cast<const void*>(txn), sizeof head);
  return head;
}

}  // namespace

std::uint64_t WriteTransaction::next_page() const noexcept { return head_of(txn_).next_page; }

void WriteTransaction::require_known_layout() const {
  const TransactionHead head = head_of(txn_);
  if (head.parent == nullptr && head.child == nullptr && head.txnid == mdb_txn_id(txn_) &&
      head.environment == mdb_txn_env(txn_) && head.next_page == environment_->page_count()) {
    return;
  }
  throw Error(Errc::kUnsupported,
              fmt::format("{}: this program does not know the transactions of {}, so it cannot keep the file "
                          "within its budget; use LMDB 0.9.18 to 0.9.33",
                          environment_->path_.string(), mdb_version(nullptr, nullptr, nullptr)));
}

WriteTransaction::~WriteTransaction() {
  if (txn_ != nullptr) mdb_txn_abort(txn_);
}

MDB_cursor* WriteTransaction::cursor(Table table) const {
  MDB_cursor*& cursor = cursors_[index(table)];
  if (cursor == nullptr)
    environment_->check(mdb_cursor_open(txn_, environment_->tables_[index(table)], &cursor), "read");
  return cursor;
}

std::optional<Bytes> WriteTransaction::get(Table table, Bytes key) const {
  MDB_val k = value_of(key);
  MDB_val v;
  const int code = mdb_cursor_get(cursor(table), &k, &v, MDB_SET);
  environment_->require_read();
  if (code == MDB_NOTFOUND) return std::nullopt;
  environment_->check(code, "read");
  return bytes_of(v);
}

TableStat WriteTransaction::stat(Table table) const {
  return stat_of(*environment_, txn_, environment_->tables_[index(table)]);
}

void WriteTransaction::put(Table table, Bytes key, Bytes value) {
  const Reserved space = reserve(table, key, value.size());
  if (!value.empty()) std::memcpy(space.value.data(), value.data(), value.size());
}

std::span<std::byte> WriteTransaction::reserve_with(unsigned flags, Table table, Bytes key,
                                                    std::size_t size) {
  if (key.size() % 8 != 0 || size % 8 != 0) {
    // One such entry would misalign others, and the walker would refuse the file.
    fmt::print(stderr, "tokcask: internal error: a key of {} and a value of {} bytes\n", key.size(), size);
    std::abort();
  }
  MDB_val k = value_of(key);
  MDB_val v{size, nullptr};
  environment_->check(mdb_cursor_put(cursor(table), &k, &v, MDB_RESERVE | flags), "write");
  return {static_cast<std::byte*>(v.mv_data), size};
}

WriteTransaction::Reserved WriteTransaction::reserve(Table table, Bytes key, std::size_t size) {
  Reserved reserved{reserve_with(0, table, key, size), 0};
  if (const std::uint64_t pages = value_pages(key.size(), size, environment_->page_bytes_); pages > 0) {
    // A dirty overflow page is a whole page in memory, header first, and its number is the header's first
    // field.
    std::uint64_t number = 0;
    std::memcpy(&number, reserved.value.data() - sizeof(layout::PageHeader), sizeof number);
    reserved.end_page = number + pages;
  }
  return reserved;
}

void WriteTransaction::append(Table table, Bytes key, Bytes value) {
  const std::span<std::byte> space = reserve_with(MDB_APPEND, table, key, value.size());
  if (!value.empty()) std::memcpy(space.data(), value.data(), value.size());
}

bool WriteTransaction::erase(Table table, Bytes key) {
  // What is deleted may take a page from under a cursor: the next use makes a new one.
  if (MDB_cursor* const cursor = std::exchange(cursors_[index(table)], nullptr)) mdb_cursor_close(cursor);
  MDB_val k = value_of(key);
  const int code = mdb_del(txn_, environment_->tables_[index(table)], &k, nullptr);
  if (code == MDB_NOTFOUND) return false;
  environment_->check(code, "delete");
  return true;
}

void WriteTransaction::commit() {
  environment_->require_read();
  // Nothing is written before, or so much that the file will be walked once more.
  const bool clean = environment_->is_clean();
  // LMDB frees the transaction whether or not the commit succeeds.
  environment_->check(mdb_txn_commit(std::exchange(txn_, nullptr)), "commit");
  if (clean) environment_->move_mark();
  environment_->require_whole();  // the file may be longer now
}

// ---- Cursor ----

Cursor::Cursor(const ReadTransaction& transaction, Table table) : environment_(transaction.environment_) {
  environment_->check(mdb_cursor_open(transaction.txn_, environment_->tables_[index(table)], &cursor_),
                      "read");
}

Cursor::Cursor(const WriteTransaction& transaction, Table table) : environment_(transaction.environment_) {
  environment_->check(mdb_cursor_open(transaction.txn_, environment_->tables_[index(table)], &cursor_),
                      "read");
}

Cursor::~Cursor() { mdb_cursor_close(cursor_); }

namespace {

std::optional<Cursor::Entry> move(const Environment& environment, MDB_cursor* cursor, MDB_cursor_op how,
                                  Bytes key) {
  MDB_val k = value_of(key);
  MDB_val v;
  const int code = mdb_cursor_get(cursor, &k, &v, how);
  environment.require_read();
  if (code == MDB_NOTFOUND) return std::nullopt;
  environment.check(code, "read");
  return Cursor::Entry{bytes_of(k), bytes_of(v)};
}

}  // namespace

std::optional<Cursor::Entry> Cursor::first() const { return move(*environment_, cursor_, MDB_FIRST, {}); }
std::optional<Cursor::Entry> Cursor::next() const { return move(*environment_, cursor_, MDB_NEXT, {}); }
std::optional<Cursor::Entry> Cursor::seek(Bytes key) const {
  return move(*environment_, cursor_, MDB_SET_RANGE, key);
}
std::optional<Bytes> Cursor::find(Bytes key) const {
  const auto entry = move(*environment_, cursor_, MDB_SET, key);
  return entry ? std::optional(entry->value) : std::nullopt;
}

std::uint64_t value_pages(std::size_t key_bytes, std::size_t value_bytes, std::size_t page_bytes) noexcept {
  if (sizeof(layout::NodeHeader) + key_bytes + value_bytes <= layout::max_node_bytes(page_bytes)) return 0;
  return layout::overflow_pages(value_bytes, page_bytes);
}

}  // namespace tokcask::lmdb
