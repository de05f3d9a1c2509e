#include "cli/plot.h"

#include <array>

#include <doctest/doctest.h>

using namespace tokcask;
using namespace tokcask::cli;

namespace {

constexpr Look kAscii{};
constexpr Look kBlocks{.columns = 80, .color = false, .blocks = true};

RunFigures run_of(std::uint64_t hits, std::uint64_t misses) {
  RunFigures run;
  run.hits = hits;
  run.misses = misses;
  return run;
}

}  // namespace

TEST_CASE("plot: bars have the columns they are given, and what is not nothing shows") {
  CHECK(plot_bar(0.5, 4, kAscii) == "##  ");
  CHECK(plot_bar(0.0, 4, kAscii) == "    ");
  CHECK(plot_bar(1e-9, 4, kAscii) == "#   ");
  CHECK(plot_bar(7.0, 4, kAscii) == "####");
  CHECK(plot_bar(0.0 / 1e-300 - 1.0, 4, kAscii) == "    ");
  CHECK(plot_bar(0.5, 3, kBlocks) == "█▌ ");
  CHECK(plot_bar(1e-9, 3, kBlocks) == "▏  ");
  CHECK(plot_bar(1.0, 3, kBlocks) == "███");
}

TEST_CASE("plot: parts fill the whole, and each that is there has a column") {
  const auto drawn = [](std::uint64_t a, std::uint64_t b, std::uint64_t c) {
    const std::array<BarPart, 3> parts{
        {{a, Ink::kPlain, "█", "#"}, {b, Ink::kPlain, "▓", "="}, {c, Ink::kPlain, "░", "."}}};
    return plot_parts(parts, 10, kAscii);
  };
  CHECK(drawn(5, 3, 2) == "#####===..");
  CHECK(drawn(1, 1, 1) == "####===...");
  CHECK(drawn(1000, 1, 0) == "#########=");
  CHECK(drawn(1, 1000000, 1) == "#========.");
  CHECK(drawn(0, 0, 0) == "          ");
}

TEST_CASE("plot: a line of hit rates, oldest on the left, without runs that looked nothing up") {
  const std::vector<RunFigures> runs{run_of(10, 0), run_of(0, 0), run_of(5, 5), run_of(0, 10)};
  CHECK(sparkline(runs, 10, kBlocks) == "▁▅█");
  CHECK(sparkline(runs, 10, kAscii) == "_=#");
  CHECK(sparkline(runs, 2, kBlocks) == "▅█");
  CHECK(sparkline({}, 10, kBlocks).empty());
}

TEST_CASE("plot: rows are aligned, as wide as they are told, and the greatest has the whole bar") {
  const std::vector<PlotRow> rows{{"≤ 64", 5}, {"≤ 2,048", 1000}, {"older", 0}};
  CHECK(plot_rows(rows, 24, kAscii) == std::vector<std::string>{"   ≤ 64     5 #         ",
                                                                "≤ 2,048 1,000 ##########",
                                                                "  older     0           "});
  for (const std::string& line : plot_rows(rows, 37, kBlocks)) CHECK(width_of(line) == 37);
}

TEST_CASE("plot: colour only where it is wanted") {
  CHECK(inked(Ink::kFirst, "a", kAscii) == "a");
  CHECK(inked(Ink::kFirst, "a", {.columns = 80, .color = true, .blocks = true}) == "\x1b[36ma\x1b[0m");
}
