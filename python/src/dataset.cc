#include "dataset.h"

#include <malloc.h>
#include <nanobind/ndarray.h>

#include <fmt/format.h>

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include <tokcask/dataset.h>

#include "arguments.h"
#include "logged.h"
#include "numpy_array.h"
#include "tokens.h"

namespace tokcask::python {
namespace {

namespace nb = nanobind;

constexpr const char* kDataset =
    R"(Items of a fixed list of keys, read by index. Use tokcask.torch.TokenDataset, which is made of it.

keys           CacheKey objects, or their canonical forms
packed         or the bytes of packed_keys() of another Dataset
missing        what becomes of a key without an entry: "error" (MissingEntryError), "drop", or "keep"
derive_lengths as in TokenizedCache.open()
populate       have the whole file read into the page cache in the background
allow_network_filesystem
               as in TokenizedCache.open()
run_id         belong to this run, if it is alive; else to the newest that this process has, or begin one)";

using Dataset = Logged<TokenDataset>;

std::vector<CacheKey> to_keys(nb::iterable keys) {
  std::vector<CacheKey> result;
  for (const nb::handle key : keys) {
    CacheKey* made = nullptr;
    if (nb::try_cast(key, made, /*convert=*/false) && made != nullptr) {
      result.push_back(*made);
    } else if (nb::isinstance<nb::str>(key)) {
      result.push_back(CacheKey::parse(to_text(key, "a key")));
    } else {
      throw nb::type_error(
          fmt::format("keys: item {} is {}, not a CacheKey or its text", result.size(), kind_of(key))
              .c_str());
    }
  }
  return result;
}

MissingKeys to_missing(std::string_view name) {
  if (name == "error") return MissingKeys::kError;
  if (name == "drop") return MissingKeys::kDrop;
  if (name == "keep") return MissingKeys::kKeep;
  throw nb::value_error("missing must be 'error', 'drop' or 'keep'");
}

// Gives the system back what resolving a long list took and freed: a forked worker would count it as its own.
void give_memory_back([[maybe_unused]] const Dataset& dataset) {
#ifdef __GLIBC__
  constexpr std::size_t kLong = 10'000;
  if (dataset.value().size() >= kLong) malloc_trim(0);
#endif
}

void construct(Dataset* self, nb::handle root, nb::handle keys, nb::handle packed, nb::handle missing,
               bool populate, bool derive_lengths, bool allow_network_filesystem, nb::handle run_id) {
  const std::string path = std::filesystem::absolute(to_path(root, "root")).string();
  DatasetOptions options{
      .missing = to_missing(to_text(missing, "missing")),
      .populate = populate,
      .run_id = to_run_id(run_id),
      .derive_lengths = derive_lengths,
      .allow_network_filesystem = allow_network_filesystem,
  };
  if (!packed.is_none()) {
    const auto bytes = nb::cast<nb::bytes>(packed);
    const std::span<const std::byte> list(static_cast<const std::byte*>(bytes.data()), bytes.size());
    new (self) Dataset([&](MessageSink sink) {
      options.on_message = std::move(sink);
      return TokenDataset::open_packed(path, list, options);
    });
  } else {
    const std::vector<CacheKey> list = to_keys(nb::cast<nb::iterable>(keys));
    new (self) Dataset([&](MessageSink sink) {
      options.on_message = std::move(sink);
      return TokenDataset::open(path, list, options);
    });
  }
  give_memory_back(*self);
}

// Counted from the end if negative. IndexError for one that there is not.
std::size_t to_index(const Dataset& self, nb::handle value) {
  const std::size_t size = self.value().size();
  const std::int64_t given = to_integer(value, "an index");
  const std::int64_t index = given < 0 ? given + static_cast<std::int64_t>(size) : given;
  if (index < 0 || static_cast<std::size_t>(index) >= size) {
    throw nb::index_error(fmt::format("index {} of a dataset with {} items", given, size).c_str());
  }
  return static_cast<std::size_t>(index);
}

using Indices = nb::ndarray<const std::int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

std::vector<std::size_t> to_indices(const Dataset& self, nb::handle given) {
  std::vector<std::size_t> indices;
  // What a DataLoader gives comes first: asking a list whether it is an array takes longer than reading it.
  if (Indices array; !nb::isinstance<nb::list>(given) && nb::try_cast(given, array, /*convert=*/false)) {
    const std::size_t size = self.value().size();
    indices.reserve(array.size());
    for (std::size_t i = 0; i < array.size(); ++i) {
      const std::int64_t index = array.data()[i];
      const bool plain = index >= 0 && static_cast<std::size_t>(index) < size;
      indices.push_back(plain ? static_cast<std::size_t>(index) : to_index(self, nb::int_(index)));
    }
    return indices;
  }
  indices.reserve(nb::len_hint(given));
  for (const nb::handle index : nb::cast<nb::iterable>(given)) indices.push_back(to_index(self, index));
  return indices;
}

nb::object item(Dataset& self, nb::handle index) {
  const std::size_t at = to_index(self, index);
  auto view = self.with_gil([&](TokenDataset& dataset) { return dataset.get(at); });
  if (!view) return nb::none();
  return nb::cast(CachedTokens(*std::move(view)));
}

// The rows, and the positions of those that are missing, which are None.
nb::tuple items(Dataset& self, nb::handle indices) {
  const std::vector<std::size_t> wanted = to_indices(self, indices);
  auto views = self.without_gil([&](TokenDataset& dataset) { return dataset.get_many(wanted); });
  nb::list rows = nb::steal<nb::list>(PyList_New(static_cast<Py_ssize_t>(views.size())));
  if (!rows.is_valid()) throw nb::python_error();
  nb::list missing;
  for (std::size_t i = 0; i < views.size(); ++i) {
    nb::object row = views[i] ? nb::cast(CachedTokens(*std::move(views[i]))) : nb::none();
    if (row.is_none()) missing.append(i);
    PyList_SET_ITEM(rows.ptr(), static_cast<Py_ssize_t>(i), row.release().ptr());
  }
  return nb::make_tuple(rows, missing);
}

}  // namespace

