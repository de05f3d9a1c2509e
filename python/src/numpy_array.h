// NumPy arrays over memory of ours.
//
// Made through NumPy's own C interface, 0.1 us each: handing one out is most of what an item of a data set
// costs, and nanobind's way, which asks NumPy to import a foreign array, takes 0.3.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include <tokcask/parts.h>

namespace tokcask::python {

// A read-only 1-D array of int32 over `values`. Keeps `owner` alive, which may be null for memory that lives
// as long as the process. Imports numpy if need be; needs the GIL.
[[nodiscard]] nanobind::object read_only_array(std::span<const std::int32_t> values, nanobind::handle owner);

// The same of an array of an entry.
[[nodiscard]] nanobind::object read_only_array(const ArrayView& values, nanobind::handle owner);

// A 1-D array that owns a copy of `numbers`, converted to T.
template <typename T, typename Numbers>
[[nodiscard]] nanobind::object owned_array(const Numbers& numbers) {
  auto values = std::make_unique<std::vector<T>>();
  values->reserve(numbers.size() + 1);  // NumPy wants an address, also for no elements
  for (const auto number : numbers) values->push_back(static_cast<T>(number));
  T* const data = values->data();
  const std::size_t shape[] = {values->size()};
  const nanobind::capsule owner(values.get(),
                                [](void* all) noexcept { delete static_cast<std::vector<T>*>(all); });
  static_cast<void>(values.release());
  return nanobind::cast(nanobind::ndarray<nanobind::numpy, T, nanobind::ndim<1>>(data, 1, shape, owner));
}

}  // namespace tokcask::python
