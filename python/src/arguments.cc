#include "arguments.h"

#include <fmt/format.h>

#include <cmath>

namespace tokcask::python {

std::string kind_of(nb::handle value) { return nb::cast<std::string>(value.type().attr("__name__")); }

std::int64_t to_integer(nb::handle value, const char* name, std::int64_t lowest) {
  if (PyBool_Check(value.ptr()) || !PyIndex_Check(value.ptr())) {
    throw nb::type_error(fmt::format("{} must be an int, not {}", name, kind_of(value)).c_str());
  }
  const nb::object number = nb::steal(PyNumber_Index(value.ptr()));
  if (!number.is_valid()) throw nb::python_error();
  int overflow = 0;
  const std::int64_t result = PyLong_AsLongLongAndOverflow(number.ptr(), &overflow);
  if (overflow != 0 || result < lowest) {
    throw nb::value_error(
        fmt::format("{} is {}; it must be {}", name, nb::cast<std::string>(nb::str(number)),
                    overflow > 0 ? fmt::format("at most {}", INT64_MAX) : fmt::format("at least {}", lowest))
            .c_str());
  }
  return result;
}

std::uint64_t to_run_id(nb::handle value) {
  return value.is_none() ? 0 : static_cast<std::uint64_t>(to_integer(value, "run_id", 0));
}

bool is_mapping(nb::handle value) {
  const int found =
      PyObject_IsInstance(value.ptr(), nb::module_::import_("collections.abc").attr("Mapping").ptr());
  if (found < 0) throw nb::python_error();
  return found != 0;
}

std::string_view to_text(nb::handle value, const char* name) {
  if (!PyUnicode_Check(value.ptr())) {
    throw nb::type_error(fmt::format("{} must be a str, not {}", name, kind_of(value)).c_str());
  }
  Py_ssize_t size = 0;
  const char* data = PyUnicode_AsUTF8AndSize(value.ptr(), &size);
  if (data == nullptr) throw nb::python_error();
  return {data, static_cast<std::size_t>(size)};
}

std::string to_path(nb::handle value, const char* name) {
  PyObject* encoded = nullptr;
  if (PyUnicode_FSConverter(value.ptr(), static_cast<void*>(&encoded)) == 0) throw nb::python_error();
  const nb::object owner = nb::steal(encoded);
  char* data = nullptr;
  Py_ssize_t size = 0;
  if (PyBytes_AsStringAndSize(encoded, &data, &size) != 0) throw nb::python_error();
  if (size == 0) throw nb::value_error(fmt::format("{} is empty; give a directory", name).c_str());
  if (data[0] != '~') return {data, static_cast<std::size_t>(size)};
  const nb::object expanded = nb::module_::import_("os.path").attr("expanduser")(owner);
  const auto path = nb::cast<nb::bytes>(expanded);
  return {path.c_str(), path.size()};
}

std::chrono::nanoseconds to_duration(double seconds, const char* name) {
  if (std::isnan(seconds) || seconds < 0) {
    throw nb::value_error(fmt::format("{} is {}; give a number of seconds from 0", name, seconds).c_str());
  }
  constexpr std::chrono::nanoseconds kLongest = std::chrono::nanoseconds::max();
  const double nanoseconds = seconds * 1e9;
  if (nanoseconds >= static_cast<double>(kLongest.count())) return kLongest;
  return std::chrono::nanoseconds(static_cast<std::int64_t>(nanoseconds));
}

}  // namespace tokcask::python
