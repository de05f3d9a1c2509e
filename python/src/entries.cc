#include "entries.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <tokcask/cache.h>

#include "arguments.h"
#include "logged.h"

namespace tokcask::python {
namespace {

namespace nb = nanobind;

// The array takes the vector over, so the tokens of a batch are copied once, out of the map.
template <typename T>
nb::object array_of(std::vector<T> values) {
  auto owned = std::make_unique<std::vector<T>>(std::move(values));
  owned->reserve(1);  // NumPy wants an address, also for no elements
  T* const data = owned->data();
  const std::size_t shape[] = {owned->size()};
  const nb::capsule owner(owned.get(), [](void* all) noexcept { delete static_cast<std::vector<T>*>(all); });
  static_cast<void>(owned.release());
  return nb::cast(nb::ndarray<nb::numpy, T, nb::ndim<1>>(data, 1, shape, owner));
}

// What is learned of an entry would be lost where only ids and masks are taken.
void refuse_loss(const Entry& entry) {
  const PartList& parts = entry.view.parts();
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const Part part = parts[i];
    if (part.kind != PartKind::kSpans && !(part.kind == PartKind::kArray && part.name == "labels")) continue;
    throw nb::value_error(
        fmt::format("{} has \"{}\", which says what is learned and would be lost: no format that "
                    "is written here has a place for it. Leave such entries out, by tokenizer or "
                    "length, or read them with TokenizedCache",
                    entry.info.key.canonical(), part.name)
            .c_str());
  }
}

// The entries of a batch in columns.
struct Columns {
  std::vector<CacheKey> keys;
  std::vector<std::int64_t> lengths;
  std::vector<std::int32_t> ids;  // of one entry after the other
  std::vector<std::pair<std::size_t, std::vector<std::int32_t>>>
      masks;  // those that are not all ones, by row

  void add(const Entry& entry) {
    refuse_loss(entry);
    const auto from = entry.view.input_ids();
    if (!entry.view.mask_is_all_ones()) {
      const auto mask = entry.view.attention_mask();
      masks.emplace_back(keys.size(), std::vector(mask.begin(), mask.end()));
    }
    keys.push_back(entry.info.key);
    lengths.push_back(static_cast<std::int64_t>(from.size()));
    ids.insert(ids.end(), from.begin(), from.end());
  }
};

nb::tuple to_python(Columns columns) {
  nb::list keys;
  for (CacheKey& key : columns.keys) keys.append(nb::cast(std::move(key)));
  nb::dict masks;
  for (auto& [row, mask] : columns.masks) masks[nb::int_(row)] = array_of(std::move(mask));
  return nb::make_tuple(keys, array_of(std::move(columns.lengths)), array_of(std::move(columns.ids)), masks);
}

// The two halves of 32 lower-case hex digits as numbers, which is what nearly all section ids are; nothing
// for others.
std::optional<std::array<std::uint64_t, 2>> to_numbers(std::string_view section_id) {
  const auto is_digit = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
  if (section_id.size() != 32 || !std::all_of(section_id.begin(), section_id.end(), is_digit))
    return std::nullopt;
  std::array<std::uint64_t, 2> numbers{};
  for (const std::size_t half : {0, 1}) {
    const char* const digits = section_id.data() + 16 * half;
    std::from_chars(digits, digits + 16, numbers[half], 16);
  }
  return numbers;
}

// Two numbers per section: an array of [sections, 2].
nb::object pairs_of(std::vector<std::uint64_t> numbers) {
  const auto sections = static_cast<Py_ssize_t>(numbers.size() / 2);
  return array_of(std::move(numbers)).attr("reshape")(sections, 2);
}

// A store that is only looked at: no run, no hit, no access.
class EntryReader : public Logged<TokenizedCache> {
 public:
  EntryReader(const std::string& root, bool allow_network_filesystem)
      : Logged([&](MessageSink sink) {
          Options options;
          options.read_only = true;
          options.observe = true;
          options.allow_network_filesystem = allow_network_filesystem;
          options.on_message = std::move(sink);
          return TokenizedCache::open(root, std::move(options));
        }) {}

  [[nodiscard]] nb::list groups() {
    nb::list found;
    for (const auto& group : without_gil([](TokenizedCache& store) { return store.survey(); }).groups) {
      found.append(nb::make_tuple(group.tokenizer_sha, group.sequence_len, group.entries, group.tokens));
    }
    return found;
  }

  // The next entries in key order that are of this tokenizer and this length (0: any); nothing at the end.
  [[nodiscard]] nb::object next(std::string_view tokenizer_sha, std::int32_t sequence_len) {
    Columns columns;
    while (columns.keys.empty() && !end_) {
      without_gil([&](TokenizedCache& store) {
        const EntryChunk chunk = store.entries(position_);
        damaged_ += chunk.damaged;
        end_ = chunk.end;
        for (const Entry& entry : chunk.entries) {
          const CacheKey& key = entry.info.key;
          if (key.tokenizer_sha() != tokenizer_sha) continue;
          if (sequence_len == 0 || key.sequence_len() == sequence_len) columns.add(entry);
        }
      });
    }
    if (columns.keys.empty()) return nb::none();
    return to_python(std::move(columns));
  }

