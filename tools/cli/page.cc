#include "cli/page.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "cli/console.h"
#include "cli/units.h"

namespace tokcask::cli {
namespace {

constexpr std::size_t kMostGroups = 12;
constexpr std::size_t kLabel = 10;

double share_of(std::uint64_t part, std::uint64_t whole) {
  return whole == 0 ? 0.0 : static_cast<double>(part) / static_cast<double>(whole);
}

// The end of text that is too long, which of a path says most.
std::string tail(const std::string& text, std::size_t columns, const Look& look) {
  const std::size_t width = width_of(text);
  if (width <= columns) return text;
  const std::string_view gap = look.blocks ? "…" : "...";
  std::size_t drop = width - columns + width_of(gap);
  std::size_t at = 0;
  for (; at < text.size(); ++at) {
    if ((text[at] & 0xC0) == 0x80) continue;
    if (drop-- == 0) break;
  }
  return std::string(gap) + text.substr(at);
}

std::string heading(std::string_view text, const Look& look) { return inked(Ink::kStrong, text, look); }
std::string label(std::string_view text, const Look& look) {
  return inked(Ink::kFaint, left(text, kLabel), look);
}

std::string head(const StorePage& page, std::size_t columns, const Look& look) {
  const std::string count =
      page.stats.entry_count == 1 ? "1 entry" : format_count(page.stats.entry_count) + " entries";
  const std::string path = tail(printable(page.path), columns - count.size() - 2, look);
  return heading(left(path, columns - count.size()), look) + count + '\n';
}

std::string size_section(const StorePage& page, std::size_t columns, const Look& look) {
  const Stats& stats = page.stats;
  // Figures that were read one after the other while somebody writes may not add up.
  const std::uint64_t live = std::min(stats.total_bytes, stats.file_bytes);
  const std::uint64_t payload = std::min(stats.payload_bytes, live);
  const std::array<BarPart, 3> parts{{{payload, Ink::kFirst, "█", "#"},
                                      {live - payload, Ink::kSecond, "▓", "="},
                                      {stats.file_bytes - live, Ink::kFaint, "░", "."}}};
  const std::string of_budget =
      fmt::format("{:>7} of {}", format_percent(share_of(stats.file_bytes, stats.max_bytes)),
                  format_size(stats.max_bytes));
  const std::size_t figures = of_budget.size() + 2;
  const std::size_t bar = columns - kLabel - figures - 2;
  const auto framed = [&](const std::string& drawn) {
    const std::string_view edge = look.blocks ? "│" : "|";
    return inked(Ink::kFaint, edge, look) + drawn + inked(Ink::kFaint, edge, look);
  };
  std::string text;
  text += label("budget", look) +
          framed(inked(Ink::kFirst, plot_bar(share_of(stats.file_bytes, stats.max_bytes), bar, look), look)) +
          "  " + of_budget + '\n';
  text += label("file", look) + framed(plot_parts(parts, bar, look)) + "  " +
          right(format_size(stats.file_bytes), of_budget.size()) + '\n';
  const char* const names[] = {"token ids", "overhead", "tables, free"};
  std::string legend;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    legend += fmt::format("{}{} {} {}", i == 0 ? "" : "  ",
                          inked(parts[i].ink, look.blocks ? parts[i].block : parts[i].ascii, look), names[i],
                          format_size(parts[i].amount));
  }
  return text + std::string(kLabel, ' ') + legend + '\n';
}

using Cells = std::vector<std::string>;

std::string first_or_unknown(std::uint64_t ns, std::size_t characters) {
  if (ns == 0) return "-";
  return format_time(static_cast<std::int64_t>(ns)).substr(0, characters);
}

// The rows of the table of groups, its head first. `time`: characters of a date and time, 0: none.
std::vector<Cells> group_cells(const StorePage& page, std::size_t time) {
  std::vector<Cells> rows{{"tokenizer", "length", "entries", "tokens", "size", "share"}};
  if (time != 0) rows[0].insert(rows[0].end(), {"first put", "last put"});
  const std::vector<SurveyGroup>& groups = page.survey.groups;
  for (std::size_t i = 0; i < std::min(groups.size(), kMostGroups); ++i) {
    const SurveyGroup& group = groups[i];
    rows.push_back({short_sha(group.tokenizer_sha),
                    format_count(static_cast<std::uint32_t>(group.sequence_len)), format_count(group.entries),
                    format_compact(group.tokens), format_size(group.bytes),
                    format_percent(share_of(group.bytes, page.stats.total_bytes))});
    if (time == 0) continue;
    rows.back().push_back(first_or_unknown(group.first_stored_ns, time));
    rows.back().push_back(first_or_unknown(group.last_stored_ns, time));
  }
  return rows;
}

std::vector<std::size_t> widths_of(const std::vector<Cells>& rows) {
  std::vector<std::size_t> widths(rows[0].size());
  for (const Cells& row : rows)
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width_of(row[i]));
  return widths;
}

