// A store as files in a directory: what lies there, how a new one is made, and how a bad one is put out of
// the way. Before there is an environment, and without one.
//
//   data.mdb     LMDB's data file: all that is true
//   lock.mdb     LMDB's reader table; opened by LMDB alone, because closing any other descriptor of it would
//   drop
//                the process's locks
//   write.lock   see write_lock.h
//   access.shm   see shm/access_table.h
//   data.mdb.set-aside-N   what once was data.mdb and could not be used
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace tokcask::files {

enum class Condition { kAbsent, kGood, kBad };

struct Inspection {
  Condition condition = Condition::kAbsent;
  std::string why;  // not good: a clause that goes on from "it"
};

// Whether `root`/data.mdb is a file whose structure LMDB can be trusted with. Needs no lock: a file that a
// writer changes during the inspection is inspected again. Throws Error(kIo) if it cannot be read.
Inspection inspect(const std::filesystem::path& root);

// Makes `root` and its parents. Throws Error(kIo), also when `root` is a file.
void make_directory(const std::filesystem::path& root);

// Throws Error(kUnsupported) when `root` is on a network file system.
void refuse_network_file_system(const std::filesystem::path& root);
// The name of the network file system that statfs(2) calls `type`, or empty.
std::string_view network_file_system(long type) noexcept;

// Renames data.mdb to the first free data.mdb.set-aside-N, removes what belongs to it alone, and returns the
// new name. The caller holds the write lock.
std::filesystem::path set_aside(const std::filesystem::path& root);

// Makes an empty store: complete under another name first, then renamed, so that a kill leaves none or a
// whole one. The caller holds the write lock and knows that there is no data.mdb.
void create(const std::filesystem::path& root);

}  // namespace tokcask::files
