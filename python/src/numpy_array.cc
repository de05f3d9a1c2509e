#include "numpy_array.h"

#define NPY_NO_DEPRECATED_API NPY_1_22_API_VERSION
#include <numpy/arrayobject.h>

namespace tokcask::python {
namespace {

namespace nb = nanobind;

// Not with the module: `import tokcask` and its command do without numpy.
void import_numpy() {
  static bool imported = false;  // guarded by the GIL
  if (imported) return;
  if (_import_array() < 0) throw nb::python_error();
  imported = true;
}

}  // namespace

nb::object read_only_array(std::span<const std::int32_t> values, nb::handle owner) {
  import_numpy();
  // NumPy wants an address, also for no elements.
  static constexpr std::int32_t kNothing = 0;
  const std::int32_t* const data = values.empty() ? &kNothing : values.data();
  npy_intp shape[] = {static_cast<npy_intp>(values.size())};
  // Without NPY_ARRAY_WRITEABLE nobody writes through the pointer.
  const nb::object array =
      nb::steal(PyArray_New(&PyArray_Type, 1, shape, NPY_INT32, nullptr, const_cast<std::int32_t*>(data), 0,
                            NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_ALIGNED, nullptr));
  if (!array.is_valid()) throw nb::python_error();
  if (owner.is_valid() &&
      PyArray_SetBaseObject(reinterpret_cast<PyArrayObject*>(array.ptr()), owner.inc_ref().ptr()) < 0) {
    throw nb::python_error();
  }
  return array;
}

}  // namespace tokcask::python
