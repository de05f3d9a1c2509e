#include "files/write_lock.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <ctime>
#include <limits>
#include <thread>
#include <utility>

#include "os/clock.h"
#include "os/descriptor.h"
#include "os/patience.h"

namespace tokcask {

namespace {

constexpr off_t kAll = std::numeric_limits<off_t>::max();

struct Content {
  std::uint64_t pid = 0;
  std::uint64_t since_ns = 0;
  std::uint64_t released = 0;
};

// " since 2026-01-31 23:59:59 UTC (12 s)", or nothing for a time that is none.
std::string since(std::uint64_t then_ns) {
  constexpr std::uint64_t kSecond = 1'000'000'000;
  const std::uint64_t now = os::now_ns();
  const auto seconds = static_cast<std::time_t>(then_ns / kSecond);
  std::tm parts{};
  char text[32];
  if (then_ns == 0 || then_ns > now || gmtime_r(&seconds, &parts) == nullptr ||
      std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S UTC", &parts) == 0) {
    return {};
  }
  return fmt::format(" since {} ({} s)", text, (now - then_ns) / kSecond);
}

// Not through a link, and without waiting: what somebody put there in its place may be anything.
void open_regular(os::ProcessDescriptor& fd, const std::filesystem::path& file) {
  fd.open(file.c_str(), O_RDWR | O_CREAT, 0600);
  int error = fd.get() < 0 ? errno : 0;
  struct stat status{};
  if (error == 0 && (fstat(fd.get(), &status) != 0 || !S_ISREG(status.st_mode))) error = EINVAL;
  if (error == 0) return;
  const bool replaced = error == ELOOP || error == EINVAL || error == ENXIO || error == EISDIR;
  throw Error(Errc::kIo, fmt::format("{}: {}", file.string(),
                                     replaced ? "not a regular file; remove it, and it is made anew"
                                              : fmt::format("cannot open: {}", std::strerror(error))));
}

bool is_alive(std::uint64_t pid) {
  return pid > 0 && pid <= std::numeric_limits<pid_t>::max() &&
         (kill(static_cast<pid_t>(pid), 0) == 0 || errno == EPERM);
}

}  // namespace

WriteLock::WriteLock(std::filesystem::path file) : file_(std::move(file)) { open_regular(fd_, file_); }

bool WriteLock::try_lock() {
  if (taken_.exchange(true)) return false;
  try {
    if (fd_.get() < 0) open_regular(fd_, file_);  // that failed before
    const int error = os::set_lock(fd_.get(), F_WRLCK, 0, kAll);
    if (error == 0 && is_in_place()) return true;
    if (error == 0) open_regular(fd_, file_);  // the file was removed or replaced meanwhile
    if (error != 0 && error != EAGAIN)
      throw Error(Errc::kIo, fmt::format("{}: cannot lock: {}", file_.string(), std::strerror(error)));
  } catch (...) {
    taken_ = false;
    throw;
  }
  taken_ = false;
  return false;
}

WriteLock::Hold WriteLock::acquire(std::chrono::milliseconds timeout) {
  constexpr std::chrono::milliseconds kLongest = std::chrono::hours(24);
  // The one that waits is not served in turn, so it looks often: whoever lets go for a moment lets it in.
  constexpr std::chrono::milliseconds kLongestPause{4};
  const auto deadline = std::chrono::steady_clock::now() + std::min(timeout, kLongest);
  Patience patience;
  // The kernel can wait for a lock, but not for a limited time.
  for (std::chrono::milliseconds pause{1}; !try_lock(); pause = std::min(2 * pause, kLongestPause)) {
    if (std::chrono::steady_clock::now() >= deadline) throw busy(timeout);
    patience.check();
    std::this_thread::sleep_for(pause);
  }
  since_ns_ = os::now_ns();
  note(false);
  return Hold(*this);
}

void WriteLock::release() noexcept {
  note(true);
  static_cast<void>(os::set_lock(fd_.get(), F_UNLCK, 0, kAll));
  taken_ = false;
}

bool WriteLock::is_in_place() const noexcept {
  struct stat ours{};
  struct stat named{};
  if (fstat(fd_.get(), &ours) != 0) return false;
  if (lstat(file_.c_str(), &named) != 0) {
    // Where nobody may look the name up, nobody else opens it; nor where the store was removed, which is
    // written to as before by who has it open.
    const bool is_gone = errno == ENOENT;
    return errno == EACCES || (is_gone && lstat(file_.parent_path().c_str(), &named) != 0 && errno == ENOENT);
  }
  return ours.st_dev == named.st_dev && ours.st_ino == named.st_ino;
}

// Failing is no harm, nor is a full disk: then nobody is told who it is.
void WriteLock::note(bool released) const noexcept {
  const Content content{static_cast<std::uint64_t>(getpid()), since_ns_, released ? 1U : 0U};
  static_cast<void>(pwrite(fd_.get(), &content, sizeof content, 0) == sizeof content);
}

// The kernel does not tell who has such a lock, so the holder has written it down.
Error WriteLock::busy(std::chrono::milliseconds waited) const {
  std::string who = "another process";
  Content content;
  const os::Descriptor file(open(file_.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY));
  if (pread(file.get(), &content, sizeof content, 0) == sizeof content && content.released == 0 &&
      is_alive(content.pid)) {
    const bool is_here = content.pid == static_cast<std::uint64_t>(getpid());
    who = is_here ? "another thread of this process" : fmt::format("process {}", content.pid);
    who += since(content.since_ns);
  }
  return {Errc::kBusy,
          fmt::format("{}: busy, held by {}; waited {:.1f} s for it. If the holder is stopped or hangs, "
                      "continue or end it",
                      file_.string(), who, static_cast<double>(waited.count()) / 1000.0)};
}

}  // namespace tokcask
