// The rows of the run table (run_table.h), as they lie in shared memory.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "shm/run_table.h"

namespace tokcask::shm {

inline constexpr std::size_t kShaWords = 8;
// Ids are 56 bits wide in the store.
inline constexpr std::uint64_t kMaxId = (std::uint64_t{1} << 56) - 1;

// Flags of a run.
inline constexpr std::uint32_t kKilled = 1;
inline constexpr std::uint32_t kSeveral = 2;
inline constexpr std::uint32_t kNamed = 4;  // tokenizer and length are there

struct RunTable::MemberRow {
  std::atomic<std::uint64_t> owner;
  std::uint64_t zero0;
  std::atomic<std::uint64_t> run_started;
  std::atomic<std::uint64_t> run_row;
  Counters counters;
  std::atomic<std::uint64_t> unprotected;
  std::uint64_t zero[3];
};

struct RunTable::RunRow {
  std::atomic<std::uint64_t> id;
  std::atomic<std::uint64_t> started;
  std::atomic<std::uint64_t> ended;
  std::atomic<std::uint32_t> flags;
  std::atomic<std::uint32_t> sequence_len;
  Counters sums;
  std::atomic<std::uint64_t> bytes_after;
  std::atomic<std::uint64_t> founder;
  std::uint64_t zero0;
  std::atomic<std::uint64_t> closed;
  std::array<std::atomic<std::uint64_t>, kShaWords> tokenizer_sha;
  std::atomic<std::uint64_t> saved;
  std::uint64_t zero[7];
};

inline std::uint64_t load(const std::atomic<std::uint64_t>& word) noexcept {
  return word.load(std::memory_order_relaxed);
}
inline void set(std::atomic<std::uint64_t>& word, std::uint64_t value) noexcept {
  word.store(value, std::memory_order_relaxed);
}

}  // namespace tokcask::shm
