// Preloaded into a test: the system seems to have pages of TOKCASK_TEST_PAGE bytes, so LMDB makes such pages.
// Large maps are aligned as such a system aligns them.
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>

namespace {

constexpr std::size_t kLarge = std::size_t{1} << 30;

long wanted() {
  static const long bytes = [] {
    const char* const given = getenv("TOKCASK_TEST_PAGE");
    return given == nullptr ? 4096L : atol(given);
  }();
  return bytes;
}

}  // namespace

extern "C" long sysconf(int name) noexcept {
  static const auto real = reinterpret_cast<long (*)(int)>(dlsym(RTLD_NEXT, "sysconf"));
  return name == _SC_PAGESIZE ? wanted() : real(name);
}

extern "C" void* mmap(void* at, std::size_t bytes, int protection, int flags, int fd, off_t offset) noexcept {
  static const auto real =
      reinterpret_cast<void* (*)(void*, std::size_t, int, int, int, off_t)>(dlsym(RTLD_NEXT, "mmap"));
  if (at == nullptr && bytes >= kLarge) {
    const auto page = static_cast<std::size_t>(wanted());
    void* const free =
        real(nullptr, bytes + page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (free != MAP_FAILED) {
      munmap(free, bytes + page);
      at = reinterpret_cast<void*>((reinterpret_cast<std::uintptr_t>(free) + page - 1) / page * page);
    }
  }
  return real(at, bytes, protection, flags, fd, offset);
}
