#include "cli/plot.h"

#include <algorithm>
#include <cmath>

#include "cli/units.h"

namespace tokcask::cli {
namespace {

constexpr std::string_view kEighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
constexpr std::string_view kFull = "█";
constexpr std::string_view kLevels[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
constexpr std::string_view kAsciiLevels = "_.:-=+*#";

std::string_view code_of(Ink ink) {
  switch (ink) {
    case Ink::kPlain:
      return "";
    case Ink::kStrong:
      return "\x1b[1m";
    case Ink::kFaint:
      return "\x1b[90m";
    case Ink::kFirst:
      return "\x1b[36m";
    case Ink::kSecond:
      return "\x1b[34m";
  }
  return "";
}

std::string repeated(std::string_view text, std::size_t times) {
  std::string all;
  for (std::size_t i = 0; i < times; ++i) all += text;
  return all;
}

bool looked_up(const RunFigures& run) { return run.hits + run.misses != 0; }

}  // namespace

std::string inked(Ink ink, std::string_view text, const Look& look) {
  const std::string_view code = code_of(ink);
  if (!look.color || code.empty() || text.empty()) return std::string(text);
  return std::string(code) + std::string(text) + "\x1b[0m";
}

std::size_t width_of(std::string_view text) noexcept {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

std::string left(std::string_view text, std::size_t columns) {
  const std::size_t width = width_of(text);
  return std::string(text) + std::string(columns > width ? columns - width : 0, ' ');
}

std::string right(std::string_view text, std::size_t columns) {
  const std::size_t width = width_of(text);
  return std::string(columns > width ? columns - width : 0, ' ') + std::string(text);
}

std::string plot_bar(double share, std::size_t columns, const Look& look) {
  const double clamped = std::isfinite(share) ? std::clamp(share, 0.0, 1.0) : 0.0;
  const std::size_t steps = look.blocks ? 8 : 1;
  auto filled = static_cast<std::size_t>(std::lround(clamped * static_cast<double>(columns * steps)));
  if (clamped > 0.0 && filled == 0) filled = std::min<std::size_t>(1, columns);
  if (!look.blocks) return left(std::string(filled, '#'), columns);
  return left(repeated(kFull, filled / steps) + std::string(kEighths[filled % steps]), columns);
}

std::string plot_parts(std::span<const BarPart> parts, std::size_t columns, const Look& look) {
  std::uint64_t whole = 0;
  std::vector<std::size_t> widths;
  for (const BarPart& part : parts) whole += part.amount;
  std::size_t used = 0;
  for (const BarPart& part : parts) {
    const double share = whole == 0 ? 0.0 : static_cast<double>(part.amount) / static_cast<double>(whole);
    const auto width = static_cast<std::size_t>(std::lround(share * static_cast<double>(columns)));
    widths.push_back(part.amount == 0 ? 0 : std::max<std::size_t>(width, 1));
    used += widths.back();
  }
  if (whole == 0) return std::string(columns, ' ');
  // What rounding gave or took is the widest part's.
  const auto widest = std::max_element(widths.begin(), widths.end());
  *widest = *widest + columns > used ? *widest + columns - used : 0;
  std::string bar;
  for (std::size_t i = 0; i < parts.size(); ++i)
    bar += inked(parts[i].ink, repeated(look.blocks ? parts[i].block : parts[i].ascii, widths[i]), look);
  return bar;
}

std::string sparkline(std::span<const RunFigures> runs, std::size_t columns, const Look& look) {
  std::vector<double> rates;
  for (const RunFigures& run : runs) {
    if (rates.size() == columns) break;
    if (looked_up(run)) rates.push_back(run.hit_rate());
  }
  std::string line;
  for (auto rate = rates.rbegin(); rate != rates.rend(); ++rate) {
    const auto level = static_cast<std::size_t>(std::lround(std::clamp(*rate, 0.0, 1.0) * 7.0));
    line += look.blocks ? kLevels[level] : kAsciiLevels.substr(level, 1);
  }
  return line;
}

std::vector<std::string> plot_rows(std::span<const PlotRow> rows, std::size_t columns, const Look& look) {
  std::size_t label = 0;
  std::size_t count = 0;
  std::uint64_t most = 0;
  for (const PlotRow& row : rows) {
    label = std::max(label, width_of(row.label));
    count = std::max(count, format_count(row.amount).size());
    most = std::max(most, row.amount);
  }
  constexpr std::size_t kGaps = 2;
  const std::size_t bar = columns > label + count + kGaps ? columns - label - count - kGaps : 1;
  std::vector<std::string> lines;
  for (const PlotRow& row : rows) {
    const double share = most == 0 ? 0.0 : static_cast<double>(row.amount) / static_cast<double>(most);
    lines.push_back(inked(Ink::kFaint, right(row.label, label), look) + ' ' +
                    right(format_count(row.amount), count) + ' ' +
                    inked(Ink::kFirst, plot_bar(share, bar, look), look));
  }
  return lines;
}

}  // namespace tokcask::cli
