#include "collate/rows.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>

#include <tokcask/error.h>

#include "collate/widen.h"

namespace tokcask::collate {

std::size_t round_up(std::size_t n, std::size_t multiple_of) {
  if (multiple_of == 0) throw Error(Errc::kInvalidArgument, "padding to a multiple of 0");
  const std::size_t missing = (multiple_of - n % multiple_of) % multiple_of;
  std::size_t rounded = 0;
  if (__builtin_add_overflow(n, missing, &rounded)) {
    throw Error(Errc::kInvalidArgument,
                fmt::format("{} padded to a multiple of {} is too many", n, multiple_of));
  }
  return rounded;
}

std::vector<Row> taken(std::span<const Tokens> rows, const Padding& padding) {
  std::vector<Row> all;
  all.reserve(rows.size());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const std::size_t ids = rows[i].input_ids.size();
    const std::size_t mask = rows[i].attention_mask.size();
    if (mask != 0 && mask != ids) {
      throw Error(
          Errc::kInvalidArgument,
          fmt::format("attention_mask of row {} has {} elements, but its input_ids has {}", i, mask, ids));
    }
    Row& row = all.emplace_back(rows[i].input_ids, rows[i].attention_mask, rows[i].parts, 0);
    if (padding.max_tokens == 0 || ids <= padding.max_tokens) continue;
    if (padding.keep_end) row.begin = ids - padding.max_tokens;
    row.ids = row.ids.subspan(row.begin, padding.max_tokens);
    if (mask != 0) row.mask = row.mask.subspan(row.begin, padding.max_tokens);
  }
  return all;
}

namespace {

std::string names_of(const PartList& parts) {
  std::string names;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    names += fmt::format("{}\"{}\"", names.empty() ? "" : ", ", parts[i].name);
  }
  return names.empty() ? "none" : names;
}

bool is_integer(ElementType type) { return type != ElementType::kFloat16 && type != ElementType::kFloat32; }

// The name of the part that is meant.
std::string_view meant(const PartList& parts, std::string_view name) {
  if (name != "completion" || parts.spans(name) || parts.integer(name) || parts.array(name)) return name;
  return "prompt_length";
}

void check_has(const PartList& parts, std::string_view asked, std::size_t i) {
  const std::string_view name = meant(parts, asked);
  if (parts.spans(name) || parts.integer(name)) return;
  const auto array = parts.array(name);
  if (!array) {
    throw Error(Errc::kInvalidArgument,
                fmt::format("row {} has no part \"{}\", by which the loss is to go; it has {}", i, asked,
                            names_of(parts)));
  }
  if (!is_integer(array->type)) {
    throw Error(Errc::kInvalidArgument,
                fmt::format("\"{}\" of row {} holds no integers, so it cannot be labels", name, i));
  }
}

template <typename T>
void copy_elements(std::span<const std::byte> bytes, std::size_t first, std::size_t n, std::int64_t* to) {
  const T* const from = reinterpret_cast<const T*>(bytes.data()) + first;
  std::copy_n(from, n, to);
}

// Its elements from `first` on.
void write_array(const ArrayView& array, std::size_t first, std::size_t n, std::int64_t* to) {
  switch (array.type) {
    case ElementType::kInt8:
      return copy_elements<std::int8_t>(array.bytes, first, n, to);
    case ElementType::kUint8:
      return copy_elements<std::uint8_t>(array.bytes, first, n, to);
    case ElementType::kInt16:
      return copy_elements<std::int16_t>(array.bytes, first, n, to);
    case ElementType::kInt32:
      return copy_elements<std::int32_t>(array.bytes, first, n, to);
    case ElementType::kInt64:
      return copy_elements<std::int64_t>(array.bytes, first, n, to);
    case ElementType::kFloat16:
    case ElementType::kFloat32:
      break;  // refused by check_has()
  }
}

