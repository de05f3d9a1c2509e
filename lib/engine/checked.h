// Which records this process has checked: by slot, the low half of the generation that was found to be right.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <memory>

#include "record/record.h"

namespace tokcask {

// Threads: all members may be called concurrently.
class CheckedTable {
 public:
  CheckedTable() = default;
  ~CheckedTable() {
    for (auto& chunk : chunks_) std::free(chunk.load());
  }
  CheckedTable(const CheckedTable&) = delete;
  CheckedTable& operator=(const CheckedTable&) = delete;

  [[nodiscard]] bool knows(const record::Header& header) const noexcept {
    std::uint32_t* const chunk = chunks_[header.slot / kPerChunk].load(std::memory_order_acquire);
    return chunk != nullptr && std::atomic_ref(chunk[header.slot % kPerChunk]).load(kRelaxed) == mark(header);
  }

  // Forgets what it knew of the slot. Without memory for the slot it remembers nothing.
  void remember(const record::Header& header) noexcept {
    auto& place = chunks_[header.slot / kPerChunk];
    std::uint32_t* chunk = place.load(std::memory_order_acquire);
    if (chunk == nullptr) {
      // Zeros of the system's, so that only those that are used take memory.
      auto* const made = static_cast<std::uint32_t*>(std::calloc(kPerChunk, sizeof(std::uint32_t)));
      if (made == nullptr) return;
      if (place.compare_exchange_strong(chunk, made, std::memory_order_acq_rel)) {
        chunk = made;
      } else {
        std::free(made);
      }
    }
    std::atomic_ref(chunk[header.slot % kPerChunk]).store(mark(header), kRelaxed);
  }

 private:
  static constexpr auto kRelaxed = std::memory_order_relaxed;
  static constexpr std::uint32_t kPerChunk = std::uint32_t{1} << 20;
  static constexpr std::size_t kChunks = (std::uint64_t{1} << 32) / kPerChunk;

  // Never 0, which stands for none: generations count from 1, and one in 2^32 is checked each time.
  static std::uint32_t mark(const record::Header& header) noexcept {
    return static_cast<std::uint32_t>(header.generation);
  }

  std::array<std::atomic<std::uint32_t*>, kChunks> chunks_{};
};

}  // namespace tokcask
