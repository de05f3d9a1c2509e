#include "errors.h"

#include <nanobind/nanobind.h>

#include <exception>
#include <filesystem>

#include <tokcask/error.h>

namespace tokcask::python {
namespace {

namespace nb = nanobind;

nb::object own_class(const char* name) { return nb::module_::import_("tokcask._errors").attr(name); }

nb::object exception_class(Errc code) {
  switch (code) {
    case Errc::kInvalidArgument:
    case Errc::kClosed:  // as Python's own files do
      return nb::borrow(PyExc_ValueError);
    case Errc::kNotFound:
      return nb::borrow(PyExc_FileNotFoundError);
    case Errc::kMissing:
      return own_class("MissingEntryError");
    case Errc::kDamaged:
      return own_class("DamagedError");
    case Errc::kIo:
      return nb::borrow(PyExc_OSError);
    case Errc::kBusy:
      return own_class("BusyError");
    case Errc::kReadOnly:
      return own_class("ReadOnlyError");
    case Errc::kUnsupported:
      return own_class("UnsupportedError");
    case Errc::kInterrupted:
      return nb::borrow(PyExc_KeyboardInterrupt);
  }
  return nb::borrow(PyExc_RuntimeError);
}

void translate(const std::exception_ptr& thrown, void* /*payload*/) {
  try {
    std::rethrow_exception(thrown);
  } catch (const Error& error) {
    if (error.code() == Errc::kInterrupted && PyErr_Occurred() != nullptr) return;  // what the handler raised
    PyErr_SetString(exception_class(error.code()).ptr(), error.what());
  } catch (const std::filesystem::filesystem_error& error) {
    PyErr_SetString(PyExc_OSError, error.what());
  }
}

}  // namespace

void register_errors() { nb::register_exception_translator(translate); }

}  // namespace tokcask::python