// What a row's part says of its tokens, for [0, n) of those that are taken: calls learned(begin, end) and
// ignored(begin, end) for ranges that follow one another.
template <typename Learned, typename Ignored>
void for_each_range(std::string_view asked, const Row& row, const Learned& learned, const Ignored& ignored) {
  const std::string_view name = meant(row.parts, asked);
  const std::size_t n = row.ids.size();
  // Places in the whole, as they lie in what is taken.
  const auto place = [&](std::size_t whole) {
    return std::clamp(whole, row.begin, row.begin + n) - row.begin;
  };
  std::size_t at = 0;
  if (const auto spans = row.parts.spans(name)) {
    for (const Span& span : *spans) {
      const std::size_t begin = place(span.begin);
      ignored(at, begin);
      at = place(span.end);
      learned(begin, at);
    }
    ignored(at, n);
    return;
  }
  if (const auto prompt = row.parts.integer(name)) {
    at = place(static_cast<std::size_t>(std::max<std::int64_t>(*prompt, 0)));
    ignored(0, at);
  }
  learned(at, n);
}

}  // namespace

void check_loss(std::span<const Row> rows, const Padding& padding) {
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const PartList& parts = rows[i].parts;
    if (padding.loss) {
      for (const std::string_view name : *padding.loss) {
        check_has(parts, name, i);
        const auto array = parts.array(name);
        if (array && array->size() < rows[i].begin + rows[i].ids.size()) {
          throw Error(Errc::kInvalidArgument,
                      fmt::format("\"{}\" of row {} has {} elements, but its input_ids has more", name, i,
                                  array->size()));
        }
      }
      continue;
    }
    for (std::size_t k = 0; k < parts.size(); ++k) {
      const Part part = parts[k];
      if (part.kind != PartKind::kSpans && !(part.kind == PartKind::kArray && part.name == "labels"))
        continue;
      throw Error(
          Errc::kInvalidArgument,
          fmt::format(
              "row {} has parts that may decide what is learned ({}); name those that do as the loss, "
              "or choose all tokens",
              i, names_of(parts)));
    }
  }
}

void check_size(const char* name, std::size_t size, std::size_t rows, std::size_t columns) {
  if (size == 0) return;
  std::size_t wanted = 0;
  if (__builtin_mul_overflow(rows, columns, &wanted) || size != wanted) {
    throw Error(Errc::kInvalidArgument,
                fmt::format("{} has {} elements, but must have {} x {}", name, size, rows, columns));
  }
}

void fetch_ahead(const Row& row) noexcept {
  constexpr std::size_t kLineIds = 64 / sizeof(std::int32_t);
  constexpr int kToRead = 0;
  constexpr int kIntoSecondLevel = 2;
  const std::int32_t* const ids = row.ids.data();
  for (std::size_t at = 0; at < row.ids.size(); at += kLineIds) {
    __builtin_prefetch(ids + at, kToRead, kIntoSecondLevel);
  }
}

void write_labels(const Row& row, std::size_t ignored, const Padding& padding, std::int64_t* to) {
  const std::size_t n = row.ids.size();
  const auto names = padding.loss.value_or(std::span<const std::string_view>());
  const auto copy_ids = [&](std::size_t begin, std::size_t end) {
    if (padding.ignore_token) {
      loops().widen_except(row.ids.data() + begin, end - begin, to + begin, padding.token_id, kIgnoredLabel);
    } else {
      loops().widen(row.ids.data() + begin, end - begin, to + begin);
    }
  };
  const auto ignore = [&](std::size_t begin, std::size_t end) {
    loops().fill(to + begin, end - begin, kIgnoredLabel);
  };
  const auto keep = [](std::size_t, std::size_t) {};
  const auto is_array = [&](std::string_view name) {
    return !row.parts.spans(name) && !row.parts.integer(name) && row.parts.array(name);
  };
  std::size_t written = 0;  // names that need no second look
  if (const auto array = std::ranges::find_if(names, is_array); array != names.end()) {
    write_array(*row.parts.array(*array), row.begin, n, to);
  } else if (!names.empty()) {
    for_each_range(names.front(), row, copy_ids, ignore);
    written = 1;
  } else {
    copy_ids(0, n);
  }
  for (const std::string_view name : names.subspan(written)) for_each_range(name, row, keep, ignore);
  ignore(0, std::min(ignored, n));
}

}  // namespace tokcask::collate
