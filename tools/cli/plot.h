// Figures drawn in characters. Pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <tokcask/stats.h>

namespace tokcask::cli {

// What the reader's screen can show. As it is: a file, or a pipe.
struct Look {
  unsigned columns = 80;
  bool color = false;
  bool blocks = false;  // UTF-8 and so block characters; else ASCII
};

enum class Ink { kPlain, kStrong, kFaint, kFirst, kSecond };
[[nodiscard]] std::string inked(Ink ink, std::string_view text, const Look& look);

// Columns that UTF-8 text takes, one per code point.
[[nodiscard]] std::size_t width_of(std::string_view text) noexcept;
// `text` with blanks after or before it up to `columns`.
[[nodiscard]] std::string left(std::string_view text, std::size_t columns);
[[nodiscard]] std::string right(std::string_view text, std::size_t columns);

// A bar of `share` of `columns`, in eighths of a column with blocks, blank behind. Anything above 0 shows.
[[nodiscard]] std::string plot_bar(double share, std::size_t columns, const Look& look);

struct BarPart {
  std::uint64_t amount = 0;
  Ink ink = Ink::kPlain;
  std::string_view block;  // one column wide
  std::string_view ascii;
};
// The parts of a whole beside each other, exactly `columns` wide in total; a part that is there has a column.
[[nodiscard]] std::string plot_parts(std::span<const BarPart> parts, std::size_t columns, const Look& look);

// The hit rates of `runs` (newest first, as the store lists them), oldest on the left, of the newest
// `columns` runs that looked anything up.
[[nodiscard]] std::string sparkline(std::span<const RunFigures> runs, std::size_t columns, const Look& look);

struct PlotRow {
  std::string label;
  std::uint64_t amount = 0;
};
// One line per row: label, count, bar; each exactly `columns` wide (uncoloured).
[[nodiscard]] std::vector<std::string> plot_rows(std::span<const PlotRow> rows, std::size_t columns,
                                                 const Look& look);

}  // namespace tokcask::cli
