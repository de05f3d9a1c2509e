// The loops that write int64 arrays, compiled for each kind of vector that the CPU may have.
//
// Chosen when the program runs, by a table of pointers and not by ifuncs, which sanitizers do not get along
// with. Plain loops: the compiler makes better use of registers than we would, and there is nothing to get
// wrong. Measured on Zen 4 with 1 MiB of output: 1.2 to 2 times memcpy's bandwidth by bytes written. Stores
// around the cache reached less than half of that, and only paid for arrays larger than the last level.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tokcask::collate {

// None of them reads or writes anything for n == 0, and pointers may then be null.
struct Loops {
  void (*widen)(const std::int32_t* from, std::size_t n, std::int64_t* to);
  // The same, with `instead` for each element that equals `token`.
  void (*widen_except)(const std::int32_t* from, std::size_t n, std::int64_t* to, std::int64_t token,
                       std::int64_t instead);
  void (*fill)(std::int64_t* to, std::size_t n, std::int64_t value);
  // 0, 1, 2, ...
  void (*count)(std::int64_t* to, std::size_t n);
};

enum class Vectors { kPortable, kAvx2, kAvx512 };

// Null where the CPU has no such vectors.
[[nodiscard]] const Loops* loops_for(Vectors vectors) noexcept;

// The best that the CPU has.
[[nodiscard]] const Loops& loops() noexcept;

}  // namespace tokcask::collate
