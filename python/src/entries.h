// Walking a store's entries from Python, for exports.
#pragma once

#include <nanobind/nanobind.h>

namespace tokcask::python {

void bind_entries(nanobind::module_& module);

}  // namespace tokcask::python
