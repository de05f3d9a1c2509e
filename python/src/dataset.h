// tokcask._core.Dataset: what tokcask.torch.TokenDataset is made of.
#pragma once

#include <nanobind/nanobind.h>

namespace tokcask::python {

void bind_dataset(nanobind::module_& module);

}  // namespace tokcask::python
