// The page of `show` as HTML: figures as tiles, a table, and plots in SVG.
#include <algorithm>

#include <fmt/format.h>

#include "cli/console.h"
#include "cli/page.h"
#include "cli/units.h"

namespace tokcask::cli {
namespace {

constexpr std::string_view kStyle = R"css(
:root { color-scheme: light dark; --ground: #f6f7f9; --card: #ffffff; --text: #1b2330; --faint: #5d6878;
  --line: #dfe4ea; --first: #0f7b86; --second: #7db9be; --rest: #c5ccd5; }
@media (prefers-color-scheme: dark) { :root { --ground: #11161d; --card: #1a212b; --text: #e7ebf0;
  --faint: #98a4b3; --line: #2d3744; --first: #45c0c9; --second: #28747c; --rest: #465262; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
main { max-width: 960px; margin: 0 auto; padding: 32px 20px 48px; }
h1 { font-size: 24px; line-height: 1.25; font-weight: 650; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 15px; font-weight: 650; margin: 0 0 12px; }
p { margin: 0; }
.faint { color: var(--faint); }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 18px 20px;
  margin-top: 16px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 16px; margin-top: 24px; }
.tiles section { margin: 0; padding: 14px 18px; }
.tiles b { display: block; font-size: 24px; line-height: 1.3; font-weight: 600; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(340px, 1fr)); gap: 16px; margin-top: 16px; }
.pair section { margin: 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 14px; }
th { font-weight: 500; color: var(--faint); }
th, td { text-align: right; padding: 7px 0 7px 20px; border-top: 1px solid var(--line); white-space: nowrap; }
thead th { border-top: 0; padding-top: 0; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
code { font: 13px ui-monospace, "DejaVu Sans Mono", monospace; }
svg { display: block; width: 100%; height: auto; }
svg text { font-size: 13px; fill: var(--text); font-variant-numeric: tabular-nums; }
svg .faint { fill: var(--faint); }
.first { fill: var(--first); } .second { fill: var(--second); } .rest { fill: var(--rest); }
.track { fill: var(--ground); stroke: var(--line); }
.grid { stroke: var(--line); } .curve { fill: none; stroke: var(--first); stroke-width: 2; stroke-linejoin: round; }
.key { display: flex; flex-wrap: wrap; gap: 4px 24px; margin-top: 12px; font-size: 14px; }
.key i { display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin-right: 8px; }
)css";

// Text as HTML shows it. Control bytes and what is not UTF-8 have been written as \xNN before.
std::string escaped(std::string_view text) {
  std::string safe;
  for (const char c : printable(text)) {
    switch (c) {
      case '&':
        safe += "&amp;";
        break;
      case '<':
        safe += "&lt;";
        break;
      case '>':
        safe += "&gt;";
        break;
      case '"':
        safe += "&quot;";
        break;
      case '\'':
        safe += "&#39;";
        break;
      default:
        safe += c;
    }
  }
  return safe;
}

double share_of(std::uint64_t part, std::uint64_t whole) {
  return whole == 0 ? 0.0 : static_cast<double>(part) / static_cast<double>(whole);
}

std::string tile(std::string_view value, std::string_view what) {
  return fmt::format("<section><b>{}</b><span class=\"faint\">{}</span></section>\n", escaped(value),
                     escaped(what));
}

std::string tiles(const StorePage& page) {
  const Stats& stats = page.stats;
  std::uint64_t tokens = 0;
  for (const SurveyGroup& group : page.survey.groups) tokens += group.tokens;
  const RunFigures& last = stats.last_run;
  return "<div class=\"tiles\">\n" +
         tile(format_size(stats.file_bytes), "of " + format_size(stats.max_bytes)) +
         tile(format_count(stats.entry_count), stats.entry_count == 1 ? "entry" : "entries") +
         tile(format_compact(tokens), "tokens") +
         tile(last.run_id == 0 ? "none" : format_percent(last.hit_rate()),
              last.run_id == 0 ? "no run yet" : "hits in the last run") +
         "</div>\n";
}

struct Part {
  const char* name;
  const char* css;
  std::uint64_t bytes;
};

// Beside each other on a track as wide as `whole`.
std::string stacked(std::span<const Part> parts, std::uint64_t whole, std::string_view name, int y) {
  constexpr double kLeft = 70;
  constexpr double kWidth = 848;
  std::string svg = fmt::format(
      "<text class=\"faint\" x=\"0\" y=\"{}\">{}</text><rect class=\"track\" x=\"{}\" y=\"{}\" width=\"{}\" "
      "height=\"22\" rx=\"3\"/>\n",
      y + 16, name, kLeft, y, kWidth);
  double x = kLeft;
  for (const Part& part : parts) {
    const double width = std::min(std::max(part.bytes == 0 ? 0.0 : 1.0, share_of(part.bytes, whole) * kWidth),
                                  kLeft + kWidth - x);
    svg += fmt::format(
        "<rect class=\"{}\" x=\"{:.1f}\" y=\"{}\" width=\"{:.1f}\" height=\"22\"><title>{}: "
        "{}</title></rect>\n",
        part.css, x, y, width, part.name, format_size(part.bytes));
    x += width;
  }
  return svg;
}

std::string size_section(const Stats& stats) {
  const std::uint64_t live = std::min(stats.total_bytes, stats.file_bytes);
  const std::uint64_t payload = std::min(stats.payload_bytes, live);
  const Part parts[] = {{"token ids", "first", payload},
                        {"overhead of entries", "second", live - payload},
                        {"tables and free pages", "rest", stats.file_bytes - live}};
  std::string key;
  for (const Part& part : parts) {
    key +=
        fmt::format("<span><i style=\"background:var(--{})\"></i>{} <span class=\"faint\">{}</span></span>\n",
                    part.css, part.name, format_size(part.bytes));
  }
  return fmt::format(
      "<section><h2>Size</h2>\n<svg viewBox=\"0 0 920 60\" role=\"img\" aria-label=\"file and budget\">\n"
      "{}{}</svg>\n<div class=\"key\">{}<span class=\"faint\">{} of the budget used</span></div></section>\n",
      stacked(parts, std::max(stats.max_bytes, stats.file_bytes), "budget", 1),
      stacked(parts, stats.file_bytes, "file", 35), key,
      format_percent(share_of(stats.file_bytes, stats.max_bytes)));
}

std::string time_cell(std::uint64_t ns) {
  return ns == 0 ? "–" : format_time(static_cast<std::int64_t>(ns)).substr(0, sizeof "2026-01-31 23:59" - 1);
}

std::string group_section(const StorePage& page) {
  if (page.survey.groups.empty()) return "<section class=\"faint\">There are no entries.</section>\n";
  std::string rows;
  for (const SurveyGroup& group : page.survey.groups) {
    rows += fmt::format(
        "<tr><td><code title=\"{}\">{}</code></td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>"
        "<td>{}</td><td>{}</td></tr>\n",
        escaped(group.tokenizer_sha), escaped(short_sha(group.tokenizer_sha)),
        format_count(static_cast<std::uint32_t>(group.sequence_len)), format_count(group.entries),
        format_count(group.tokens), format_size(group.bytes),
        format_percent(share_of(group.bytes, page.stats.total_bytes)), time_cell(group.first_stored_ns),
        time_cell(group.last_stored_ns));
  }
  return "<section><h2>By tokenizer and sequence length</h2><div class=\"wide\"><table><thead><tr>"
         "<th>tokenizer</th><th>length</th><th>entries</th><th>tokens</th><th>size</th><th>share</th>"
         "<th>first put</th><th>last put</th></tr></thead><tbody>\n" +
         rows + "</tbody></table></div></section>\n";
}

struct Bar {
  std::string label;
  std::uint64_t entries = 0;
  std::uint64_t bytes = 0;
};

std::string bar_section(std::string_view title, std::span<const Bar> bars) {
  constexpr int kStep = 26;
  constexpr double kLeft = 96;
  constexpr double kWidth = 240;
  std::uint64_t most = 0;
  for (const Bar& bar : bars) most = std::max(most, bar.entries);
  std::string svg;
  int y = 0;
  for (const Bar& bar : bars) {
    const double width = std::max(bar.entries == 0 ? 0.0 : 1.0, share_of(bar.entries, most) * kWidth);
    svg += fmt::format(
        "<text class=\"faint\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>"
        "<rect class=\"first\" x=\"{}\" y=\"{}\" width=\"{:.1f}\" height=\"17\" rx=\"2\">"
        "<title>{} entries, {}</title></rect><text x=\"{:.1f}\" y=\"{}\">{}</text>\n",
        kLeft - 10, y + 14, escaped(bar.label), kLeft, y, width, format_count(bar.entries),
        format_size(bar.bytes), kLeft + width + 8, y + 14, format_count(bar.entries));
    y += kStep;
  }
  return fmt::format(
      "<section><h2>{0}</h2><svg viewBox=\"0 0 420 {1}\" role=\"img\" "
      "aria-label=\"{0}\">\n{2}</svg></section>\n",
      title, std::max(y, kStep), svg);
}

std::string plots(const StoreSurvey& survey) {
  if (survey.groups.empty()) return {};
  std::vector<Bar> lengths;
  for (const LengthBin& bin : drawn_lengths(survey))
    lengths.push_back({"≤ " + format_count(bin.up_to), bin.entries, bin.bytes});
  std::vector<Bar> ages;
  for (const AgeBin& bin : survey.last_access) ages.push_back({age_label(bin), bin.entries, bin.bytes});
  const AgeBin& unknown = survey.last_access_unknown;
  if (unknown.entries != 0) ages.push_back({"unknown", unknown.entries, unknown.bytes});
  return "<div class=\"pair\">\n" + bar_section("Entries by tokens", lengths) +
         bar_section("Entries by last access", ages) + "</div>\n";
}

// The hit rates of runs that looked anything up, oldest on the left.
std::string curve(const std::vector<RunFigures>& runs) {
  constexpr double kLeft = 50;
  constexpr double kWidth = 850;
  constexpr double kTop = 10;
  constexpr double kHeight = 110;
  std::vector<const RunFigures*> shown;
  for (const RunFigures& run : runs)
    if (run.hits + run.misses != 0) shown.insert(shown.begin(), &run);
  if (shown.size() < 2) return {};
  std::string svg;
  for (const int percent : {0, 50, 100}) {
    const double y = kTop + kHeight * (100 - percent) / 100.0;
    svg += fmt::format(
        "<line class=\"grid\" x1=\"{}\" x2=\"{}\" y1=\"{}\" y2=\"{}\"/><text class=\"faint\" x=\"{}\" "
        "y=\"{}\" "
        "text-anchor=\"end\">{} %</text>\n",
        kLeft, kLeft + kWidth + 10, y, y, kLeft - 8, y + 4, percent);
  }
  std::string line;
  std::string dots;
  for (std::size_t i = 0; i < shown.size(); ++i) {
    const RunFigures& run = *shown[i];
    const double x = kLeft + 5 + kWidth * static_cast<double>(i) / static_cast<double>(shown.size() - 1);
    const double y = kTop + kHeight * (1.0 - run.hit_rate());
    line += fmt::format("{:.1f},{:.1f} ", x, y);
    dots += fmt::format(
        "<circle class=\"first\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"4\"><title>run {}, {}: {}, {} hits, {} "
        "misses</title></circle>\n",
        x, y, run.run_id, format_time(run.started_ns), format_percent(run.hit_rate()), format_count(run.hits),
        format_count(run.misses));
  }
  svg += fmt::format("<polyline class=\"curve\" points=\"{}\"/>\n{}", line, dots);
  return fmt::format(
      "<svg viewBox=\"0 0 920 150\" role=\"img\" aria-label=\"hit rate of runs\">\n{}"
      "<text class=\"faint\" x=\"{}\" y=\"145\">run {}</text><text class=\"faint\" x=\"{}\" y=\"145\" "
      "text-anchor=\"end\">run {}</text></svg>\n",
      svg, kLeft, shown.front()->run_id, kLeft + kWidth + 10, shown.back()->run_id);
}

std::string run_section(const StorePage& page) {
  const RunFigures& last = page.stats.last_run;
  if (last.run_id == 0) return {};
  return fmt::format(
      "<section><h2>Hit rate of runs</h2>\n{}<p class=\"faint\">Last: run {}, {}: {} hits, {} misses, {} "
      "stored, "
      "{} declined, {} evicted, {:.1f} s tokenizing.</p></section>\n",
      curve(page.runs), format_count(last.run_id), format_time(last.started_ns), format_count(last.hits),
      format_count(last.misses), format_count(last.puts), format_count(last.declined),
      format_count(last.evicted), last.tokenize_seconds);
}

}  // namespace

std::string page_html(const StorePage& page) {
  return fmt::format(
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{0} – "
      "tokcask</title>\n"
      "<style>{1}</style>\n</head>\n<body>\n<main>\n<h1>{0}</h1>\n"
      "<p class=\"faint\">tokcask store, {2}</p>\n{3}{4}{5}{6}{7}</main>\n</body>\n</html>\n",
      escaped(page.path), kStyle, format_time(static_cast<std::int64_t>(page.survey.taken_ns)), tiles(page),
      size_section(page.stats), group_section(page), plots(page.survey), run_section(page));
}

}  // namespace tokcask::cli
