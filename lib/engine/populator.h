// Reads parts of data.mdb into the page cache ahead of those who will want them.
//
// One thread, made when it is first needed. Ranges of one request are read in file order, with near ones
// joined, because a disk likes that and because advice per record costs more than it gains. The page cache
// belongs to the machine: what one process asks for, all have. The map is not touched, so this process's
// memory does not grow by what others will read.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#include "lmdb/environment.h"

namespace tokcask {

// Threads: all members may be called concurrently. Not used after fork() in the child.
class Populator {
 public:
  struct Range {
    std::uint64_t offset;
    std::uint64_t bytes;
  };

  explicit Populator(const lmdb::Environment& environment) : environment_(&environment) {}
  // Drops what is left to do.
  ~Populator();
  Populator(const Populator&) = delete;
  Populator& operator=(const Populator&) = delete;

  // Asks for these parts of the file, in any order. Ranges beyond kMostWaiting in all are dropped: who asks
  // for more than the disk can bring is served better by what it reads itself.
  void read(std::vector<Range> ranges);
  // Asks for the whole file, after all else.
  void read_all();
  // Waits until nothing is left to do; for tests.
  void wait();

  static constexpr std::size_t kMostWaiting = 65'536;
  // Ranges with no more than this between them are joined.
  static constexpr std::uint64_t kGapBytes = 64 << 10;

 private:
  void loop();
  void start();  // with mutex_ held

  const lmdb::Environment* environment_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Range> waiting_;
  bool all_ = false;
  bool busy_ = false;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace tokcask
