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

nb::object array_over(std::span<const std::byte> bytes, std::size_t size, int type, nb::handle owner) {
  import_numpy();
  // NumPy wants an address, also for no elements.
  static constexpr std::int64_t kNothing = 0;
  const void* const data = bytes.empty() ? static_cast<const void*>(&kNothing) : bytes.data();
  npy_intp shape[] = {static_cast<npy_intp>(size)};
  // Without NPY_ARRAY_WRITEABLE nobody writes through the pointer.
  const nb::object array =
      nb::steal(PyArray_New(&PyArray_Type, 1, shape, type, nullptr, const_cast<void*>(data), 0,
                            NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_ALIGNED, nullptr));
  if (!array.is_valid()) throw nb::python_error();
  if (owner.is_valid() &&
      PyArray_SetBaseObject(reinterpret_cast<PyArrayObject*>(array.ptr()), owner.inc_ref().ptr()) < 0) {
    throw nb::python_error();
  }
  return array;
}

int numpy_type(ElementType type) {
  switch (type) {
    case ElementType::kInt8:
      return NPY_INT8;
    case ElementType::kUint8:
      return NPY_UINT8;
    case ElementType::kInt16:
      return NPY_INT16;
    case ElementType::kInt32:
      return NPY_INT32;
    case ElementType::kInt64:
      return NPY_INT64;
    case ElementType::kFloat16:
      return NPY_FLOAT16;
    case ElementType::kFloat32:
      return NPY_FLOAT32;
  }
  throw nb::value_error("an array of an unknown type");
}

}  // namespace

nb::object read_only_array(std::span<const std::int32_t> values, nb::handle owner) {
  return array_over(std::as_bytes(values), values.size(), NPY_INT32, owner);
}

nb::object read_only_array(const ArrayView& values, nb::handle owner) {
  return array_over(values.bytes, values.size(), numpy_type(values.type), owner);
}

}  // namespace tokcask::python
