#include "collate/rows.h"

#include <fmt/format.h>

#include <algorithm>

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

void check_masks(std::span<const Tokens> rows) {
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const std::size_t ids = rows[i].input_ids.size();
    const std::size_t mask = rows[i].attention_mask.size();
    if (mask != 0 && mask != ids) {
      throw Error(
          Errc::kInvalidArgument,
          fmt::format("attention_mask of row {} has {} elements, but its input_ids has {}", i, mask, ids));
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

void fetch_ahead(const Tokens& row) noexcept {
  constexpr std::size_t kLineIds = 64 / sizeof(std::int32_t);
  constexpr int kToRead = 0;
  constexpr int kIntoSecondLevel = 2;
  const std::int32_t* const ids = row.input_ids.data();
  for (std::size_t at = 0; at < row.input_ids.size(); at += kLineIds) {
    __builtin_prefetch(ids + at, kToRead, kIntoSecondLevel);
  }
}

void write_labels(const Tokens& row, std::size_t ignored, const Padding& padding, std::int64_t* to) {
  const std::size_t first = std::min(ignored, row.input_ids.size());
  const std::span<const std::int32_t> ids = row.input_ids.subspan(first);
  loops().fill(to, first, kIgnoredLabel);
  if (padding.ignore_token) {
    loops().widen_except(ids.data(), ids.size(), to + first, padding.token_id, kIgnoredLabel);
  } else {
    loops().widen(ids.data(), ids.size(), to + first);
  }
}

}  // namespace tokcask::collate
