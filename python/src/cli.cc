#include "cli.h"

#include <nanobind/stl/pair.h>
#include <nanobind/stl/string_view.h>

#include <stdexcept>
#include <string>
#include <vector>

#include <tokcask/error.h>

#include "arguments.h"
#include "cli/cli.h"
#include "gil.h"

namespace tokcask::python {
namespace {

// "ValueError: what it says", without the traceback.
std::string describe(const nb::python_error& error) {
  return nb::cast<std::string>(
      nb::str("{}: {}").format(error.type().attr("__name__"), nb::str(error.value())));
}

std::vector<std::int32_t> to_ids(nb::handle encoding) {
  const nb::object ids = encoding.attr("ids");
  if (!PyList_CheckExact(ids.ptr())) throw nb::type_error("ids is not a list");
  const Py_ssize_t count = PyList_GET_SIZE(ids.ptr());
  std::vector<std::int32_t> result;
  result.reserve(static_cast<std::size_t>(count));
  for (Py_ssize_t i = 0; i < count; ++i) {
    const long id = PyLong_AsLong(PyList_GET_ITEM(ids.ptr(), i));
    if (id == -1 && PyErr_Occurred() != nullptr) throw nb::python_error();
    if (id < INT32_MIN || id > INT32_MAX) throw nb::value_error("a token id does not fit into 32 bits");
    result.push_back(static_cast<std::int32_t>(id));
  }
  return result;
}

// A tokenizer of tokcask/_hf.py. Called without the GIL, takes it for each call; while it tokenizes, the
// library behind it gives the GIL away.
class PythonTokenizer final : public cli::Tokenizer {
 public:
  explicit PythonTokenizer(nb::object tokenizer) : tokenizer_(std::move(tokenizer)) {}
  ~PythonTokenizer() override {
    const nb::gil_scoped_acquire acquire;
    tokenizer_.reset();
  }
  PythonTokenizer(const PythonTokenizer&) = delete;
  PythonTokenizer& operator=(const PythonTokenizer&) = delete;

  [[nodiscard]] std::string sha256() const override { return text_of("sha256"); }
  [[nodiscard]] std::string origin() const override { return text_of("origin"); }

  [[nodiscard]] TokenizerTraits traits() const override {
    const nb::gil_scoped_acquire acquire;
    try {
      const auto [at_length, to_prefix] = nb::cast<std::pair<bool, bool>>(tokenizer_.attr("traits"));
      return {.cuts_at_length = at_length, .cuts_to_prefix = to_prefix};
    } catch (const nb::python_error& error) {
      throw std::runtime_error(describe(error));
    }
  }

  [[nodiscard]] std::vector<std::vector<std::int32_t>> encode_batch(std::span<const std::string_view> texts,
                                                                    std::size_t max_length) override {
    const nb::gil_scoped_acquire acquire;
    try {
      nb::list batch;
      for (const std::string_view text : texts) batch.append(nb::str(text.data(), text.size()));
      std::vector<std::vector<std::int32_t>> result;
      result.reserve(texts.size());
      for (const nb::handle encoding : tokenizer_.attr("encode_batch")(batch, max_length)) {
        result.push_back(to_ids(encoding));
      }
      return result;
    } catch (const nb::python_error& error) {
      // The exception must not leave with a Python object inside: it is destroyed without the GIL.
      throw std::runtime_error("the tokenizer failed: " + describe(error));
    }
  }

 private:
  [[nodiscard]] std::string text_of(const char* attribute) const {
    const nb::gil_scoped_acquire acquire;
    try {
      return nb::cast<std::string>(tokenizer_.attr(attribute));
    } catch (const nb::python_error& error) {
      throw std::runtime_error(describe(error));
    }
  }