  [[nodiscard]] nb::tuple fetch(const std::vector<CacheKey>& keys) {
    Columns columns;
    without_gil([&](TokenizedCache& store) {
      for (const std::optional<Entry>& entry : store.peek_many(keys)) {
        if (entry) columns.add(*entry);
      }
    });
    return to_python(std::move(columns));
  }

  [[nodiscard]] nb::tuple keys(std::string_view tokenizer_sha, std::int32_t sequence_len) {
    std::vector<std::uint64_t> sections;
    std::vector<std::int32_t> lengths;
    std::vector<std::pair<std::size_t, std::string>> others;
    without_gil([&](TokenizedCache& store) {
      const auto length = sequence_len == 0 ? std::nullopt : std::optional(sequence_len);
      for (const CacheKey& key : store.keys(tokenizer_sha, length)) {
        const auto numbers = to_numbers(key.section_id());
        if (!numbers) others.emplace_back(lengths.size(), key.section_id());
        for (const std::uint64_t number : numbers.value_or(std::array<std::uint64_t, 2>{})) {
          sections.push_back(number);
        }
        lengths.push_back(key.sequence_len());
      }
    });
    nb::dict named;
    for (const auto& [row, section] : others) named[nb::int_(row)] = section;
    return nb::make_tuple(pairs_of(std::move(sections)), array_of(std::move(lengths)), named);
  }

  [[nodiscard]] nb::object source_sections() {
    std::vector<std::uint64_t> sections;
    without_gil([&](TokenizedCache& store) {
      for (const std::string& path : store.source_directories()) {
        const auto files = store.source_directory(path);
        if (!files) continue;
        for (const SourceFile& file : *files) {
          if (file.kind != SourceKind::kSection) continue;
          for (const std::size_t half : {0, 1}) {
            std::uint64_t number = 0;
            for (const std::uint8_t byte : std::span(file.section).subspan(8 * half, 8)) {
              number = number << 8 | byte;
            }
            sections.push_back(number);
          }
        }
      }
    });
    return pairs_of(std::move(sections));
  }

  [[nodiscard]] std::uint64_t damaged() const noexcept { return damaged_; }
  void close() {
    without_gil([](TokenizedCache& store) { store.close(); });
  }

 private:
  EntryPosition position_;
  bool end_ = false;
  std::uint64_t damaged_ = 0;
};

}  // namespace

void bind_entries(nb::module_& module) {
  nb::class_<EntryReader>(module, "EntryReader", nb::is_final(),
                          "The entries of a store, in columns and without a trace. One thread.")
      .def(
          "__init__",
          [](EntryReader* self, nb::handle root, bool allow_network_filesystem) {
            new (self) EntryReader(std::filesystem::absolute(to_path(root, "store")).string(),
                                   allow_network_filesystem);
          },
          nb::arg("root"), nb::kw_only(), nb::arg("allow_network_filesystem") = false,
          nb::sig(
              "def __init__(self, root: str | os.PathLike[str], *, allow_network_filesystem: bool = False) "
              "-> None"))
      .def("groups", &EntryReader::groups, nb::sig("def groups(self) -> list[tuple[str, int, int, int]]"),
           "(tokenizer_sha, sequence_len, entries, tokens) of each tokenizer and sequence length.")
      .def("next", &EntryReader::next, nb::arg("tokenizer_sha"), nb::arg("sequence_len"),
           nb::sig("def next(self, tokenizer_sha: str, sequence_len: int) -> tuple[list[CacheKey], "
                   "numpy.typing.NDArray[numpy.int64], numpy.typing.NDArray[numpy.int32], "
                   "dict[int, numpy.typing.NDArray[numpy.int32]]] | None"),
           "The next entries in key order: keys, lengths, the ids of all, and by row the masks that are not "
           "all "
           "ones. sequence_len 0: any.")
      .def("fetch", &EntryReader::fetch, nb::arg("keys"),
           nb::sig("def fetch(self, keys: collections.abc.Sequence[CacheKey]) -> tuple[list[CacheKey], "
                   "numpy.typing.NDArray[numpy.int64], numpy.typing.NDArray[numpy.int32], "
                   "dict[int, numpy.typing.NDArray[numpy.int32]]]"),
           "The same of the entries under keys, in their order, without those that are not there or damaged.")
      .def(
          "keys", &EntryReader::keys, nb::arg("tokenizer_sha"), nb::arg("sequence_len"),
          nb::sig(
              "def keys(self, tokenizer_sha: str, sequence_len: int) -> "
              "tuple[numpy.typing.NDArray[numpy.uint64], numpy.typing.NDArray[numpy.int32], dict[int, str]]"),
          "All keys in key order: sections as two numbers each, the halves of 32 hex digits, sequence "
          "lengths, and by row the sections that are none.")
      .def("source_sections", &EntryReader::source_sections,
           nb::sig("def source_sections(self) -> numpy.typing.NDArray[numpy.uint64]"),
           "The sections of all remembered files as in keys(), directory by directory, by name within.")
      .def_prop_ro("damaged", &EntryReader::damaged, "Records that next() has left out.")
      .def("close", &EntryReader::close, "Releases the store.");
}

}  // namespace tokcask::python
