// A disk that keeps only what it has to: the changes below a directory, in order, and what of them a power
// cut may leave.
//
// What was written to a file before a sync of it that has returned is durable, and so is a write to a
// descriptor with O_DSYNC once it has returned. A name is durable when its directory was synced. Of
// everything else each change may be there or not, whatever came before it, and a write may be there in part,
// by sectors of 512 bytes. That is more than file systems do.
//
// Memory that is mapped and written to is not seen: access.shm and lock.mdb are as they were made.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "calls.h"

namespace tokcask::test {

// What becomes of a change that is not durable.
enum class Fate { kLost, kWhole, kTorn };

class Disk : public CallLog {
 public:
  explicit Disk(std::filesystem::path directory) : directory_(std::move(directory)) {}

  // ---- CallLog ----
  void made_file(const std::string& path, int fd) override;
  void wrote(int fd, std::uint64_t offset, std::span<const std::byte> bytes) override;
  void resized(int fd, std::uint64_t size, bool may_shrink) override;
  void syncing(int fd) override;
  void synced(int fd) override;
  void linked(const std::string& from, const std::string& to) override;
  void renamed(const std::string& from, const std::string& to) override;
  void removed(const std::string& path) override;
  void made_symlink(const std::string& target, const std::string& path) override;
  void made_directory(const std::string& path) override;

  // ---- Afterwards ----
  // Moments are numbers of events so far.
  [[nodiscard]] std::size_t now() const;
  // The moments at which a power cut is of interest: before and after each sync, and in the middle of a write
  // that is one.
  [[nodiscard]] std::vector<std::size_t> moments() const;
  // Changes that are not durable at this moment, by number.
  [[nodiscard]] std::vector<std::size_t> undecided(std::size_t moment) const;
  // Makes in `to`, which is empty, what is left after a power cut; `fate_of` is asked for each undecided
  // change.
  void leave(std::size_t moment, const std::function<Fate(std::size_t)>& fate_of, std::uint64_t seed,
             const std::filesystem::path& to) const;

 private:
  using FileNumber = std::size_t;
  enum class Kind { kWrite, kResize, kGrow, kName, kRename, kRemove, kDirectory, kSymlink, kSync };
  struct Event {
    Kind kind;
    FileNumber file = 0;   // for a directory the file that it is named after, if any
    std::uint64_t at = 0;  // offset or size
    std::vector<std::byte> bytes = {};
    std::string path = {};      // a name; of a rename the new one
    std::string other = {};     // the old name, or the target
    std::size_t began = 0;      // kSync
    bool syncs_itself = false;  // a write to a descriptor with O_DSYNC
    bool of_directory = false;  // kSync: of the directory `path`
  };
  struct Tree;

  void add(Event event);
  FileNumber number_of(int fd);
  [[nodiscard]] bool is_durable(std::size_t change, std::size_t moment) const;
  static void apply(const Event& event, Tree& tree, Fate fate, std::uint64_t seed);
  void write_out(const Tree& tree, const std::filesystem::path& to) const;

  const std::filesystem::path directory_;
  std::vector<Event> events_;
  std::map<std::uint64_t, FileNumber> numbers_;  // by inode
  std::map<std::string, FileNumber> names_;
  std::map<int, std::size_t> syncing_;  // by descriptor, when it began
  FileNumber last_ = 0;
  mutable std::mutex mutex_;
};

}  // namespace tokcask::test
