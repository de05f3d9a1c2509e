// The room that talks to LMDB: environment, transactions and cursors as types whose lifetimes are LMDB's
// rules.
//
// What is used of LMDB, and how:
//  - One Environment per process and file: closing one would free the reader slots of the other. A second one
//    is refused (see lmdb/data_claim.h). No lock of LMDB's own is relied on (see lmdb/lock_file.h).
//  - No MDB_WRITEMAP: a full disk is an error code, not a signal, and the map is read-only memory.
//  - MDB_NOTLS: a read transaction belongs to an object, not to a thread.
//  - The map is reserved once and never resized, because resizing would pull it away under live views.
//  - Two named databases. Keys and values in both have sizes that are multiples of 8, which keeps inline
//    values 8-byte aligned; nothing is stored in the unnamed database but the names.
//  - Never used after fork() in the child: not even to close it.
//
// Every failure is thrown as tokcask::Error, made in one place from LMDB's code (see error_of).
#pragma once

#include <sys/types.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tokcask/error.h>

#include "lmdb/clean_mark.h"
#include "lmdb/data_claim.h"

struct stat;
struct MDB_env;
struct MDB_txn;
struct MDB_cursor;

namespace tokcask::lmdb {

class LockFile;

using Bytes = std::span<const std::byte>;

enum class Table : unsigned { kRecords = 0, kMeta = 1 };
inline constexpr std::size_t kTableCount = 2;

// Figures of one database as a transaction sees it.
struct TableStat {
  std::uint64_t depth = 0;
  std::uint64_t branch_pages = 0;
  std::uint64_t leaf_pages = 0;
  std::uint64_t overflow_pages = 0;
  std::uint64_t entries = 0;
};

// Pages that a past transaction freed: one record of LMDB's free list.
struct FreedPages {
  std::uint64_t txnid = 0;
  std::uint64_t count = 0;
  std::span<const std::uint64_t> pages;  // their numbers; into the map
};

class Environment {
 public:
  enum class Mode { kCreate, kReadWrite, kReadOnly };
  // Opens `directory`/data.mdb. A file that lacks its databases is Error(kDamaged). Errors speak of `name`,
  // by default of that file.
  //
  // kCreate makes the file and its databases, for this process alone: there is no lock file, and nothing is
  // durable before sync(). kReadOnly is for files this process may not write.
  static std::unique_ptr<Environment> open(const std::filesystem::path& directory, Mode mode,
                                           const std::filesystem::path& name = {});
  // The same for a directory that has a lock file and a link to the data file `name`. In the directory of
  // `name` itself LMDB is without a lock file, because nothing can be made there. Returns null, and has read
  // nothing by that lock file, when what was opened or what is there now is not the file `id`. Throws
  // Error(kBusy) when others are in the way for longer than `timeout`; see data_claim.h and lock_file.h.
  using FileId = std::pair<dev_t, ino_t>;
  static std::unique_ptr<Environment> open_linked(const std::filesystem::path& directory, Mode mode,
                                                  const std::filesystem::path& name, const FileId& id,
                                                  std::chrono::milliseconds timeout,
                                                  std::uint64_t map_bytes = kMostMapBytes);
  // The map is address space that is reserved for the file, and the file cannot grow beyond it. What serves a
  // file that is to have `bytes` at most, where other processes may make it larger. A process has address
  // space for some thousand maps of the smallest size.
  [[nodiscard]] static std::uint64_t map_bytes_for(std::uint64_t bytes) noexcept;
  static constexpr std::uint64_t kMostMapBytes = std::uint64_t{1} << 40;
  ~Environment();
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

