#include "cli/units.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <ctime>
#include <limits>
#include <optional>

#include <fmt/format.h>

#include <tokcask/error.h>

namespace tokcask::cli {
namespace {

struct Amount {
  std::uint64_t number;
  std::string_view unit;
};

// The digits at the start, and what follows them.
std::optional<Amount> split(std::string_view text) {
  Amount amount{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), amount.number);
  if (error != std::errc()) return std::nullopt;
  amount.unit = text.substr(static_cast<std::size_t>(end - text.data()));
  return amount;
}

std::optional<std::uint64_t> seconds_in(std::string_view unit) {
  if (unit == "s") return 1;
  if (unit == "m") return 60;
  if (unit == "h") return 60 * 60;
  if (unit == "d") return 24 * 60 * 60;
  return std::nullopt;
}

std::optional<std::uint64_t> bytes_in(std::string_view unit) {
  if (unit.empty()) return 1;
  std::string lower;
  for (const char c : unit) lower += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  if (lower == "b") return 1;
  constexpr std::string_view kPrefixes = "kmgt";
  const std::size_t power = kPrefixes.find(lower.front());
  if (power == std::string_view::npos) return std::nullopt;
  const std::string_view rest = std::string_view(lower).substr(1);
  if (!rest.empty() && rest != "ib" && rest != "b") return std::nullopt;
  std::uint64_t bytes = 1;
  for (std::size_t i = 0; i <= power; ++i) bytes *= rest == "b" ? 1000 : 1024;
  return bytes;
}

// In the greatest unit of which it is one or more, as it will be printed.
std::string scaled(std::uint64_t amount, double step, const std::array<const char*, 4>& units) {
  double value = static_cast<double>(amount) / step;
  std::size_t unit = 0;
  // What would be rounded up to 1,000 or 1,024 is one of the next unit.
  for (; unit + 1 < units.size() && value >= step - 0.05; ++unit) value /= step;
  return fmt::format("{:.1f}{}", value, units[unit]);
}

}  // namespace

std::chrono::nanoseconds parse_duration(std::string_view text) {
  const auto amount = split(text);
  const auto seconds = amount ? seconds_in(amount->unit) : std::nullopt;
  constexpr std::uint64_t kNanosPerSecond = 1'000'000'000;
  constexpr std::uint64_t kMaxSeconds =
      static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()) / kNanosPerSecond;
  if (!seconds || amount->number > kMaxSeconds / *seconds) {
    throw Error(Errc::kInvalidArgument,
                fmt::format("'{}' is not a duration: give a whole number and d, h, m or s, as in 30d, 12h, "
                            "45m or 10s (at most 290 years)",
                            text));
  }
  return std::chrono::nanoseconds(static_cast<std::int64_t>(amount->number * *seconds * kNanosPerSecond));
}

std::uint64_t parse_size(std::string_view text) {
  const auto amount = split(text);
  const auto unit = amount ? bytes_in(amount->unit) : std::nullopt;
  if (!unit || amount->number > std::numeric_limits<std::uint64_t>::max() / *unit) {
    throw Error(
        Errc::kInvalidArgument,
        fmt::format("'{}' is not a size: give a whole number of bytes, or one with K, M, G or T (powers "
                    "of 1024), as in 512M or 10G",
                    text));
  }
  return amount->number * *unit;
}

std::string format_count(std::uint64_t count) {
  std::string digits = std::to_string(count);
  for (std::size_t at = digits.size(); at > 3;) {
    at -= 3;
    digits.insert(at, 1, ',');
  }
  return digits;
}

std::string format_mib(std::uint64_t bytes) {
  return fmt::format("{:.1f} MiB", static_cast<double>(bytes) / (1024.0 * 1024.0));
}

std::string format_size(std::uint64_t bytes) {
  return bytes < 1024 ? fmt::format("{} B", bytes) : scaled(bytes, 1024.0, {" KiB", " MiB", " GiB", " TiB"});
}

std::string format_compact(std::uint64_t count) {
  return count < 1000 ? std::to_string(count) : scaled(count, 1000.0, {" K", " M", " G", " T"});
}

std::string format_percent(double share) {
  const double percent = share * 100.0;
  const double shown = share < 1.0 ? std::min(percent, 99.9) : percent;
  return fmt::format("{:.1f} %", shown);
}

std::string format_time(std::int64_t nanoseconds) {
  const auto seconds = static_cast<std::time_t>(nanoseconds / 1'000'000'000);
  std::tm parts = {};
  char text[sizeof "2026-01-31 23:59:59 UTC" + 16];
  if (::gmtime_r(&seconds, &parts) == nullptr ||
      std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S UTC", &parts) == 0) {
    return std::to_string(nanoseconds);
  }
  return text;
}

std::string format_duration(std::int64_t nanoseconds) {
  const std::int64_t seconds = std::max<std::int64_t>(nanoseconds, 0) / 1'000'000'000;
  const std::int64_t minutes = seconds / 60;
  const std::int64_t hours = minutes / 60;
  const std::int64_t days = hours / 24;
  if (days > 0) return fmt::format("{} d {:02} h", days, hours % 24);
  if (hours > 0) return fmt::format("{} h {:02} m", hours, minutes % 60);
  if (minutes > 0) return fmt::format("{} m {:02} s", minutes, seconds % 60);
  return fmt::format("{} s", seconds);
}

std::string format_bar(std::uint64_t part, std::uint64_t whole, std::size_t columns) {
  const double share = whole == 0 ? 0.0 : static_cast<double>(part) / static_cast<double>(whole);
  const auto filled =
      static_cast<std::size_t>(std::lround(std::clamp(share, 0.0, 1.0) * static_cast<double>(columns)));
  return '[' + std::string(filled, '#') + std::string(columns - filled, '-') + ']';
}

}  // namespace tokcask::cli
