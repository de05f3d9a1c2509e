// NumPy arrays over memory of ours.
//
// Made through NumPy's own C interface, 0.1 us each: handing one out is most of what an item of a data set
// costs, and nanobind's way, which asks NumPy to import a foreign array, takes 0.3.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <span>

namespace tokcask::python {

// A read-only 1-D array of int32 over `values`. Keeps `owner` alive, which may be null for memory that lives
// as long as the process. Imports numpy if need be; needs the GIL.
[[nodiscard]] nanobind::object read_only_array(std::span<const std::int32_t> values, nanobind::handle owner);

}  // namespace tokcask::python