  [[nodiscard]] std::uint64_t last_txnid() const noexcept;
  // One more than the number of the last page ever used: the file is at most this many pages long.
  [[nodiscard]] std::uint64_t page_count() const noexcept;
  [[nodiscard]] std::size_t page_bytes() const noexcept { return page_bytes_; }
  [[nodiscard]] bool read_only() const noexcept { return read_only_; }
  // How large the file may become: less than was asked for where address space is short (RLIMIT_AS).
  [[nodiscard]] std::uint64_t map_bytes() const noexcept { return map_bytes_; }
  // Size of data.mdb on disk.
  [[nodiscard]] std::uint64_t file_bytes() const;
  // When data.mdb was last written to.
  [[nodiscard]] std::int64_t modified_ns() const;
  // Device and inode of the file that LMDB has open.
  [[nodiscard]] FileId file_id() const;
  // Makes all that was committed durable; for kCreate.
  void sync() const;
  // While one lives, commits wait for the kernel's tick where the clean mark cannot be moved on otherwise:
  // for what is committed when a store is closed.
  class Closing {
   public:
    explicit Closing(const Environment& environment) : environment_(&environment) {
      environment_->closing_.fetch_add(1, std::memory_order_relaxed);
    }
    ~Closing() { environment_->closing_.fetch_sub(1, std::memory_order_relaxed); }
    Closing(const Closing&) = delete;
    Closing& operator=(const Closing&) = delete;

   private:
    const Environment* environment_;
  };

  // Throws the error of a code of LMDB's that is not its success. If that is damage, the file is walked when
  // it is opened next.
  void check(int code, const char* doing) const;
  // Throws Error(kDamaged) after an assertion of LMDB's has failed, which has found damage that it cannot
  // handle. The one who met it got this error in the place of LMDB's abort(). Nothing is done by this
  // environment any more. All that uses a transaction asks for it.
  void require_usable() const {
    if (failure_.load(std::memory_order_acquire) != nullptr) throw failed();
  }

  // Tries to have the data file alone: false when any other process or object has it open. While the result
  // lives, whoever opens the file waits. Not for kCreate.
  [[nodiscard]] Alone alone() const;
  // That `doing` ("compacted") wants it alone, and who else has it open.
  [[nodiscard]] Error not_alone(std::string_view doing) const;
  // Page 0 of the file as this process has it mapped; never moves. Null for kCreate, and when it cannot be
  // found because the file's pages are larger than the system's.
  [[nodiscard]] const std::byte* map() const noexcept { return map_; }
  // Asks the kernel to read a part of data.mdb into the page cache. Without effect where that cannot be done.
  void read_ahead(std::uint64_t offset, std::uint64_t bytes) const noexcept;

  // Has the disk keep blocks for this part of data.mdb, which may lie beyond its end; the file's size stays.
  // False when the disk, or a quota, has no room for them. True also where that cannot be asked for.
  [[nodiscard]] bool allocate(std::uint64_t offset, std::uint64_t bytes) const noexcept;

  // The oldest snapshot that any process holds, or nothing when there is none.
  [[nodiscard]] std::optional<std::uint64_t> oldest_reader() const;
  // Frees the reader slots of dead processes; returns how many there were.
  int clear_dead_readers() const noexcept;

 private:
  friend class ReadTransaction;
  friend class WriteTransaction;
  friend class Cursor;
  Environment(const std::filesystem::path& directory, Mode mode, std::filesystem::path name,
              std::unique_ptr<LockFile> lock_file = nullptr, std::uint64_t map_bytes = kMostMapBytes);
  void open_tables(Mode mode);
  [[nodiscard]] struct stat status() const;
  // That of the data file; -1 if LMDB does not tell.
  [[nodiscard]] int descriptor() const noexcept;
  // What changes the file asks the one before and calls the other after it.
  [[nodiscard]] bool is_clean() const noexcept;
  void move_mark() const noexcept;
  void find_map(MDB_txn* txn);
  static void on_assertion(MDB_env* env, const char* text);
  [[noreturn]] void fail(const char* text) const;
  [[nodiscard]] Error failed() const;
  void require_writable() const;

