// What `show` tells of a store: as a page of text, and as a file of HTML. Pure functions.
#pragma once

#include <string>
#include <vector>

#include <tokcask/stats.h>
#include <tokcask/survey.h>

#include "cli/plot.h"

namespace tokcask::cli {

struct StorePage {
  std::string path;
  Stats stats;
  StoreSurvey survey;
  std::vector<RunFigures> runs;  // newest first
};

// How long ago the last access is, as a bin is labelled: "< 1 day".
[[nodiscard]] std::string age_label(const AgeBin& bin);
// The bins to be drawn: without the empty ones before the shortest entry.
[[nodiscard]] std::vector<LengthBin> drawn_lengths(const StoreSurvey& survey);
// All bins of last access and, if there are such entries, the one of those that are not known.
[[nodiscard]] std::vector<PlotRow> drawn_ages(const StoreSurvey& survey);
// A tokenizer's name, short enough for a table.
[[nodiscard]] std::string short_sha(std::string_view sha);

// Right from 80 columns; uses up to 100.
[[nodiscard]] std::string page_text(const StorePage& page, const Look& look);

// One file that needs nothing else: no network, no script. Light or dark as the browser is.
[[nodiscard]] std::string page_html(const StorePage& page);

}  // namespace tokcask::cli
