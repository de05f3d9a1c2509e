// tokcask::Error as Python exceptions; the classes are in tokcask/_errors.py.
#pragma once

namespace tokcask::python {

void register_errors();

}  // namespace tokcask::python
