// A store as files in a directory: what lies there, how a new one is made, and how a bad one is put out of
// the way. Before there is an environment, and without one.
//
//   data.mdb     LMDB's data file: all that is true
//   locks/INODE  the lock directory of the data file with that inode: lock.mdb, LMDB's reader table, see
//                lmdb/lock_file.h; data.mdb, a link to ../../data.mdb, because LMDB finds both by one path;
//                and clean, see lmdb/clean_mark.h
//   write.lock   see write_lock.h
//   access.shm   see shm/access_table.h
//   data.mdb.set-aside-N   what once was data.mdb and could not be used
//   .new.PID     a data file in the making
//
// A data file is replaced by one rename. Readers and transaction numbers of two data files must never meet in
// one lock.mdb, so each has its own, named by what names the file for as long as anybody has it open. Whoever
// opened one path and found another file behind it, because of a rename in between, tries again.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lmdb/environment.h"
#include "record/rows.h"

namespace tokcask {

// What names a file for as long as anybody has it open: device and inode.
using FileId = std::pair<dev_t, ino_t>;

}  // namespace tokcask

namespace tokcask::files {

// Nothing if there is no such file. Throws Error(kIo) if that cannot be found out.
std::optional<FileId> id_of(const std::filesystem::path& file);

enum class Condition { kAbsent, kGood, kBad };

struct Inspection {
  Condition condition = Condition::kAbsent;
  std::string why;                    // not good: a clause that goes on from "it"
  std::vector<std::string> findings;  // what the walker found, one sentence each
};

// Whether `root`/data.mdb is a file whose structure LMDB can be trusted with. Needs no lock: a file that a
// writer changes during the inspection is inspected again. A good file gets the clean mark, if it has a lock
// directory. Throws Error(kIo) if it cannot be read.
Inspection inspect(const std::filesystem::path& root);
// Whether it is under its clean mark (lmdb/clean_mark.h), so that it need not be inspected.
bool is_known_good(const std::filesystem::path& root);

// Makes `root` and its parents. Throws Error(kIo), also when `root` is a file.
void make_directory(const std::filesystem::path& root);

// Throws Error(kIo) when data.mdb is a link: it would be written through, and replaced where it should not.
void refuse_link(const std::filesystem::path& root);

// Makes the names in `directory` durable. Throws Error(kIo). Without effect where the file system cannot, or
// where this process may not read the directory.
void sync_directory(const std::filesystem::path& directory);

// Throws Error(kUnsupported) when `root` is on a network file system.
void refuse_network_file_system(const std::filesystem::path& root);
// The name of the network file system that statfs(2) calls `type`, or empty.
std::string_view network_file_system(long type) noexcept;

// Opens data.mdb, which is to be the file `id`, with its lock directory, and maps enough of it for a file of
// `budget` bytes. Returns null when it was replaced meanwhile. Where no directory can be made, on a read-only
// file system, LMDB does without locks.
std::unique_ptr<lmdb::Environment> open_environment(const std::filesystem::path& root, const FileId& id,
                                                    lmdb::Environment::Mode mode,
                                                    std::chrono::milliseconds timeout,
                                                    std::uint64_t budget = 0);

// The row of a store that begins now.
rows::StoreRow new_store_row(std::size_t page_bytes);
// Makes `directory`/data.mdb, an empty store, durable and closed. Errors speak of `name`.
void make_empty(const std::filesystem::path& directory, const std::filesystem::path& name);

// Makes an empty store. The caller holds the write lock and knows that there is no data.mdb.
void create(const std::filesystem::path& root);

// Gives data.mdb a second name, data.mdb.set-aside-N, so that it is kept when another file takes its place;
// at each moment there is a whole data.mdb. Where there are no hard links it is renamed instead. The caller
// holds the write lock.
class SetAside {
 public:
  // Throws Error(kIo).
  explicit SetAside(const std::filesystem::path& root);
  // Undoes it, unless it is to be kept.
  ~SetAside();
  SetAside(const SetAside&) = delete;
  SetAside& operator=(const SetAside&) = delete;

  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }
  // After the other file is in place: removes what was set aside before, and what belongs to the old file
  // alone.
  void keep();

 private:
  std::filesystem::path root_;
  std::filesystem::path path_;
  bool linked_ = false;
  bool kept_ = false;
};

// A data file in the making, in a directory of its own: complete under another name first, then renamed, so
// that a kill leaves the old one or the new one, whole. The caller holds the write lock.
class NewFile {
 public:
  // Removes what was left behind by others that were killed. Throws Error(kIo).
  explicit NewFile(const std::filesystem::path& root);
  // Removes what was not installed.
  ~NewFile();
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;

  [[nodiscard]] const std::filesystem::path& directory() const noexcept { return directory_; }
  // Puts `directory()`/data.mdb, which is durable and closed, in the place of data.mdb; returns its name.
  // Removes the lock directories of other files: only the current one is ever opened anew. Throws Error(kIo);
  // then data.mdb is the old file, or the new one if its directory cannot be synced.
  FileId install();

 private:
  std::filesystem::path root_;
  std::filesystem::path directory_;
};

}  // namespace tokcask::files