  std::unique_ptr<LockFile> lock_file_;       // null: without one
  std::optional<CleanMark> clean_mark_;       // where there is a lock file
  mutable std::atomic<unsigned> closing_{0};  // how many Closing live
  MDB_env* env_ = nullptr;
  std::filesystem::path path_;
  std::array<unsigned, kTableCount> tables_{};
  std::size_t page_bytes_ = 0;
  std::uint64_t map_bytes_ = 0;
  const std::byte* map_ = nullptr;
  bool read_only_ = false;
  mutable std::atomic<const std::string*> failure_{nullptr};  // of an assertion; set once
  // An assertion has failed in the middle of a write. LMDB's cursors of it were on the stack, so the
  // transaction can be neither ended nor left: its mutex stays locked until this process ends.
  mutable std::atomic<bool> is_stuck_{false};
};

// A snapshot of the store. While it is active its pages are not reused; reset() gives the snapshot up but
// keeps the reader slot. Used by one thread at a time.
class ReadTransaction {
 public:
  explicit ReadTransaction(const Environment& environment);
  ~ReadTransaction();
  ReadTransaction(const ReadTransaction&) = delete;
  ReadTransaction& operator=(const ReadTransaction&) = delete;

  void reset() noexcept;
  void renew();
  // Forgets the transaction without touching it: what a forked child must do.
  void abandon() noexcept { txn_ = nullptr; }

  [[nodiscard]] std::uint64_t id() const noexcept;
  // The value under `key`, pointing into the map, or nothing.
  [[nodiscard]] std::optional<Bytes> get(Table table, Bytes key) const;
  [[nodiscard]] TableStat stat(Table table) const;
  // LMDB's own free list, oldest transaction first.
  [[nodiscard]] std::vector<FreedPages> free_list() const;

 private:
  friend class Cursor;

  const Environment* environment_;
  MDB_txn* txn_ = nullptr;
};

// The one write transaction of all processes. Aborted when destroyed without commit().
class WriteTransaction {
 public:
  explicit WriteTransaction(const Environment& environment);
  ~WriteTransaction();
  WriteTransaction(const WriteTransaction&) = delete;
  WriteTransaction& operator=(const WriteTransaction&) = delete;

  [[nodiscard]] std::optional<Bytes> get(Table table, Bytes key) const;
  [[nodiscard]] TableStat stat(Table table) const;
  void put(Table table, Bytes key, Bytes value);
  // Space for a value of `size` bytes under `key`, to be filled before the next call. Heap memory, not the
  // map. The second is one more than the last page taken, for a value in overflow pages; 0 for an inline one.
  struct Reserved {
    std::span<std::byte> value;
    std::uint64_t end_page = 0;
  };
  Reserved reserve(Table table, Bytes key, std::size_t size);
  // As put, for a key greater than all that the table has: pages are filled one after the other, without
  // gaps.
  void append(Table table, Bytes key, Bytes value);
  // Returns whether there was one.
  bool erase(Table table, Bytes key);
  // Durable when it returns, if the file system keeps its word. Moves the clean mark on.
  void commit();

 private:
  friend class Cursor;
  std::span<std::byte> reserve_with(unsigned flags, Table table, Bytes key, std::size_t size);
  const Environment* environment_;
  MDB_txn* txn_ = nullptr;
};

// Walks a table in key order. Must not outlive its transaction.
class Cursor {
 public:
  struct Entry {
    Bytes key;
    Bytes value;
  };
  Cursor(const ReadTransaction& transaction, Table table);
  Cursor(const WriteTransaction& transaction, Table table);
  ~Cursor();
  Cursor(const Cursor&) = delete;
  Cursor& operator=(const Cursor&) = delete;

  std::optional<Entry> first() const;
  std::optional<Entry> next() const;
  // The first entry whose key is not less than `key`.
  std::optional<Entry> seek(Bytes key) const;
  // The entry under exactly `key`.
  std::optional<Bytes> find(Bytes key) const;

 private:
  const Environment* environment_;
  MDB_cursor* cursor_ = nullptr;
};

// Overflow pages that a value takes, or 0 if it is stored inside a leaf.
[[nodiscard]] std::uint64_t value_pages(std::size_t key_bytes, std::size_t value_bytes,
                                        std::size_t page_bytes) noexcept;

}  // namespace tokcask::lmdb