  nb::object tokenizer_;
};

std::unique_ptr<cli::Tokenizer> load_tokenizer(nb::handle load, const std::string& file, unsigned jobs) {
  const nb::gil_scoped_acquire acquire;
  try {
    const nb::object path =
        nb::steal(PyUnicode_DecodeFSDefaultAndSize(file.data(), static_cast<Py_ssize_t>(file.size())));
    if (!path.is_valid()) throw nb::python_error();
    return std::make_unique<PythonTokenizer>(load(path, jobs));
  } catch (const nb::python_error& error) {
    throw Error(Errc::kInvalidArgument, "tokenizer " + file + ": " + describe(error));
  }
}

// What the Python side is given: warning(text) and advance(phase, done, total) -> bool.
class MonitorForPython {
 public:
  explicit MonitorForPython(cli::FormatMonitor& monitor) : monitor_(&monitor) {}
  void warning(std::string_view text) { monitor_->warning(text); }
  [[nodiscard]] bool advance(std::string_view phase, std::uint64_t done, std::uint64_t total) {
    return monitor_->advance(phase, done, total);
  }

 private:
  cli::FormatMonitor* monitor_;
};

// The kind of failure that a Python exception is, for the exit code.
Errc kind_of_failure(const nb::python_error& error) {
  const auto own = [&](const char* name) {
    return error.matches(nb::module_::import_("tokcask._errors").attr(name));
  };
  if (own("DamagedError")) return Errc::kDamaged;
  if (own("BusyError")) return Errc::kBusy;
  if (error.matches(PyExc_FileNotFoundError)) return Errc::kNotFound;
  // What is there already is the caller's to decide on, and a package that is not, to install.
  if (error.matches(PyExc_ValueError) || error.matches(PyExc_FileExistsError) ||
      error.matches(PyExc_ImportError)) {
    return Errc::kInvalidArgument;
  }
  return Errc::kIo;
}

std::string run_formats(nb::handle formats, const std::string& verb, const std::string& request,
                        cli::FormatMonitor& monitor) {
  const nb::gil_scoped_acquire acquire;
  try {
    return nb::cast<std::string>(formats(verb, request, MonitorForPython(monitor)));
  } catch (const nb::python_error& error) {
    const Errc kind = kind_of_failure(error);
    const bool expected = kind != Errc::kIo || error.matches(PyExc_OSError);
    throw Error(kind, expected ? nb::cast<std::string>(nb::str(error.value())) : describe(error));
  }
}

int run_cli(const nb::list& arguments, nb::callable load, nb::callable formats) {
  std::vector<std::string> args;
  // An empty argument is the command's to refuse.
  for (const nb::handle argument : arguments) {
    args.push_back(nb::len(argument) == 0 ? std::string() : to_path(argument, "argument"));
  }
  // A handle, because the function object is copied and dropped without the GIL; `load` outlives it.
  const cli::TokenizerLoader loader = [load = nb::handle(load)](const std::string& file, unsigned jobs) {
    return load_tokenizer(load, file, jobs);
  };
  const cli::FormatRunner runner = [formats = nb::handle(formats)](const std::string& verb,
                                                                   const std::string& request,
                                                                   cli::FormatMonitor& monitor) {
    return run_formats(formats, verb, request, monitor);
  };
  const WithoutGil released;
  return cli::run(args, loader, runner);
}

}  // namespace

void bind_cli(nb::module_& module) {
  nb::class_<MonitorForPython>(module, "FormatMonitor", nb::is_final(),
                               "The command, while a format is at work.")
      .def("warning", &MonitorForPython::warning, nb::arg("text"), "Tells the user.")
      .def("advance", &MonitorForPython::advance, nb::arg("phase"), nb::arg("done"), nb::arg("total"),
           "Tells how far it is; returns whether to go on.");
  module.def(
      "run_cli", run_cli, nb::arg("arguments"), nb::arg("load"), nb::arg("formats"),
      nb::sig("def run_cli(arguments: list[str], load: collections.abc.Callable[[str, int], object], "
              "formats: collections.abc.Callable[[str, str, FormatMonitor], str]) -> int"),
      "Runs one command line, without the program's name, and returns the exit code. load(file, jobs) is\n"
      "called when a tokenizer file is needed, see tokcask._hf; formats(verb, request, monitor) by export "
      "and\n"
      "import, see tokcask._cli.");
}

}  // namespace tokcask::python
