// Arguments from Python, checked with errors that name them.
//
// All of it needs the GIL. Throws nb::builtin_exception or nb::python_error.
#pragma once

#include <nanobind/nanobind.h>
// In every file alike: without it, a cast of std::string compiles and means something else.
#include <nanobind/stl/string.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace tokcask::python {

namespace nb = nanobind;

// An int, or anything else with __index__ except bool. TypeError for others, ValueError outside
// [lowest, INT64_MAX].
[[nodiscard]] std::int64_t to_integer(nb::handle value, const char* name, std::int64_t lowest = INT64_MIN);

// The UTF-8 of a str, borrowed from it. TypeError for others, ValueError for a lone surrogate.
[[nodiscard]] std::string_view to_text(nb::handle value, const char* name);

// A str, bytes or os.PathLike, encoded as the file system has it, ~ at its beginning expanded as the shell
// does. ValueError for an empty one.
[[nodiscard]] std::string to_path(nb::handle value, const char* name);

// Seconds as nanoseconds; those too long to count become the longest there is. ValueError for a negative
// number or NaN.
[[nodiscard]] std::chrono::nanoseconds to_duration(double seconds, const char* name);

// Whether it is a collections.abc.Mapping.
[[nodiscard]] bool is_mapping(nb::handle value);

// "str" for "abc", for messages.
[[nodiscard]] std::string kind_of(nb::handle value);

// A run id; 0 for None.
[[nodiscard]] std::uint64_t to_run_id(nb::handle value);

}  // namespace tokcask::python
