// Parts: what an entry has beside its ids. Each part has a kind and a name, and each kind has names of its
// own.
//
//   spans    sorted pairs (begin, end) over the ids, which do not overlap: what the assistant wrote, where
//   the
//            chosen answer lies, where an image goes
//   number   one integer (int64) or real number (double): a label, a margin, the length of a prompt
//   array    1-D, of its own length: weights, log-probabilities, token types, offsets
//
// A list of parts is one block of bytes that is never changed: as it lies in a record, and as Parts builds
// it. So nothing is copied or parsed when an entry is read, and a list that was read can be put as it is.
//
//   tokcask::Parts parts;
//   parts.spans("assistant", {{3, 9}, {14, 20}}).integer("label", 1);
//   cache.put(key, {.input_ids = ids, .parts = parts.list()});
//   ...
//   if (const auto hit = cache.get(key))
//     if (const auto spans = hit->parts().spans("assistant")) train(hit->input_ids(), *spans);
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <tokcask/export.h>

namespace tokcask {

// Ids from begin up to, and without, end.
struct Span {
  std::uint32_t begin = 0;
  std::uint32_t end = 0;
  [[nodiscard]] std::uint32_t size() const noexcept { return end - begin; }
  friend bool operator==(const Span&, const Span&) = default;
};

enum class PartKind : std::uint8_t { kSpans = 1, kInteger = 2, kReal = 3, kArray = 4 };

// Of an array. kFloat16 is IEEE 754's binary16.
enum class ElementType : std::uint8_t {
  kInt8 = 1,
  kUint8 = 2,
  kInt16 = 3,
  kInt32 = 4,
  kInt64 = 5,
  kFloat16 = 6,
  kFloat32 = 7
};
// 0 for a value that no type has.
[[nodiscard]] TOKCASK_API std::size_t element_bytes(ElementType type) noexcept;

// "int8" and so on.
[[nodiscard]] TOKCASK_API std::string_view to_string(ElementType type) noexcept;

// The elements of an array, borrowed; at a multiple of 8 bytes.
struct ArrayView {
  ElementType type = ElementType::kInt8;
  std::span<const std::byte> bytes;
  [[nodiscard]] std::size_t size() const noexcept { return bytes.size() / element_bytes(type); }
};

// Borrowed: it is valid as long as the block is.
struct Part {
  PartKind kind = PartKind::kSpans;
  std::string_view name;  // UTF-8
  std::span<const Span> spans;
  std::int64_t integer = 0;
  double real = 0;
  ArrayView array;
};

// A list of parts, by kind and then by name. A pointer to a block that somebody else owns; cheap to copy.
// Threads: immutable.
class TOKCASK_API PartList {
 public:
  static constexpr std::size_t kMostParts = 64;
  static constexpr std::size_t kMostNameBytes = 64;

  // No parts.
  PartList() noexcept = default;

  // The list that these bytes are, of an entry with `tokens` ids; or nothing, and why in `*reason`. Looks at
  // nothing outside of `block`.
  static std::optional<PartList> read(std::span<const std::byte> block, std::size_t tokens,
                                      const char** reason) noexcept;

  [[nodiscard]] std::size_t size() const noexcept;
  [[nodiscard]] bool empty() const noexcept { return block_.empty(); }
  [[nodiscard]] Part operator[](std::size_t index) const noexcept;

  // The part of this kind and name, if there is one.
  [[nodiscard]] std::optional<std::span<const Span>> spans(std::string_view name) const noexcept;
  [[nodiscard]] std::optional<std::int64_t> integer(std::string_view name) const noexcept;
  [[nodiscard]] std::optional<double> real(std::string_view name) const noexcept;
  [[nodiscard]] std::optional<ArrayView> array(std::string_view name) const noexcept;

  // The block; empty without parts.
  [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return block_; }
  // The last id that a span needs: the ids must be at least so many.
  [[nodiscard]] std::size_t least_tokens() const noexcept;

 private:
  friend class Parts;
  explicit PartList(std::span<const std::byte> block) noexcept : block_(block) {}
  [[nodiscard]] std::optional<Part> find(PartKind kind, std::string_view name) const noexcept;

  std::span<const std::byte> block_;
};

// Builds a list. Each call throws Error(kInvalidArgument), and changes nothing, for a name that is empty,
// longer than PartList::kMostNameBytes or no UTF-8; for more than PartList::kMostParts parts; and for spans
// that are empty, overlap, or are out of order. A name that is there already is replaced.
class TOKCASK_API Parts {
 public:
  Parts& spans(std::string_view name, std::span<const Span> spans);
  Parts& spans(std::string_view name, std::initializer_list<Span> spans) {
    return this->spans(name, std::span(spans.begin(), spans.size()));
  }
  Parts& integer(std::string_view name, std::int64_t value);
  Parts& real(std::string_view name, double value);
  // Copies the elements.
  Parts& array(std::string_view name, ElementType type, std::span<const std::byte> elements);

  // Valid until the next call of the builder or its end. Error(kInvalidArgument) when all together are more
  // than 1 GiB.
  [[nodiscard]] PartList list() &;

 private:
  using Name = std::pair<PartKind, std::string>;
  struct Value {
    ElementType type{};
    std::vector<std::byte> bytes;
  };
  Parts& add(PartKind kind, std::string_view name, ElementType type, std::span<const std::byte> value);

  std::map<Name, Value> values_;
  std::vector<std::uint64_t> block_;
};

}  // namespace tokcask
