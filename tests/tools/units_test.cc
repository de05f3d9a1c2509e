#include "cli/units.h"

#include <doctest/doctest.h>

#include <tokcask/error.h>

#include "cli/console.h"
#include "cli/progress.h"

using namespace tokcask::cli;
using namespace std::chrono_literals;

TEST_CASE("units: durations") {
  CHECK(parse_duration("30d") == 30 * 24h);
  CHECK(parse_duration("12h") == 12h);
  CHECK(parse_duration("45m") == 45min);
  CHECK(parse_duration("10s") == 10s);
  CHECK(parse_duration("0s") == 0s);
  CHECK(parse_duration("100000d") == 100000 * 24h);
  for (const char* bad : {"", "30", "d", "-3d", "+3d", " 3d", "3 d", "3w", "1.5h", "3dd", "3D", "0x1s",
                          "106752d", "99999999999999999999s", "18446744073709551616s"}) {
    CAPTURE(bad);
    CHECK_THROWS_AS(static_cast<void>(parse_duration(bad)), tokcask::Error);
  }
}

TEST_CASE("units: sizes") {
  CHECK(parse_size("123") == 123);
  CHECK(parse_size("1K") == 1024);
  CHECK(parse_size("512M") == 512U << 20);
  CHECK(parse_size("10G") == std::uint64_t{10} << 30);
  CHECK(parse_size("2TiB") == std::uint64_t{2} << 40);
  CHECK(parse_size("5gb") == 5'000'000'000U);
  CHECK(parse_size("7B") == 7);
  CHECK(parse_size("16777215T") == std::uint64_t{16777215} << 40);
  for (const char* bad :
       {"", "G", "-1G", "1.5G", "1X", "1GG", "1 G", "1iB", "16777216T", "99999999999999999999"}) {
    CAPTURE(bad);
    CHECK_THROWS_AS(static_cast<void>(parse_size(bad)), tokcask::Error);
  }
}

TEST_CASE("units: figures for people") {
  CHECK(format_count(0) == "0");
  CHECK(format_count(999) == "999");
  CHECK(format_count(1000) == "1,000");
  CHECK(format_count(1234567) == "1,234,567");
  CHECK(format_mib(0) == "0.0 MiB");
  CHECK(format_mib(3 * 1024 * 1024 / 2) == "1.5 MiB");
  CHECK(format_percent(1.0) == "100.0 %");
  CHECK(format_percent(0.99999) == "99.9 %");
  CHECK(format_percent(0.0) == "0.0 %");
  CHECK(format_time(0) == "1970-01-01 00:00:00 UTC");
  CHECK(format_duration(-5) == "0 s");
  CHECK(format_duration(45'900'000'000) == "45 s");
  CHECK(format_duration(723'000'000'000) == "12 m 03 s");
  CHECK(format_duration(11'100'000'000'000) == "3 h 05 m");
  CHECK(format_duration(187'200'000'000'000) == "2 d 04 h");
  CHECK(format_bar(0, 0, 4) == "[----]");
  CHECK(format_bar(1, 2, 4) == "[##--]");
  CHECK(format_bar(9, 2, 4) == "[####]");
}

TEST_CASE("units: a progress line never exceeds its width") {
  for (unsigned width = 0; width < 120; ++width) {
    for (const std::uint64_t total : {0U, 1U, 50'000U}) {
      CHECK(progress_line("tokenizing", total / 3, total, width).size() <= (width < 1 ? 0 : width - 1));
    }
  }
  CHECK(progress_line("tokenizing", 25'000, 50'000, 80).find("50 %  25,000 of 50,000") != std::string::npos);
  CHECK(progress_line("scanning", 0, 0, 80) == "scanning ...");
  CHECK(progress_line("reading", 9, 3, 80).find("100 %  3 of 3") != std::string::npos);
}

TEST_CASE("units: names that could steer a terminal are spelled out") {
  CHECK(printable("plain caf\xC3\xA9 \xF0\x9F\x98\x80") == "plain caf\xC3\xA9 \xF0\x9F\x98\x80");
  CHECK(printable("a\x1b[31mb\nc") == "a\\x1b[31mb\\x0ac");
  CHECK(printable("\xFF\xE2\x82") == "\\xff\\xe2\\x82");
  CHECK(printable("\xC2\x9B") == "\\xc2\\x9b");
  CHECK(printable("") == "");
}

TEST_CASE("units: sizes and counts in the unit that suits them") {
  CHECK(format_size(0) == "0 B");
  CHECK(format_size(1023) == "1023 B");
  CHECK(format_size(1024) == "1.0 KiB");
  CHECK(format_size((std::uint64_t{1} << 20) - 1) == "1.0 MiB");
  CHECK(format_size(std::uint64_t{10} << 30) == "10.0 GiB");
  CHECK(format_size(~std::uint64_t{0}) == "16777216.0 TiB");
  CHECK(format_compact(999) == "999");
  CHECK(format_compact(1000) == "1.0 K");
  CHECK(format_compact(999'999) == "1.0 M");
  CHECK(format_compact(28'081'313) == "28.1 M");
}
