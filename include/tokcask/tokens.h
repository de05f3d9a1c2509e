// Tokens on their way in and out of a cache.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>

#include <tokcask/export.h>
#include <tokcask/parts.h>

namespace tokcask {

// What put() takes: borrowed arrays, copied before put() returns. An empty attention_mask means all ones;
// otherwise it has the length of input_ids. Zero tokens is legal: an empty section is an entry. No span of
// the parts may end beyond the ids.
struct Tokens {
  std::span<const std::int32_t> input_ids;
  std::span<const std::int32_t> attention_mask = {};
  PartList parts = {};
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
  [[nodiscard]] std::span<const std::int32_t> input_ids() const& noexcept TOKCASK_LIFETIMEBOUND {
    return ids_;
  }
  // Ones for every token unless an irregular mask was stored. The ones come from one array shared by all.
  [[nodiscard]] std::span<const std::int32_t> attention_mask() const& noexcept TOKCASK_LIFETIMEBOUND {
    return mask_;
  }
  // A view without a name is gone at the end of the statement, and its tokens with it. Give it one.
  void input_ids() const&& = delete;
  void attention_mask() const&& = delete;
  // What the entry has beside its ids; its bytes live as long as theirs.
  [[nodiscard]] const PartList& parts() const& noexcept TOKCASK_LIFETIMEBOUND { return parts_; }
  void parts() const&& = delete;
  // The ids of one span.
  [[nodiscard]] std::span<const std::int32_t> ids_of(const Span& span) const& noexcept TOKCASK_LIFETIMEBOUND {
    return ids_.subspan(span.begin, span.size());
  }
  // All of it, to be put elsewhere; a mask of ones is left out.
  [[nodiscard]] Tokens tokens() const& noexcept TOKCASK_LIFETIMEBOUND {
    return {ids_, ones_ ? std::span<const std::int32_t>() : mask_, parts_};
  }
  void tokens() const&& = delete;
  [[nodiscard]] std::size_t size() const noexcept { return ids_.size(); }
  // True when attention_mask() is the shared array of ones.
  [[nodiscard]] bool mask_is_all_ones() const noexcept { return ones_; }
  // What keeps the bytes alive; share it to outlive the view itself.
  [[nodiscard]] const std::shared_ptr<const void>& owner() const& noexcept TOKCASK_LIFETIMEBOUND {
    return owner_;
  }
  [[nodiscard]] std::shared_ptr<const void> owner() && noexcept { return std::move(owner_); }

  TokenView(std::span<const std::int32_t> ids, std::span<const std::int32_t> mask, bool ones,
            std::shared_ptr<const void> owner, PartList parts = {}) noexcept
      : ids_(ids), mask_(mask), parts_(parts), ones_(ones), owner_(std::move(owner)) {}

 private:
  std::span<const std::int32_t> ids_;
  std::span<const std::int32_t> mask_;
  PartList parts_;
  bool ones_;
  std::shared_ptr<const void> owner_;
};

// What a look-up gives: a view, or nothing. A std::optional<TokenView>, and becomes one, but for this: it
// must have a name before its view is used.
//
//   if (const auto hit = cache.get(key)) use(hit->input_ids());
//   auto ids = cache.get(key)->input_ids();  // does not compile: the view is gone, and its tokens may change
class FoundTokens : public std::optional<TokenView> {
  using Optional = std::optional<TokenView>;

 public:
  using Optional::Optional;
  FoundTokens(Optional found) noexcept : Optional(std::move(found)) {}

  const TokenView* operator->() const& noexcept TOKCASK_LIFETIMEBOUND { return Optional::operator->(); }
  void operator->() const&& = delete;
  const TokenView& operator*() const& noexcept TOKCASK_LIFETIMEBOUND { return Optional::operator*(); }
  const TokenView& value() const& TOKCASK_LIFETIMEBOUND { return Optional::value(); }
  // The view itself, which the caller keeps.
  TokenView operator*() && noexcept { return *static_cast<Optional&&>(*this); }
  TokenView value() && { return static_cast<Optional&&>(*this).value(); }
};

// `count` ones, from an array that lives as long as the process. Thread-safe.
[[nodiscard]] TOKCASK_API std::span<const std::int32_t> all_ones(std::size_t count);

}  // namespace tokcask