void bind_dataset(nb::module_& module) {
  nb::class_<Dataset>(module, "Dataset", nb::is_final(), kDataset)
      .def("__init__", construct, nb::arg("root"), nb::arg("keys") = nb::none(), nb::kw_only(),
           nb::arg("packed") = nb::none(), nb::arg("missing") = "error", nb::arg("populate") = false,
           nb::arg("derive_lengths") = true, nb::arg("allow_network_filesystem") = false,
           nb::arg("run_id") = nb::none(),
           nb::sig("def __init__(self, root: str | os.PathLike[str], "
                   "keys: collections.abc.Iterable[CacheKey | str] | None = None, *, "
                   "packed: bytes | None = None, missing: str = 'error', populate: bool = False, "
                   "derive_lengths: bool = True, allow_network_filesystem: bool = False, run_id: int | None "
                   "= None) -> None"))
      .def("__len__", [](const Dataset& self) { return self.value().size(); })
      .def("item", item, nb::arg("index"),
           nb::sig("def item(self, index: typing.SupportsIndex) -> CachedTokens | None"),
           "One item, or None if its entry is gone.")
      .def("items", items, nb::arg("indices"),
           nb::sig("def items(self, indices: collections.abc.Iterable[typing.SupportsIndex]) -> "
                   "tuple[list[CachedTokens], list[int]]"),
           "The items, from one snapshot, and the positions of those whose entries are gone (None).")
      .def(
          "lengths",
          [](Dataset& self) {
            return owned_array<std::int32_t>(
                self.without_gil([](TokenDataset& dataset) { return dataset.lengths(); }));
          },
          nb::sig("def lengths(self) -> numpy.typing.NDArray[numpy.int32]"), "Tokens of each item.")
      .def(
          "key",
          [](const Dataset& self, nb::handle index) { return self.value().key(to_index(self, index)); },
          nb::arg("index"), nb::sig("def key(self, index: typing.SupportsIndex) -> CacheKey"),
          "The key of an item.")
      .def(
          "kept", [](const Dataset& self) { return owned_array<std::int64_t>(self.value().kept()); },
          nb::sig("def kept(self) -> numpy.typing.NDArray[numpy.int64]"),
          "With missing='drop', the place of each item in the list given; empty if none was dropped.")
      .def(
          "packed_keys",
          [](const Dataset& self) {
            const std::vector<std::byte> packed = self.value().packed_keys();
            return nb::bytes(packed.data(), packed.size());
          },
          "The keys in 16 to 20 bytes each, for Dataset(root, packed=...).")
      .def(
          "prefetch",
          [](Dataset& self, nb::handle indices) {
            const std::vector<std::size_t> wanted = to_indices(self, indices);
            self.with_gil([&](TokenDataset& dataset) { dataset.prefetch(wanted); });
          },
          nb::arg("indices"),
          nb::sig("def prefetch(self, indices: collections.abc.Iterable[typing.SupportsIndex]) -> None"),
          "Has the pages of these items read into the page cache in the background.")
      .def(
          "close", [](Dataset& self) { self.without_gil([](TokenDataset& dataset) { dataset.close(); }); },
          "Idempotent. Arrays stay valid.")
      .def_prop_ro(
          "root", [](const Dataset& self) { return self.value().root().string(); }, "The store's directory.")
      .def_prop_ro(
          "run_id",
          [](Dataset& self) {
            return self.without_gil([](TokenDataset& dataset) { return dataset.run_id(); });
          },
          "The run it belongs to; 0 if it has none or is closed.");
}

}  // namespace tokcask::python
