// The `tokcask` command with tokenizers from Python.
#pragma once

#include <nanobind/nanobind.h>

namespace tokcask::python {

void bind_cli(nanobind::module_& module);

}  // namespace tokcask::python
