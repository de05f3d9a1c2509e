#include "collate/widen.h"

#include <algorithm>

namespace tokcask::collate {
namespace {

// Inlined into functions for each kind of vector, and so compiled for each.
#define TOKCASK_LOOP [[gnu::always_inline]] inline

// Calls part(first, count) for what precedes a multiple of 64 bytes in `to`, then for the rest. Stores that
// straddle cache lines cost a tenth.
template <typename Part>
TOKCASK_LOOP void aligned(const std::int64_t* to, std::size_t n, const Part& part) {
  constexpr std::size_t kLine = 64 / sizeof(std::int64_t);
  const std::size_t misplaced = reinterpret_cast<std::uintptr_t>(to) / sizeof(std::int64_t) % kLine;
  const std::size_t head = std::min(n, (kLine - misplaced) % kLine);
  part(std::size_t{0}, head);
  part(head, n);
}

TOKCASK_LOOP void widen(const std::int32_t* __restrict from, std::size_t n, std::int64_t* __restrict to) {
  aligned(to, n, [=](std::size_t i, std::size_t end) __attribute__((always_inline)) {
    for (; i < end; ++i) to[i] = from[i];
  });
}

TOKCASK_LOOP void widen_except(const std::int32_t* __restrict from, std::size_t n,
                               std::int64_t* __restrict to, std::int64_t token, std::int64_t instead) {
  aligned(to, n, [=](std::size_t i, std::size_t end) __attribute__((always_inline)) {
    for (; i < end; ++i) to[i] = from[i] == token ? instead : from[i];
  });
}

TOKCASK_LOOP void fill(std::int64_t* to, std::size_t n, std::int64_t value) {
  aligned(to, n, [=](std::size_t i, std::size_t end) __attribute__((always_inline)) {
    for (; i < end; ++i) to[i] = value;
  });
}

TOKCASK_LOOP void count(std::int64_t* to, std::size_t n) {
  aligned(to, n, [=](std::size_t i, std::size_t end) __attribute__((always_inline)) {
    for (; i < end; ++i) to[i] = static_cast<std::int64_t>(i);
  });
}

#undef TOKCASK_LOOP

// A table of the loops above, in functions with the given attributes, which cannot stand in parentheses.
// NOLINTBEGIN(bugprone-macro-parentheses)
#define TOKCASK_LOOPS(name, attributes)                                                             \
  struct name {                                                                                     \
    attributes static void widen_(const std::int32_t* from, std::size_t n, std::int64_t* to) {      \
      widen(from, n, to);                                                                           \
    }                                                                                               \
    attributes static void widen_except_(const std::int32_t* from, std::size_t n, std::int64_t* to, \
                                         std::int64_t token, std::int64_t instead) {                \
      widen_except(from, n, to, token, instead);                                                    \
    }                                                                                               \
    attributes static void fill_(std::int64_t* to, std::size_t n, std::int64_t value) {             \
      fill(to, n, value);                                                                           \
    }                                                                                               \
    attributes static void count_(std::int64_t* to, std::size_t n) { count(to, n); }                \
    static constexpr Loops kLoops{widen_, widen_except_, fill_, count_};                            \
  }

TOKCASK_LOOPS(Portable, );
#if defined(__x86_64__)
TOKCASK_LOOPS(Avx2, __attribute__((target("avx2"))));
TOKCASK_LOOPS(Avx512, __attribute__((target("avx512f"))));
#endif

#undef TOKCASK_LOOPS
// NOLINTEND(bugprone-macro-parentheses)

}  // namespace

const Loops* loops_for(Vectors vectors) noexcept {
  switch (vectors) {
    case Vectors::kPortable:
      return &Portable::kLoops;
#if defined(__x86_64__)
    case Vectors::kAvx2:
      return __builtin_cpu_supports("avx2") ? &Avx2::kLoops : nullptr;
    case Vectors::kAvx512:
      return __builtin_cpu_supports("avx512f") ? &Avx512::kLoops : nullptr;
#else
    case Vectors::kAvx2:
    case Vectors::kAvx512:
      return nullptr;
#endif
  }
  return nullptr;
}

const Loops& loops() noexcept {
  static const Loops& best = []() -> const Loops& {
    for (const Vectors vectors : {Vectors::kAvx512, Vectors::kAvx2}) {
      if (const Loops* found = loops_for(vectors)) return *found;
    }
    return *loops_for(Vectors::kPortable);
  }();
  return best;
}

}  // namespace tokcask::collate
