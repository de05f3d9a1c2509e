#include "lmdb/data_claim.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <thread>
#include <utility>

#include "lmdb/lock_file.h"

namespace tokcask::lmdb {

namespace {

constexpr off_t kUnseenReader = off_t{1} << 62;
constexpr off_t kStuckWriter = kUnseenReader + 1;
constexpr off_t kProcesses = kStuckWriter + 1;
constexpr off_t kPids = off_t{1} << 32;
// Apart from those of the others: there may be many with one id, each in a container of its own.
constexpr off_t kUnseenProcesses = kProcesses + kPids;
constexpr off_t kEnd = kUnseenProcesses + kPids;

off_t byte_of_process() { return kProcesses + getpid(); }

}  // namespace

DataClaim::DataClaim(std::filesystem::path data) : data_(std::move(data)), fd_(data_.c_str(), O_RDWR) {
  // A write lock wants a descriptor for writing; a read-only file has readers all the same.
  if (fd_.get() < 0) fd_.open(data_.c_str(), O_RDONLY);
  if (fd_.get() < 0)
    throw Error(Errc::kIo, fmt::format("{}: cannot open: {}", data_.string(), std::strerror(errno)));
}

void DataClaim::claim(const std::filesystem::path& lock, std::chrono::milliseconds timeout) {
  wait([&] { return try_claim(lock); }, lock, timeout);
}

void DataClaim::claim_without_lock_file(std::chrono::milliseconds timeout) {
  wait([&] { return try_claim_without_lock_file(); }, {}, timeout);
}

template <typename Try>
void DataClaim::wait(const Try& attempt, const std::filesystem::path& lock,
                     std::chrono::milliseconds timeout) {
  // Others may be about to close the data file, or to find out the same as this process.
  constexpr int kMostLooks = 8;
  constexpr std::chrono::milliseconds kPause{4};
  const auto deadline =
      std::chrono::steady_clock::now() + std::min<std::chrono::milliseconds>(timeout, kLongestWait);
  for (int look = 1;;) {
    const Obstacle obstacle = attempt();
    if (obstacle == Obstacle::kNone) return;
    if (obstacle == Obstacle::kAlone) {
      if (std::chrono::steady_clock::now() >= deadline) throw error_of(obstacle, lock, timeout);
      std::this_thread::sleep_for(kPause);
      continue;
    }
    if (look == kMostLooks) throw error_of(obstacle, lock, timeout);
    std::this_thread::sleep_for(std::chrono::milliseconds(look * look));
    ++look;
  }
}

// Says who this is, and then looks for others, so of two at the same time one at least sees the other.
DataClaim::Obstacle DataClaim::try_claim(const std::filesystem::path& lock) {
  struct stat status{};
  if (stat(lock.c_str(), &status) != 0) return Obstacle::kOtherLockFile;
  const int fd = fd_.get();
  byte_ = static_cast<off_t>(status.st_ino % static_cast<ino_t>(kUnseenReader));
  static_cast<void>(os::set_lock(fd, F_RDLCK, byte_of_process()));
  Obstacle obstacle = Obstacle::kNone;
  // LMDB makes a lock file long enough only when it finds itself alone.
  const bool is_short = static_cast<std::uint64_t>(status.st_size) < kLeastLockFileBytes;
  if (os::set_lock(fd, F_RDLCK, byte_) == EAGAIN) {
    obstacle = Obstacle::kAlone;
  } else if (os::find_lock(fd, byte_of_process(), byte_of_process() + 1) >= 0) {
    obstacle = Obstacle::kThisProcess;
  } else if (os::find_lock(fd, 0, byte_) >= 0 || os::find_lock(fd, byte_ + 1, kUnseenReader) >= 0 ||
             (is_short && os::find_lock(fd, byte_, byte_ + 1) >= 0)) {
    obstacle = Obstacle::kOtherLockFile;
  }
  if (obstacle != Obstacle::kNone) withdraw();
  return obstacle;
}

DataClaim::Obstacle DataClaim::try_claim_without_lock_file() {
  const int fd = fd_.get();
  byte_ = kUnseenReader;
  static_cast<void>(os::set_lock(fd, F_RDLCK, kUnseenProcesses + getpid()));
  Obstacle obstacle = Obstacle::kNone;
  if (os::set_lock(fd, F_RDLCK, byte_) == EAGAIN) {
    obstacle = Obstacle::kAlone;
  } else if (os::find_lock(fd, 0, kUnseenReader) >= 0) {
    obstacle = Obstacle::kLockFile;
  }
  if (obstacle != Obstacle::kNone) withdraw();
  return obstacle;
}

void DataClaim::withdraw() noexcept {
  byte_ = -1;
  static_cast<void>(os::set_lock(fd_.get(), F_UNLCK, 0, kEnd));
}

std::optional<std::string> DataClaim::why_not_to_write() const {
  const off_t found = os::find_lock(fd_.get(), kUnseenReader, kStuckWriter + 1);
  if (found < 0) return std::nullopt;
  if (found == kStuckWriter) {
    return fmt::format(
        "{}: cannot be written to: an open process has met damage in the middle of a write, "
        "and is stuck. End it; open are {}",
        data_.string(), names_of_others());
  }
  return fmt::format(
      "{}: cannot be written to while it is read on a read-only mount, where a reader cannot be "
      "protected. Close it there; open are {}",
      data_.string(), names_of_others());
}

void DataClaim::note_stuck_writer() noexcept {
  static_cast<void>(os::set_lock(fd_.get(), F_RDLCK, kStuckWriter));
}

std::vector<pid_t> DataClaim::others() const {
  std::vector<pid_t> found;
  for (off_t byte = kProcesses; (byte = os::find_lock(fd_.get(), byte, kEnd)) >= 0; ++byte)
    found.push_back(static_cast<pid_t>((byte - kProcesses) % kPids));
  return found;
}

std::string DataClaim::names_of_others() const {
  std::string names;
  for (const pid_t pid : others())
    fmt::format_to(std::back_inserter(names), "{}process {}{}", names.empty() ? "" : ", ", pid,
                   pid == getpid() ? " (this one)" : "");
  return names.empty() ? "another process" : names;
}

Error DataClaim::not_alone(std::string_view doing) const {
  return {Errc::kBusy, fmt::format("{}: cannot be {} while others have it open: {}. Close it there first",
                                   data_.string(), doing, names_of_others())};
}

Error DataClaim::error_of(Obstacle obstacle, const std::filesystem::path& lock,
                          std::chrono::milliseconds timeout) const {
  switch (obstacle) {
    case Obstacle::kAlone:
      return {Errc::kBusy,
              fmt::format("{}: is being compacted or repaired by {}; waited {:.1f} s for it. If that one is "
                          "stopped or hangs, continue or end it",
                          data_.string(), names_of_others(), static_cast<double>(timeout.count()) / 1000.0)};
    case Obstacle::kThisProcess:
      return {
          Errc::kBusy,
          fmt::format("{}: a process with this one's id, {}, has it open. Either a second copy of the "
                      "library is in this process (a wheel and a system's library, two plug-ins): use one "
                      "of them for this store. Or two containers share the store: they must share their "
                      "process ids too (for example docker run --pid)",
                      data_.string(), getpid())};
    case Obstacle::kLockFile:
      return {Errc::kBusy,
              fmt::format("{}: is open for others ({}), which would not see a reader on a read-only mount, "
                          "and could write over what it reads. Mount it writable, or close it there",
                          data_.string(), names_of_others())};
    case Obstacle::kOtherLockFile:
    case Obstacle::kNone:
      break;
  }
  return {
      Errc::kBusy,
      fmt::format("{}: others have it open with another lock file than {}, so they and this process would "
                  "not see each other. Either it is open by another name too (a hard link): then copy "
                  "it instead of linking it. Or the lock file was removed, replaced or cut short while it "
                  "was in use: then close the store in all processes, and open it again",
                  data_.string(), lock.string())};
}

Alone::Alone(DataClaim& claim) noexcept {
  // Where the file system has no such locks, nobody is refused.
  const int error = os::set_lock(claim.fd_.get(), F_WRLCK, 0, kProcesses);
  if (error == EAGAIN || error == EBADF) return;
  static_cast<void>(os::set_lock(claim.fd_.get(), F_RDLCK, byte_of_process()));
  claim_ = &claim;
}

Alone::~Alone() {
  if (claim_ == nullptr) return;
  const off_t byte = claim_->byte_;
  if (byte < 0) {
    claim_->withdraw();
    return;
  }
  // At no moment without its own lock.
  const int fd = claim_->fd_.get();
  static_cast<void>(os::set_lock(fd, F_RDLCK, byte));
  static_cast<void>(os::set_lock(fd, F_UNLCK, 0, byte));
  static_cast<void>(os::set_lock(fd, F_UNLCK, byte + 1, kProcesses));
}

}  // namespace tokcask::lmdb
