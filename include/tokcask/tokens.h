// Tokens on their way in and out of a cache.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include <tokcask/export.h>

namespace tokcask {

// What put() takes: borrowed arrays, copied before put() returns. An empty attention_mask means all ones;
// otherwise it has the length of input_ids. Zero tokens is legal: an empty section is an entry.
struct Tokens {
  std::span<const std::int32_t> input_ids;
  std::span<const std::int32_t> attention_mask = {};
};

// What get() returns: read-only arrays that lie in the memory map, without a copy.
//
// Lifetime: a view owns a share of the database snapshot it points into. Its bytes stay valid and unchanged
// for as long as any copy of the view lives, whatever is put, evicted, cleared or closed meanwhile; the
// price is that the pages of that snapshot cannot be reused until the last view of it is dropped. A view
// of an entry that is put but not yet committed points into the pending batch (heap) and holds that alive.
// After fork() a view made by the parent stays readable in the child for as long as the parent holds it.
//
// Alignment: input_ids starts at a multiple of 8 bytes always, of 64 bytes when the record is too large to
// be stored inside a B-tree page (about 480 tokens and more).
//
// Threads: a view may be copied, read and dropped in any thread.
class TOKCASK_API TokenView {
 public:
  [[nodiscard]] std::span<const std::int32_t> input_ids() const noexcept { return ids_; }
  // Ones for every token unless an irregular mask was stored. The ones come from one array shared by all.
  [[nodiscard]] std::span<const std::int32_t> attention_mask() const noexcept { return mask_; }
  [[nodiscard]] std::size_t size() const noexcept { return ids_.size(); }
  // True when attention_mask() is the shared array of ones.
  [[nodiscard]] bool mask_is_all_ones() const noexcept { return ones_; }
  // What keeps the bytes alive; share it to outlive the view itself.
  [[nodiscard]] const std::shared_ptr<const void>& owner() const noexcept { return owner_; }

  TokenView(std::span<const std::int32_t> ids, std::span<const std::int32_t> mask, bool ones,
            std::shared_ptr<const void> owner) noexcept
      : ids_(ids), mask_(mask), ones_(ones), owner_(std::move(owner)) {}

 private:
  std::span<const std::int32_t> ids_;
  std::span<const std::int32_t> mask_;
  bool ones_;
  std::shared_ptr<const void> owner_;
};

// `count` ones, from an array that lives as long as the process. Thread-safe.
[[nodiscard]] TOKCASK_API std::span<const std::int32_t> all_ones(std::size_t count);

}  // namespace tokcask
