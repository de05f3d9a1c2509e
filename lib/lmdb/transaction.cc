// Transactions and cursors.
#include <fmt/format.h>
#include <lmdb.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>

#include "lmdb/environment.h"
#include "lmdb/page_layout.h"
#include "lmdb/writing_here.h"

namespace tokcask::lmdb {

namespace {

MDB_val value_of(Bytes bytes) {
  // LMDB takes what it only reads as a pointer to non-const.
  return {bytes.size(), const_cast<std::byte*>(bytes.data())};
}
Bytes bytes_of(const MDB_val& value) { return {static_cast<const std::byte*>(value.mv_data), value.mv_size}; }

std::optional<Bytes> get_value(const Environment& environment, MDB_txn* txn, unsigned dbi, Bytes key) {
  environment.require_usable();
  MDB_val k = value_of(key);
  MDB_val v;
  const int code = mdb_get(txn, dbi, &k, &v);
  if (code == MDB_NOTFOUND) return std::nullopt;
  environment.check(code, "read");
  return bytes_of(v);
}

TableStat stat_of(const Environment& environment, MDB_txn* txn, unsigned dbi) {
  environment.require_usable();
  MDB_stat stat;
  const int code = mdb_stat(txn, dbi, &stat);
  environment.check(code, "read a table's figures");
  return {stat.ms_depth, stat.ms_branch_pages, stat.ms_leaf_pages, stat.ms_overflow_pages, stat.ms_entries};
}

std::size_t index(Table table) { return static_cast<std::size_t>(table); }

}  // namespace

// ---- ReadTransaction ----

ReadTransaction::ReadTransaction(const Environment& environment) : environment_(&environment) {
  environment.require_usable();
  int code = mdb_txn_begin(environment.env_, nullptr, MDB_RDONLY, &txn_);
  if (code == MDB_READERS_FULL && environment.clear_dead_readers() > 0) {
    code = mdb_txn_begin(environment.env_, nullptr, MDB_RDONLY, &txn_);
  }
  environment.check(code, "begin a snapshot");
}

ReadTransaction::~ReadTransaction() {
  if (txn_ != nullptr) mdb_txn_abort(txn_);
}

void ReadTransaction::reset() noexcept { mdb_txn_reset(txn_); }

void ReadTransaction::renew() {
  environment_->require_usable();
  environment_->check(mdb_txn_renew(txn_), "renew a snapshot");
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
  environment_->require_usable();
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
  return list;
}

// ---- WriteTransaction ----

WriteTransaction::WriteTransaction(const Environment& environment) : environment_(&environment) {
  environment.require_writable();
  writing_here = environment_;
  try {
    environment.check(mdb_txn_begin(environment.env_, nullptr, 0, &txn_), "begin a write");
    require_known_layout();
  } catch (...) {
    if (txn_ != nullptr) mdb_txn_abort(txn_);
    writing_here = nullptr;
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
                          "within its budget; use another release of LMDB 0.9",
                          environment_->path_.string(), mdb_version(nullptr, nullptr, nullptr)));
}

WriteTransaction::~WriteTransaction() {
  writing_here = nullptr;
  if (txn_ != nullptr && !environment_->is_stuck_) mdb_txn_abort(txn_);
}

MDB_cursor* WriteTransaction::cursor(Table table) const {
  environment_->require_usable();
  MDB_cursor*& cursor = cursors_[index(table)];
  if (cursor == nullptr)
    environment_->check(mdb_cursor_open(txn_, environment_->tables_[index(table)], &cursor), "read");
  return cursor;
}

std::optional<Bytes> WriteTransaction::get(Table table, Bytes key) const {
  MDB_val k = value_of(key);
  MDB_val v;
  const int code = mdb_cursor_get(cursor(table), &k, &v, MDB_SET);
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
  environment_->require_usable();
  // What is deleted may take a page from under a cursor: the next use makes a new one.
  if (MDB_cursor* const cursor = std::exchange(cursors_[index(table)], nullptr)) mdb_cursor_close(cursor);
  MDB_val k = value_of(key);
  const int code = mdb_del(txn_, environment_->tables_[index(table)], &k, nullptr);
  if (code == MDB_NOTFOUND) return false;
  environment_->check(code, "delete");
  return true;
}

void WriteTransaction::commit() {
  environment_->require_usable();
  // Nothing is written before, or so much that the file will be walked once more.
  const bool clean = environment_->is_clean();
  // LMDB frees the transaction whether or not the commit succeeds, but not when an assertion fails.
  const int code = mdb_txn_commit(txn_);
  txn_ = nullptr;
  environment_->check(code, "commit");
  if (clean) environment_->move_mark();
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
  environment.require_usable();
  MDB_val k = value_of(key);
  MDB_val v;
  const int code = mdb_cursor_get(cursor, &k, &v, how);
  if (code == MDB_NOTFOUND) return std::nullopt;
  environment.check(code, "read");
  return Cursor::Entry{bytes_of(k), bytes_of(v)};
}

}  // namespace

std::optional<Cursor::Entry> Cursor::first() const { return move(*environment_, cursor_, MDB_FIRST, {}); }
std::optional<Cursor::Entry> Cursor::next() const { return move(*environment_, cursor_, MDB_NEXT, {}); }
std::optional<Cursor::Entry> Cursor::previous() const { return move(*environment_, cursor_, MDB_PREV, {}); }
std::optional<Cursor::Entry> Cursor::seek(Bytes key) const {
  return move(*environment_, cursor_, MDB_SET_RANGE, key);
}
std::optional<Bytes> Cursor::find(Bytes key) const {
  const auto entry = move(*environment_, cursor_, MDB_SET, key);
  return entry ? std::optional(entry->value) : std::nullopt;
}

void Cursor::renew(const ReadTransaction& transaction) {
  environment_->check(mdb_cursor_renew(transaction.txn_, cursor_), "read");
}

std::uint64_t value_pages(std::size_t key_bytes, std::size_t value_bytes, std::size_t page_bytes) noexcept {
  if (sizeof(layout::NodeHeader) + key_bytes + value_bytes <= layout::max_node_bytes(page_bytes)) return 0;
  return layout::overflow_pages(value_bytes, page_bytes);
}

}  // namespace tokcask::lmdb