std::string group_section(const StorePage& page, std::size_t columns, const Look& look) {
  constexpr std::size_t kMinute = sizeof "2026-01-31 23:59" - 1;
  constexpr std::size_t kDay = sizeof "2026-01-31" - 1;
  constexpr std::size_t kGap = 2;
  std::vector<Cells> rows;
  std::vector<std::size_t> widths;
  for (const std::size_t time : {kMinute, kDay, std::size_t{0}}) {
    rows = group_cells(page, time);
    widths = widths_of(rows);
    std::size_t width = kGap * (widths.size() - 1);
    for (const std::size_t w : widths) width += w;
    if (width <= columns) break;
  }
  std::string text;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    std::string line;
    for (std::size_t i = 0; i < widths.size(); ++i) {
      if (i != 0) line += std::string(kGap, ' ');
      line += i == 0 ? left(rows[r][i], widths[i]) : right(rows[r][i], widths[i]);
    }
    text += (r == 0 ? inked(Ink::kFaint, line, look) : line) + '\n';
  }
  if (page.survey.groups.size() > kMostGroups) {
    text += inked(Ink::kFaint,
                  fmt::format("and {} more, which --json lists",
                              format_count(page.survey.groups.size() - kMostGroups)),
                  look) +
            '\n';
  }
  return text;
}

std::vector<PlotRow> length_rows(const StoreSurvey& survey, const Look& look) {
  std::vector<PlotRow> rows;
  for (const LengthBin& bin : drawn_lengths(survey))
    rows.push_back({fmt::format("{} {}", look.blocks ? "≤" : "<=", format_count(bin.up_to)), bin.entries});
  return rows;
}

// Two plots beside each other.
std::string plots_section(const StorePage& page, std::size_t columns, const Look& look) {
  constexpr std::size_t kGap = 4;
  const std::size_t half = (columns - kGap) / 2;
  const std::vector<std::string> lengths = plot_rows(length_rows(page.survey, look), half, look);
  const std::vector<std::string> ages = plot_rows(drawn_ages(page.survey), half, look);
  const std::string gap(kGap, ' ');
  std::string text =
      heading(left("Tokens per entry", half), look) + gap + heading("Last access", look) + '\n';
  for (std::size_t i = 0; i < std::max(lengths.size(), ages.size()); ++i) {
    text += i < lengths.size() ? lengths[i] : std::string(half, ' ');
    text += i < ages.size() ? gap + ages[i] + '\n' : "\n";
  }
  return text;
}

std::string when_it_was(const RunFigures& run) {
  std::string text = fmt::format("run {}, {}", format_count(run.run_id), format_time(run.started_ns));
  if (run.ended_ns == 0) return text + (run.state == RunState::kAlive ? ", alive" : ", end not recorded");
  const double seconds = static_cast<double>(run.ended_ns - run.started_ns) / 1e9;
  if (run.state == RunState::kKilled) text += ", killed";
  return text + fmt::format(", {:.1f} s, {:.1f} s of it tokenizing", seconds, run.tokenize_seconds);
}

std::string what_it_did(const RunFigures& run) {
  std::string text = fmt::format("{} hits, {} misses, {} stored", format_count(run.hits),
                                 format_count(run.misses), format_count(run.puts));
  if (run.declined != 0) text += fmt::format(", {} declined", format_count(run.declined));
  if (run.evicted != 0) text += fmt::format(", {} evicted", format_count(run.evicted));
  return text;
}

std::string run_section(const StorePage& page, std::size_t columns, const Look& look) {
  const RunFigures& last = page.stats.last_run;
  if (last.run_id == 0) return label("last run", look) + "none yet\n";
  std::string text = label("last run", look) + when_it_was(last) + '\n' + std::string(kLabel, ' ') +
                     what_it_did(last) + '\n';
  const std::string rate = format_percent(last.hit_rate());
  const std::string_view told = "  in the last run";
  const std::string line = sparkline(page.runs, columns - kLabel - rate.size() - told.size() - 2, look);
  text += label("hit rate", look);
  if (width_of(line) > 1) text += inked(Ink::kFirst, line, look) + "  ";
  return text + rate + std::string(told) + '\n';
}

}  // namespace

std::string age_label(const AgeBin& bin) {
  constexpr std::uint64_t kDay = 86400;
  switch (bin.under_seconds) {
    case 60:
      return "< 1 minute";
    case 3600:
      return "< 1 hour";
    case kDay:
      return "< 1 day";
    case 7 * kDay:
      return "< 1 week";
    case 30 * kDay:
      return "< 30 days";
    case AgeBin::kNoLimit:
      return "older";
    default:
      return fmt::format("< {} s", format_count(bin.under_seconds));
  }
}

std::vector<LengthBin> drawn_lengths(const StoreSurvey& survey) {
  const auto first = std::find_if(survey.lengths.begin(), survey.lengths.end(),
                                  [](const LengthBin& bin) { return bin.entries != 0; });
  return {first, survey.lengths.end()};
}

std::vector<PlotRow> drawn_ages(const StoreSurvey& survey) {
  std::vector<PlotRow> rows;
  for (const AgeBin& bin : survey.last_access) rows.push_back({age_label(bin), bin.entries});
  const std::uint64_t unknown = survey.last_access_unknown.entries;
  if (unknown != 0) rows.push_back({"unknown", unknown});
  return rows;
}

std::string short_sha(std::string_view sha) {
  constexpr std::size_t kShort = 8;
  return sha.empty() ? "?" : printable(sha.substr(0, kShort));
}

std::string page_text(const StorePage& page, const Look& look) {
  constexpr std::size_t kNarrowest = 78;
  constexpr std::size_t kWidest = 100;
  // The last column would wrap the cursor on some terminals.
  const std::size_t columns = std::clamp<std::size_t>(look.columns, kNarrowest + 2, kWidest) - 2;
  std::string text = head(page, columns, look) + '\n' + size_section(page, columns, look) + '\n';
  if (!page.survey.groups.empty()) {
    text += group_section(page, columns, look) + '\n';
    text += plots_section(page, columns, look) + '\n';
  }
  return text + run_section(page, columns, look);
}

}  // namespace tokcask::cli
