#include "cli/page.h"

#include <algorithm>
#include <sstream>

#include <doctest/doctest.h>

using namespace tokcask;
using namespace tokcask::cli;

namespace {

constexpr std::uint64_t kMiB = 1 << 20;
constexpr std::uint64_t kSecond = 1'000'000'000;

SurveyGroup group_of(std::string sha, std::int32_t sequence_len, std::uint64_t entries) {
  SurveyGroup group;
  group.tokenizer_sha = std::move(sha);
  group.sequence_len = sequence_len;
  group.entries = entries;
  group.tokens = entries * 700;
  group.bytes = entries * 4096;
  group.first_stored_ns = 1'700'000'000 * kSecond;
  group.last_stored_ns = 1'701'000'000 * kSecond;
  return group;
}

StorePage page_of(std::vector<SurveyGroup> groups) {
  StorePage page;
  page.path = "/data/tokens";
  page.survey.taken_ns = 1'701'000'100 * kSecond;
  for (const SurveyGroup& group : groups) {
    page.stats.entry_count += group.entries;
    page.stats.total_bytes += group.bytes;
    page.stats.payload_bytes += group.tokens * 4;
  }
  page.stats.file_bytes = page.stats.total_bytes + kMiB;
  page.stats.max_bytes = 10 * page.stats.file_bytes;
  page.survey.groups = std::move(groups);
  page.survey.lengths = {{1, 0, 0}, {2, 0, 0}, {4, 7, 28672}, {8, 0, 0}, {16, 1234, 40960}};
  page.survey.last_access = {{60, 5, 0},        {3600, 0, 0},       {86400, 9, 0},
                             {7 * 86400, 0, 0}, {30 * 86400, 0, 0}, {AgeBin::kNoLimit, 1, 0}};
  for (std::uint64_t id = 3; id >= 1; --id) {
    RunFigures run;
    run.run_id = id;
    run.started_ns = 1'700'000'000'000'000'000;
    run.ended_ns = run.started_ns + 12'300'000'000;
    run.hits = 50 * (id - 1);
    run.misses = 100 - run.hits;
    page.runs.push_back(run);
  }
  page.stats.last_run = page.runs.front();
  return page;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

const std::string kSha(64, 'a');

}  // namespace

TEST_CASE("page: no line is wider than the terminal, from 80 columns to 100") {
  const StorePage page = page_of({group_of(kSha, 131072, 12'345'678'901), group_of("b", 512, 1)});
  for (const unsigned columns : {80U, 90U, 100U, 250U}) {
    for (const bool blocks : {false, true}) {
      CAPTURE(columns);
      for (const std::string& line :
           lines_of(page_text(page, {.columns = columns, .color = false, .blocks = blocks}))) {
        CAPTURE(line);
        CHECK(width_of(line) < std::min(columns, 100U));
      }
    }
  }
}

TEST_CASE("page: what it tells") {
  const std::string text = page_text(page_of({group_of(kSha, 2048, 300), group_of("b", 512, 100)}), Look{});
  for (const char* part : {"/data/tokens", "400 entries", "10.0 % of", "aaaaaaaa    2,048      300", "75.0 %",
                           "2023-11-14", "<= 4", "1,234", "< 1 day", "older",
                           "run 3, 2023-11-14 22:13:20 UTC", "100 hits, 0 misses", "_=#  100.0 %"}) {
    CAPTURE(part);
    CHECK(has(text, part));
  }
  CHECK_FALSE(has(text, "<= 2 "));  // shorter than all entries
  CHECK_FALSE(has(text, "unknown"));
  CHECK(std::all_of(text.begin(), text.end(), [](char c) { return (c >= ' ' && c <= '~') || c == '\n'; }));
}

TEST_CASE("page: colour, and nothing else, is what colour adds") {
  const StorePage page = page_of({group_of(kSha, 2048, 300)});
  std::string colored = page_text(page, {.columns = 80, .color = true, .blocks = true});
  CHECK(has(colored, "\x1b["));
  for (std::size_t at = 0; (at = colored.find('\x1b')) != std::string::npos;)
    colored.erase(at, colored.find('m', at) - at + 1);
  CHECK(colored == page_text(page, {.columns = 80, .color = false, .blocks = true}));
}

TEST_CASE("page: an empty store, many groups, a long path") {
  StorePage empty;
  empty.path = std::string(300, 'x') + "/end\x1b[2J";
  empty.stats.max_bytes = kMiB;
  const std::string text = page_text(empty, Look{});
  CHECK(has(text, "none yet"));
  CHECK(has(text, "xx/end\\x1b[2J"));
  CHECK(text.find('\x1b') == std::string::npos);
  CHECK_FALSE(has(text, "tokenizer"));
  for (const std::string& line : lines_of(text)) CHECK(line.size() < 80);
  std::vector<SurveyGroup> groups;
  for (int i = 0; i < 15; ++i) groups.push_back(group_of("sha" + std::to_string(i), 512, 10));
  CHECK(has(page_text(page_of(groups), Look{}), "and 3 more"));
}

TEST_CASE("page: the HTML is whole, needs nothing else, and what comes from outside is escaped") {
  StorePage page = page_of({group_of("<script>&'\"", 2048, 300)});
  page.path = "/data/<b>&amp;\x1b";
  const std::string html = page_html(page);
  CHECK(html.starts_with("<!doctype html>"));
  CHECK(html.ends_with("</html>\n"));
  CHECK(has(html, "/data/&lt;b&gt;&amp;amp;\\x1b"));
  CHECK(has(html, "&lt;script&gt;&amp;&#39;&quot;"));
  CHECK_FALSE(has(html, "<script"));
  CHECK_FALSE(has(html, "<b>&"));
  CHECK_FALSE(has(html, "http"));
  CHECK_FALSE(has(html, "nan"));
  CHECK(has(html, "prefers-color-scheme: dark"));
  CHECK(has(html, "<polyline"));
  CHECK(has(html, "run 2, 2023-11-14 22:13:20 UTC: 50.0 %, 50 hits"));
  CHECK(has(html, "1,234 entries, 40.0 KiB"));
  CHECK(has(page_html(StorePage{}), "There are no entries."));
}
