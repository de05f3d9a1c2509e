// CacheKey and section_id in Python.
#pragma once

#include <nanobind/nanobind.h>

namespace tokcask::python {

void bind_key(nanobind::module_& module);

}  // namespace tokcask::python
