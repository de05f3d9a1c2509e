#include "record/parts.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include <tokcask/error.h>
#include <tokcask/parts.h>

namespace tokcask {

using record::PartRow;
using record::PartsHeader;

namespace {

// Well-formed: nothing overlong, no surrogates, nothing beyond U+10FFFF.
bool is_utf8(std::string_view text) noexcept {
  for (std::size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i++]);
    if (lead < 0x80) continue;
    const std::size_t more = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : 1;
    if (lead < 0xc2 || lead > 0xf4 || more > text.size() - i) return false;
    std::uint32_t code = lead & (0x3fU >> more);
    for (std::size_t k = 0; k < more; ++k, ++i) {
      const auto byte = static_cast<unsigned char>(text[i]);
      if ((byte & 0xc0) != 0x80) return false;
      code = code << 6 | (byte & 0x3fU);
    }
    constexpr std::uint32_t kLeast[] = {0, 0x80, 0x800, 0x10000};
    if (code < kLeast[more] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return false;
  }
  return true;
}

PartsHeader header_of(std::span<const std::byte> block) noexcept {
  PartsHeader header;
  std::memcpy(&header, block.data(), sizeof header);
  return header;
}

PartRow row_of(std::span<const std::byte> block, std::size_t index) noexcept {
  PartRow row;
  std::memcpy(&row, block.data() + sizeof(PartsHeader) + index * sizeof row, sizeof row);
  return row;
}

std::string_view name_of(std::span<const std::byte> block, const PartRow& row) noexcept {
  return {reinterpret_cast<const char*>(block.data()) + row.name_at, row.name_bytes};
}

// Bytes of one element; 0 for a kind that has none.
std::size_t element_of(const PartRow& row) noexcept {
  switch (static_cast<PartKind>(row.kind)) {
    case PartKind::kSpans:
      return sizeof(Span);
    case PartKind::kArray:
      return element_bytes(static_cast<ElementType>(row.type));
    case PartKind::kInteger:
    case PartKind::kReal:
      break;
  }
  return 0;
}

bool has_data(const PartRow& row) noexcept {
  return row.kind == static_cast<std::uint8_t>(PartKind::kSpans) ||
         row.kind == static_cast<std::uint8_t>(PartKind::kArray);
}

std::span<const std::byte> data_of(std::span<const std::byte> block, const PartRow& row) noexcept {
  return block.subspan(row.value.data.at, row.value.data.elements * element_of(row));
}

std::span<const Span> as_spans(std::span<const std::byte> data) noexcept {
  return {reinterpret_cast<const Span*>(data.data()), data.size() / sizeof(Span)};
}

// What is wrong with spans over `tokens` ids; null for nothing.
const char* spans_problem(std::span<const Span> spans, std::size_t tokens) noexcept {
  std::uint32_t end = 0;
  for (const Span& span : spans) {
    if (span.begin >= span.end) return "a span ends where it begins, or before";
    if (span.begin < end) return "spans overlap or are out of order";
    end = span.end;
  }
  return end > tokens ? "a span ends beyond the ids" : nullptr;
}

const char* name_problem(std::string_view name) noexcept {
  if (name.empty()) return "the name of a part is empty";
  if (name.size() > PartList::kMostNameBytes) return "the name of a part has more than 64 bytes";
  return is_utf8(name) ? nullptr : "the name of a part is not UTF-8";
}

// What is wrong with one row of a block; null for nothing.
const char* row_problem(std::span<const std::byte> block, const PartRow& row, std::size_t first,
                        std::size_t tokens) noexcept {
  if (row.kind < static_cast<std::uint8_t>(PartKind::kSpans) ||
      row.kind > static_cast<std::uint8_t>(PartKind::kArray))
    return "a part has an unknown kind";
  const bool is_array = row.kind == static_cast<std::uint8_t>(PartKind::kArray);
  if (is_array ? element_of(row) == 0 : row.type != 0) return "a part has an unknown type";
  if (row.name_at < first || row.name_at > block.size() || row.name_bytes > block.size() - row.name_at)
    return "the name of a part lies outside";
  if (const char* const problem = name_problem(name_of(block, row))) return problem;
  if (!has_data(row)) return nullptr;
  const std::size_t at = row.value.data.at;
  if (at < first || at > block.size() || at % 8 != 0 ||
      row.value.data.elements > (block.size() - at) / element_of(row))
    return "a part lies outside";
  return is_array ? nullptr : spans_problem(as_spans(data_of(block, row)), tokens);
}

Part part_of(std::span<const std::byte> block, const PartRow& row) noexcept {
  Part part;
  part.kind = static_cast<PartKind>(row.kind);
  part.name = name_of(block, row);
  switch (part.kind) {
    case PartKind::kSpans:
      part.spans = as_spans(data_of(block, row));
      break;
    case PartKind::kInteger:
      part.integer = row.value.integer;
      break;
    case PartKind::kReal:
      part.real = row.value.real;
      break;
    case PartKind::kArray:
      part.array = {static_cast<ElementType>(row.type), data_of(block, row)};
      break;
  }
  return part;
}

}  // namespace

