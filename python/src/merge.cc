#include "merge.h"

#include <nanobind/stl/vector.h>

#include <memory>
#include <string>
#include <vector>

#include <tokcask/merge.h>

#include "arguments.h"
#include "gil.h"
#include "messages.h"
#include "signals.h"

namespace tokcask::python {
namespace {

constexpr const char* kMerge =
    R"(Puts the entries of the stores inputs into the store out, which is made if it is not there.

out            the directory of a store
inputs         an iterable of directories of stores; they are only read, and may be in use
max_bytes      hard cap on the size of out; None: what it was last written with, 10 GiB for a new one
lock_timeout   as in TokenizedCache.open()
allow_network_filesystem
               likewise

An entry whose key out has with the same tokens is not copied; the later last access of the two is kept. The same
key with other tokens is a conflict: what out has, or of the inputs the first named, stays. A merge that was
stopped or killed is begun again and ends where a single one would have. Raises ValueError if an input is out
itself, FileNotFoundError for an input that is absent, and what TokenizedCache.open() raises.)";

struct Request {
  std::string out;
  std::vector<std::string> inputs;
  Options options;
};

// Without the GIL.
MergeReport run(const Request& request, const MergeOptions& options) {
  std::vector<TokenizedCache> inputs;
  Options reading = request.options;
  reading.read_only = true;
  for (const std::string& path : request.inputs) inputs.push_back(TokenizedCache::open(path, reading));
  TokenizedCache out = TokenizedCache::open(request.out, request.options);
  MergeReport report = merge(out, inputs, options);
  out.close();
  return report;
}

MergeReport merge_stores(nb::handle out, nb::iterable inputs, nb::handle max_bytes, double lock_timeout,
                         bool allow_network_filesystem) {
  Request request;
  request.out = to_path(out, "out");
  for (const nb::handle input : inputs) request.inputs.push_back(to_path(input, "inputs"));
  if (request.inputs.empty()) throw nb::value_error("inputs is empty");
  if (!max_bytes.is_none()) {
    request.options.max_bytes = static_cast<std::uint64_t>(to_integer(max_bytes, "max_bytes", 0));
  }
  request.options.lock_timeout =
      std::chrono::duration_cast<std::chrono::milliseconds>(to_duration(lock_timeout, "lock_timeout"));
  request.options.allow_network_filesystem = allow_network_filesystem;
  const auto messages = std::make_shared<Messages>();
  request.options.on_message = [messages](Severity severity, std::string_view text) {
    messages->push(severity, text);
  };
  // Ctrl-C ends it after the batch at hand.
  MergeOptions options;
  options.on_progress = [](std::uint64_t, std::uint64_t) {
    const nb::gil_scoped_acquire acquire;
    return PyErr_CheckSignals() == 0;
  };
  const LogAtEnd log(messages);
  MergeReport report;
  {
    WithoutGil released;
    const Signals signals(&released);
    report = run(request, options);
  }
  if (report.stopped) throw nb::python_error();
  return report;
}

}  // namespace

void bind_merge(nb::module_& module) {
  nb::class_<MergeReport>(
      module, "MergeReport", nb::is_final(),
      "What merge() did. entries is the sum of merged, already_there, conflicts and declined.")
      .def_ro("entries", &MergeReport::entries, "Entries of the inputs.")
      .def_ro("merged", &MergeReport::merged, "Entries that were put.")
      .def_ro("already_there", &MergeReport::already_there,
              "Entries that were there with the same tokens, or came from an input before.")
      .def_ro("newer_access", &MergeReport::newer_access, "Of these, how many made the last access later.")
      .def_ro("conflicts", &MergeReport::conflicts, "Entries whose key has other tokens.")
      .def_ro("damaged", &MergeReport::damaged, "Records of the inputs that were left out.")
      .def_ro("declined", &MergeReport::declined, "Entries that the budget has no room for.")
      .def_ro("bytes_after", &MergeReport::bytes_after, "total_bytes of the store afterwards.")
      .def_ro("conflicting", &MergeReport::conflicting, "The canonical keys of the first 20 conflicts.")
      .def("__repr__", [](const MergeReport& self) {
        return nb::str(
                   "MergeReport(entries={}, merged={}, already_there={}, newer_access={}, conflicts={}, "
                   "damaged={}, declined={})")
            .format(self.entries, self.merged, self.already_there, self.newer_access, self.conflicts,
                    self.damaged, self.declined);
      });
  module.def("merge", merge_stores, nb::arg("out"), nb::arg("inputs"), nb::kw_only(),
             nb::arg("max_bytes") = nb::none(), nb::arg("lock_timeout") = 60.0,
             nb::arg("allow_network_filesystem") = false,
             nb::sig("def merge(out: str | os.PathLike[str], inputs: collections.abc.Iterable[str | "
                     "os.PathLike[str]], *, max_bytes: int | None = None, lock_timeout: float = 60.0, "
                     "allow_network_filesystem: bool = False) -> MergeReport"),
             kMerge);
}

}  // namespace tokcask::python
