// Amounts as people write and read them. Pure functions.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace tokcask::cli {

// A whole number and a unit: 30d, 12h, 45m, 10s. Throws Error(kInvalidArgument), which says what is allowed.
[[nodiscard]] std::chrono::nanoseconds parse_duration(std::string_view text);

// A whole number of bytes, or with a unit: K, M, G, T (or KiB, ...) for powers of 1024, KB, MB, GB, TB for
// powers of 1000; case does not matter. Throws Error(kInvalidArgument), which says what is allowed.
[[nodiscard]] std::uint64_t parse_size(std::string_view text);

// 1234567 -> "1,234,567".
[[nodiscard]] std::string format_count(std::uint64_t count);
// Bytes as "12.3 MiB", always in MiB so that figures under each other compare.
[[nodiscard]] std::string format_mib(std::uint64_t bytes);
// Bytes in the unit that suits them: "512 B", "1.5 KiB", "188.6 MiB", "10.0 GiB".
[[nodiscard]] std::string format_size(std::uint64_t bytes);
// A count in four characters or so: "987", "12.3 K", "28.1 M", "1.2 G".
[[nodiscard]] std::string format_compact(std::uint64_t count);
// 0.98765 -> "98.8 %"; below 1 never rounded up to "100.0 %".
[[nodiscard]] std::string format_percent(double share);
// Nanoseconds since the Unix epoch as "2026-01-31 23:59:59 UTC".
[[nodiscard]] std::string format_time(std::int64_t nanoseconds);
// Nanoseconds as the two largest units: "45 s", "12 m 03 s", "3 h 05 m", "2 d 04 h". Below 0 as 0.
[[nodiscard]] std::string format_duration(std::int64_t nanoseconds);
// "[####------]" with `columns` between the brackets.
[[nodiscard]] std::string format_bar(std::uint64_t part, std::uint64_t whole, std::size_t columns);

}  // namespace tokcask::cli