std::size_t element_bytes(ElementType type) noexcept {
  switch (type) {
    case ElementType::kInt8:
    case ElementType::kUint8:
      return 1;
    case ElementType::kInt16:
    case ElementType::kFloat16:
      return 2;
    case ElementType::kInt32:
    case ElementType::kFloat32:
      return 4;
    case ElementType::kInt64:
      return 8;
  }
  return 0;
}

std::string_view to_string(ElementType type) noexcept {
  switch (type) {
    case ElementType::kInt8:
      return "int8";
    case ElementType::kUint8:
      return "uint8";
    case ElementType::kInt16:
      return "int16";
    case ElementType::kInt32:
      return "int32";
    case ElementType::kInt64:
      return "int64";
    case ElementType::kFloat16:
      return "float16";
    case ElementType::kFloat32:
      return "float32";
  }
  return "unknown";
}

// ---- PartList ----

std::optional<PartList> PartList::read(std::span<const std::byte> block, std::size_t tokens,
                                       const char** reason) noexcept {
  const auto fail = [&](const char* why) {
    *reason = why;
    return std::nullopt;
  };
  if (block.empty()) return PartList();
  if (block.size() < sizeof(PartsHeader) || block.size() % 8 != 0 ||
      reinterpret_cast<std::uintptr_t>(block.data()) % alignof(std::uint64_t) != 0)
    return fail("its parts have no header");
  const auto [bytes, count] = header_of(block);
  if (bytes != block.size()) return fail("its parts do not fit its size");
  const std::size_t first = sizeof(PartsHeader) + count * sizeof(PartRow);
  if (count == 0 || count > kMostParts || first > block.size())
    return fail("its parts are of a wrong number");
  std::pair<std::uint8_t, std::string_view> last;
  for (std::size_t i = 0; i < count; ++i) {
    const PartRow row = row_of(block, i);
    if (const char* const problem = row_problem(block, row, first, tokens)) return fail(problem);
    const std::pair name(row.kind, name_of(block, row));
    if (i > 0 && name <= last) return fail("its parts are out of order");
    last = name;
  }
  return PartList(block);
}

std::size_t PartList::size() const noexcept { return block_.empty() ? 0 : header_of(block_).count; }

Part PartList::operator[](std::size_t index) const noexcept { return part_of(block_, row_of(block_, index)); }

std::optional<Part> PartList::find(PartKind kind, std::string_view name) const noexcept {
  for (std::size_t i = 0; i < size(); ++i) {
    const PartRow row = row_of(block_, i);
    if (row.kind == static_cast<std::uint8_t>(kind) && name_of(block_, row) == name)
      return part_of(block_, row);
  }
  return std::nullopt;
}

std::optional<std::span<const Span>> PartList::spans(std::string_view name) const noexcept {
  const auto part = find(PartKind::kSpans, name);
  return part ? std::optional(part->spans) : std::nullopt;
}

std::optional<std::int64_t> PartList::integer(std::string_view name) const noexcept {
  const auto part = find(PartKind::kInteger, name);
  return part ? std::optional(part->integer) : std::nullopt;
}

std::optional<double> PartList::real(std::string_view name) const noexcept {
  const auto part = find(PartKind::kReal, name);
  return part ? std::optional(part->real) : std::nullopt;
}

std::optional<ArrayView> PartList::array(std::string_view name) const noexcept {
  const auto part = find(PartKind::kArray, name);
  return part ? std::optional(part->array) : std::nullopt;
}

