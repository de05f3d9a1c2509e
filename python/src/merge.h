// merge() in Python.
#pragma once

#include <nanobind/nanobind.h>

namespace tokcask::python {

void bind_merge(nanobind::module_& module);

}  // namespace tokcask::python
