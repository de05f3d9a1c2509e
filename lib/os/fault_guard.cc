#include "os/fault_guard.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <utility>

namespace tokcask::os {

namespace {

constexpr std::size_t kMostRanges = 1024;
// Replaced at once. A process may have some 65,000 mappings, and each time makes one.
constexpr std::size_t kPagesAtOnce = 64;
// Of a fault that is not ours, at the same address: then handlers call each other in a circle.
constexpr unsigned kMostRepeats = 16;

}  // namespace

// Written before `begin` is, and only when `begin` is 0.
struct FaultGuard::Range {
  std::atomic<std::uintptr_t> begin{0};  // 0: free; 1: being made
  std::atomic<std::uintptr_t> end{0};
  std::atomic<bool> hit{false};
  int protection = 0;
  std::span<const std::byte> head;
  std::byte fill{0};
};

// Of static storage: the handler may run at any time, also while the process ends.
struct Handler {
  static inline std::array<FaultGuard::Range, kMostRanges> ranges;
  static inline std::atomic<std::size_t> used{0};  // ranges that were ever in use
  static inline struct sigaction before{};
  static inline const std::size_t page_bytes = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  static inline std::mutex setting;
  static inline std::atomic<std::uintptr_t> last_foreign{0};
  static inline std::atomic<unsigned> repeats{0};

  // All that is called is async-signal-safe, or a bare system call.
  static bool replace(FaultGuard::Range& range, std::uintptr_t address) noexcept {
    const std::uintptr_t from = address / page_bytes * page_bytes;
    const std::uintptr_t end =
        std::min(from + kPagesAtOnce * page_bytes, range.end.load(std::memory_order_relaxed));
    // Made elsewhere and then moved into place, so that no thread sees it half made.
    void* const made = mmap(nullptr, end - from, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (made == MAP_FAILED) return false;
    auto* const bytes = static_cast<std::byte*>(made);
    for (std::uintptr_t at = 0; at < end - from; at += page_bytes) {
      std::memset(bytes + at, static_cast<int>(range.fill), page_bytes);
      if (!range.head.empty()) std::memcpy(bytes + at, range.head.data(), range.head.size());
    }
    range.hit.store(true, std::memory_order_release);
    if (mprotect(made, end - from, range.protection) == 0 &&
        mremap(made, end - from, end - from, MREMAP_MAYMOVE | MREMAP_FIXED, from) != MAP_FAILED) {
      return true;
    }
    munmap(made, end - from);
    return false;
  }

  static bool mend(const siginfo_t& info) noexcept {
    if (info.si_code != BUS_ADRERR) return false;
    const auto address = reinterpret_cast<std::uintptr_t>(info.si_addr);
    const std::size_t count = used.load(std::memory_order_acquire);
    for (std::size_t i = 0; i < count; ++i) {
      FaultGuard::Range& range = ranges[i];
      const std::uintptr_t begin = range.begin.load(std::memory_order_acquire);
      if (begin > 1 && address >= begin && address < range.end.load(std::memory_order_relaxed))
        return replace(range, address);
    }
    return false;
  }

  static void on_fault(int signal, siginfo_t* info, void* context) noexcept {
    const int error = errno;
    const bool mended = mend(*info);
    errno = error;
    if (mended) return;
    const std::uintptr_t where = info->si_code > 0 ? reinterpret_cast<std::uintptr_t>(info->si_addr) : 0;
    if (last_foreign.exchange(where) != where) repeats = 0;
    const bool in_a_circle = ++repeats > kMostRepeats;
    if (in_a_circle) {
      end(signal, *info);
    } else if ((before.sa_flags & SA_SIGINFO) != 0) {
      before.sa_sigaction(signal, info, context);
    } else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) {
      before.sa_handler(signal);
    } else {
      end(signal, *info);
    }
  }

  // The touch happens again, and then ends the process. What was sent by kill(2) has to be sent again.
  static void end(int signal, const siginfo_t& info) noexcept {
    struct sigaction by_default{};
    by_default.sa_handler = SIG_DFL;
    sigaction(signal, &by_default, nullptr);
    if (info.si_code <= 0) raise(signal);
  }

  static bool set() noexcept {
    // Another thread is at it; or was, in the parent, when this process was forked.
    const std::unique_lock lock(setting, std::try_to_lock);
    if (!lock) return true;
    struct sigaction current{};
    if (sigaction(SIGBUS, nullptr, &current) != 0) return false;
    if ((current.sa_flags & SA_SIGINFO) != 0 && current.sa_sigaction == &on_fault) return true;
    before = current;
    struct sigaction ours{};
    ours.sa_sigaction = &on_fault;
    ours.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&ours.sa_mask);
    return sigaction(SIGBUS, &ours, nullptr) == 0;
  }

  static FaultGuard::Range* take() noexcept {
    for (std::size_t i = 0; i < kMostRanges; ++i) {
      std::uintptr_t free = 0;
      if (!ranges[i].begin.compare_exchange_strong(free, 1)) continue;
      std::size_t known = used.load();
      while (known <= i && !used.compare_exchange_weak(known, i + 1)) continue;
      return &ranges[i];
    }
    return nullptr;
  }
};

FaultGuard::FaultGuard(const void* base, std::size_t size, int protection, std::span<const std::byte> head,
                       std::byte fill) noexcept {
  if (size == 0 || !Handler::set()) return;
  range_ = Handler::take();
  if (range_ == nullptr) return;
  const auto begin = reinterpret_cast<std::uintptr_t>(base);
  const std::uintptr_t pages = (size + Handler::page_bytes - 1) / Handler::page_bytes;
  range_->protection = protection;
  range_->head = head.first(std::min(head.size(), Handler::page_bytes));
  range_->fill = fill;
  range_->hit.store(false, std::memory_order_relaxed);
  range_->end.store(begin + pages * Handler::page_bytes, std::memory_order_relaxed);
  range_->begin.store(begin, std::memory_order_release);
}

FaultGuard::~FaultGuard() {
  if (range_ != nullptr) range_->begin.store(0, std::memory_order_release);
}

FaultGuard::FaultGuard(FaultGuard&& other) noexcept : range_(std::exchange(other.range_, nullptr)) {}

FaultGuard& FaultGuard::operator=(FaultGuard&& other) noexcept {
  std::swap(range_, other.range_);
  return *this;
}

bool FaultGuard::hit() const noexcept {
  return range_ != nullptr && range_->hit.load(std::memory_order_acquire);
}

}  // namespace tokcask::os