std::size_t PartList::least_tokens() const noexcept {
  std::size_t least = 0;
  for (std::size_t i = 0; i < size(); ++i) {
    const Part part = (*this)[i];
    if (!part.spans.empty()) least = std::max<std::size_t>(least, part.spans.back().end);
  }
  return least;
}

// ---- Parts ----

Parts& Parts::add(PartKind kind, std::string_view name, ElementType type, std::span<const std::byte> value) {
  if (const char* const problem = name_problem(name)) throw Error(Errc::kInvalidArgument, problem);
  Name key(kind, name);
  if (!values_.contains(key) && values_.size() >= PartList::kMostParts) {
    throw Error(Errc::kInvalidArgument,
                fmt::format("an entry has at most {} parts; \"{}\" is one more", PartList::kMostParts, name));
  }
  values_[std::move(key)] = {type, {value.begin(), value.end()}};
  return *this;
}

Parts& Parts::spans(std::string_view name, std::span<const Span> spans) {
  if (const char* const problem = spans_problem(spans, ~std::uint32_t{0})) {
    throw Error(Errc::kInvalidArgument, fmt::format("spans \"{}\": {}", name, problem));
  }
  return add(PartKind::kSpans, name, {}, std::as_bytes(spans));
}

Parts& Parts::integer(std::string_view name, std::int64_t value) {
  return add(PartKind::kInteger, name, {}, std::as_bytes(std::span(&value, 1)));
}

Parts& Parts::real(std::string_view name, double value) {
  return add(PartKind::kReal, name, {}, std::as_bytes(std::span(&value, 1)));
}

Parts& Parts::array(std::string_view name, ElementType type, std::span<const std::byte> elements) {
  const std::size_t each = element_bytes(type);
  if (each == 0 || elements.size() % each != 0) {
    throw Error(Errc::kInvalidArgument,
                fmt::format("array \"{}\": {} bytes are no elements of its type", name, elements.size()));
  }
  return add(PartKind::kArray, name, type, elements);
}

PartList Parts::list() & {
  if (values_.empty()) return {};
  const auto is_number = [](PartKind kind) { return kind == PartKind::kInteger || kind == PartKind::kReal; };
  std::size_t size = sizeof(PartsHeader) + values_.size() * sizeof(PartRow);
  std::size_t names = 0;
  for (const auto& [name, value] : values_) {
    if (!is_number(name.first)) size += (value.bytes.size() + 7) / 8 * 8;
    names += name.second.size();
  }
  const std::size_t bytes = (size + names + 7) / 8 * 8;
  if (bytes > record::kMaxPartsBytes) {
    throw Error(Errc::kInvalidArgument, fmt::format("the parts have {} bytes; an entry has at most {}", bytes,
                                                    record::kMaxPartsBytes));
  }
  block_.assign(bytes / 8, 0);
  const std::span<std::byte> block = std::as_writable_bytes(std::span(block_));
  const PartsHeader header{static_cast<std::uint32_t>(bytes), static_cast<std::uint32_t>(values_.size())};
  std::memcpy(block.data(), &header, sizeof header);
  std::size_t at = sizeof header;
  std::size_t data = at + values_.size() * sizeof(PartRow);
  std::size_t name_at = size;
  for (const auto& [name, value] : values_) {
    PartRow row;
    row.kind = static_cast<std::uint8_t>(name.first);
    row.type = static_cast<std::uint8_t>(value.type);
    row.name_bytes = static_cast<std::uint16_t>(name.second.size());
    row.name_at = static_cast<std::uint32_t>(name_at);
    if (is_number(name.first)) {
      std::memcpy(&row.value, value.bytes.data(), sizeof row.value);
    } else {
      row.value.data = {static_cast<std::uint32_t>(data),
                        static_cast<std::uint32_t>(value.bytes.size() / element_of(row))};
      if (!value.bytes.empty()) std::memcpy(block.data() + data, value.bytes.data(), value.bytes.size());
      data += (value.bytes.size() + 7) / 8 * 8;
    }
    std::memcpy(block.data() + at, &row, sizeof row);
    std::memcpy(block.data() + name_at, name.second.data(), name.second.size());
    at += sizeof row;
    name_at += name.second.size();
  }
  return PartList(block);
}

}  // namespace tokcask
