#include "collate.h"

#include <nanobind/stl/optional.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "arguments.h"
#include "gil.h"
#include "numpy_array.h"

namespace tokcask::python {
namespace {

bool is_list(nb::handle value) { return nb::isinstance<nb::list>(value) || nb::isinstance<nb::tuple>(value); }

// A copy, because making arrays of its items can run code that changes the list.
nb::tuple items_of(nb::handle list) {
  PyObject* const items = PySequence_Tuple(list.ptr());
  if (items == nullptr) throw nb::python_error();
  return nb::steal<nb::tuple>(items);
}

// Whether an item of a list is a row, and not the number of a token.
bool is_row(nb::handle item) {
  if (nb::isinstance<CachedTokens>(item) || is_list(item) || is_mapping(item)) return true;
  const nb::object dimensions = nb::getattr(item, "ndim", nb::int_(0));
  return nb::isinstance<nb::int_>(dimensions) && nb::cast<std::int64_t>(dimensions) > 0;
}

// Whether the items are groups of rows: the first that is not an empty list tells.
bool are_groups(const nb::tuple& items) {
  for (const nb::handle item : items) {
    if (!is_list(item)) return false;
    if (nb::len(item) > 0) return is_row(nb::object(item[0]));
  }
  return false;
}

// Null where the mapping has no such key.
nb::object find(nb::handle mapping, const char* key) {
  PyObject* const found = PyObject_GetItem(mapping.ptr(), nb::str(key).ptr());
  if (found == nullptr) {
    if (!PyErr_ExceptionMatches(PyExc_KeyError)) throw nb::python_error();
    PyErr_Clear();
  }
  return nb::steal(found);
}

nb::object as_array(nb::handle value, const char* name, const std::string& whose) {
  try {
    return nb::module_::import_("numpy").attr("asarray")(value);
  } catch (nb::python_error& error) {
    if (!error.matches(PyExc_TypeError) && !error.matches(PyExc_ValueError)) throw;
    nb::raise_from(error, PyExc_ValueError, "%s%s cannot be made an array", name, whose.c_str());
    throw nb::python_error();
  }
}

// An array to be filled; None for one that is not wanted.
template <typename T>
class Output {
 public:
  Output(nb::handle array, const char* name, const std::vector<std::size_t>& shape) {
    if (array.is_none()) return;
    if (!nb::try_cast(array, array_, /*convert=*/false) ||
        reinterpret_cast<std::uintptr_t>(array_.data()) % alignof(T) != 0) {
      throw nb::type_error(fmt::format("{} must be a writable, C-contiguous array of int{} in main memory",
                                       name, 8 * sizeof(T))
                               .c_str());
    }
    const std::vector<std::size_t> given(array_.shape_ptr(), array_.shape_ptr() + array_.ndim());
    if (given != shape) {
      throw nb::value_error(fmt::format("{} has the shape ({}), but must have ({})", name,
                                        fmt::join(given, ", "), fmt::join(shape, ", "))
                                .c_str());
    }
  }

  [[nodiscard]] std::span<T> span() const {
    return array_.is_valid() ? std::span<T>(array_.data(), array_.size()) : std::span<T>();
  }

 private:
  nb::ndarray<T, nb::c_contig, nb::device::cpu> array_;
};

using Output64 = Output<std::int64_t>;
using Output32 = Output<std::int32_t>;

const std::vector<std::size_t>& groups_of(const Rows& rows) {
  if (rows.group_ends() == nullptr) throw nb::value_error("these rows have no groups");
  return *rows.group_ends();
}

std::size_t columns(const Rows& rows, const OwnedPadding& owned) {
  const Padding& padding = owned.padding;
  if (const auto* ends = rows.group_ends()) return packed_columns(rows.tokens(), *ends, padding);
  return padded_columns(rows.tokens(), padding);
}

void pad(const Rows& rows, const OwnedPadding& owned, nb::handle input_ids, nb::handle attention_mask,
         nb::handle labels) {
  const Padding& padding = owned.padding;
  const std::vector<std::size_t> shape{rows.tokens().size(), padded_columns(rows.tokens(), padding)};
  const Output64 ids(input_ids, "input_ids", shape);
  const Output64 mask(attention_mask, "attention_mask", shape);
  const Output64 own_labels(labels, "labels", shape);
  const WithoutGil released;
  pad_rows(rows.tokens(), padding,
           {.input_ids = ids.span(), .attention_mask = mask.span(), .labels = own_labels.span()});
}

void pad_groups(const Rows& rows, const OwnedPadding& owned, nb::handle input_ids, nb::handle position_ids,
                nb::handle labels) {
  const Padding& padding = owned.padding;
  const std::vector<std::size_t>& ends = groups_of(rows);
  const std::vector<std::size_t> shape{ends.size(), packed_columns(rows.tokens(), ends, padding)};
  const Output64 ids(input_ids, "input_ids", shape);
  const Output64 positions(position_ids, "position_ids", shape);
  const Output64 own_labels(labels, "labels", shape);
  const WithoutGil released;
  pad_packed(rows.tokens(), ends, padding,
             {.input_ids = ids.span(), .position_ids = positions.span(), .labels = own_labels.span()});
}

void flatten(const Rows& rows, const OwnedPadding& owned, nb::handle input_ids, nb::handle position_ids,
             nb::handle labels, nb::handle cu_seqlens, nb::handle seq_idx) {
  const Padding& padding = owned.padding;
  const FlatShape flat = flat_shape(rows.tokens(), padding);
  const std::vector<std::size_t> shape{1, flat.tokens};
  const Output64 ids(input_ids, "input_ids", shape);
  const Output64 positions(position_ids, "position_ids", shape);
  const Output64 own_labels(labels, "labels", shape);
  const Output32 lengths(cu_seqlens, "cu_seq_lens", {flat.sequences + 1});
  const Output32 numbers(seq_idx, "seq_idx", shape);
  const WithoutGil released;
  flatten_rows(rows.tokens(), padding,
               {.input_ids = ids.span(),
                .position_ids = positions.span(),
                .labels = own_labels.span(),
                .cu_seqlens = lengths.span(),
                .seq_idx = numbers.span()});
}

nb::tuple pack(nb::ndarray<const std::uint32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu> lengths,
               std::size_t capacity) {
  Packing packing;
  {
    const WithoutGil released;
    packing = pack_best_fit_decreasing({lengths.data(), lengths.size()}, capacity);
  }
  return nb::make_tuple(owned_array<std::int64_t>(packing.rows), owned_array<std::int64_t>(packing.bin_ends));
}

}  // namespace

std::string Rows::Place::text() const {
  return group ? fmt::format("row {} of group {}", row, *group) : fmt::format("row {}", row);
}

Rows::Rows(nb::handle rows) {
  if (!is_list(rows)) {
    throw nb::type_error(fmt::format("rows must be a list or a tuple, not {}", kind_of(rows)).c_str());
  }
  const nb::tuple items = items_of(rows);
  if (!are_groups(items)) {
    owners_.push_back(items);
    tokens_.reserve(items.size());
    for (std::size_t i = 0; i < items.size(); ++i) add(items[i], {.row = i});
    return;
  }
  group_ends_.emplace();
  for (std::size_t group = 0; group < items.size(); ++group) {
    const nb::object inside = items[group];
    if (!is_list(inside)) {
      throw nb::type_error(
          fmt::format("item {} of rows is {}, but those before are groups of rows", group, kind_of(inside))
              .c_str());
    }
    owners_.push_back(items_of(inside));
    for (std::size_t i = 0; i < owners_.back().size(); ++i) {
      add(owners_.back()[i], {.row = i, .group = group});
    }
    group_ends_->push_back(tokens_.size());
  }
}

void Rows::add(nb::handle row, const Place& place) {
  // Compared by hand, because a cast looks the type up for each row.
  if (!row.type().is(cached_tokens_) || !nb::inst_ready(row)) return add_other(row, place);
  const CachedTokens& tokens = *nb::inst_ptr<const CachedTokens>(row);
  if (const TokenView* view = tokens.view()) {
    tokens_.push_back(view->tokens());
  } else {
    tokens_.push_back(converted_.emplace_back(tokens, " of " + place.text()).tokens());
  }
}

void Rows::add_other(nb::handle row, const Place& place) {
  if (row.is_none()) {
    throw nb::type_error((place.text() + " is None, as get_many() returns for a miss").c_str());
  }
  const std::string whose = " of " + place.text();
  CachedTokens::Given given{.input_ids = nb::borrow(row), .attention_mask = nb::none()};
  nb::object labels;
  if (is_mapping(row)) {
    given.input_ids = find(row, "input_ids");
    if (!given.input_ids.is_valid()) throw nb::value_error((place.text() + " has no input_ids").c_str());
    if (nb::object mask = find(row, "attention_mask"); mask.is_valid())
      given.attention_mask = std::move(mask);
    labels = find(row, "labels");
  }
  given.input_ids = as_array(given.input_ids, "input_ids", whose);
  if (!given.attention_mask.is_none()) {
    given.attention_mask = as_array(given.attention_mask, "attention_mask", whose);
  }
  if (labels.is_valid() && !labels.is_none()) {
    try {
      given.parts =
          to_parts(given.input_ids, as_array(labels, "labels", whose), nb::none(), nb::none(), nb::none());
    } catch (const nb::builtin_exception& error) {
      throw nb::value_error(fmt::format("{}: {}", place.text(), error.what()).c_str());
    }
  }
  const CachedTokens tokens(std::move(given));
  tokens_.push_back(converted_.emplace_back(tokens, whose).tokens());
}

void Rows::pack(std::size_t capacity, const Padding& padding) {
  if (group_ends_) throw nb::value_error("rows that are grouped already cannot be packed");
  std::vector<std::uint32_t> lengths;
  lengths.reserve(tokens_.size());
  for (const Tokens& row : tokens_) {
    // No array of int32 in memory is longer than the most that is told here, which no bin holds then.
    const std::size_t most = padding.max_tokens == 0 ? UINT32_MAX : padding.max_tokens;
    lengths.push_back(
        static_cast<std::uint32_t>(std::min({row.input_ids.size(), most, std::size_t{UINT32_MAX}})));
  }
  Packing packing = pack_best_fit_decreasing(lengths, capacity);
  std::vector<Tokens> packed;
  packed.reserve(packing.rows.size());
  for (const std::uint32_t row : packing.rows) packed.push_back(tokens_[row]);
  tokens_ = std::move(packed);
  group_ends_ = std::move(packing.bin_ends);
}

void bind_collate(nb::module_& module) {
  nb::class_<OwnedPadding>(module, "Padding", nb::is_final(), "How rows are padded, cut and learned.")
      .def(
          "__init__",
          [](OwnedPadding* self, std::int64_t token_id, bool left, std::size_t columns,
             std::size_t multiple_of, bool ignore_token, std::size_t max_tokens, bool keep_end,
             nb::handle loss) {
            new (self) OwnedPadding{.padding = {.token_id = token_id,
                                                .side = left ? PaddingSide::kLeft : PaddingSide::kRight,
                                                .columns = columns,
                                                .multiple_of = multiple_of,
                                                .ignore_token = ignore_token,
                                                .max_tokens = max_tokens,
                                                .keep_end = keep_end}};
            if (loss.is_none()) return;
            for (const nb::handle name : loss) self->names.emplace_back(to_text(name, "loss"));
            self->views.assign(self->names.begin(), self->names.end());
            self->padding.loss = self->views;
          },
          nb::arg("token_id") = 0, nb::arg("left") = false, nb::arg("columns") = 0,
          nb::arg("multiple_of") = 1, nb::arg("ignore_token") = false, nb::arg("max_tokens") = 0,
          nb::arg("keep_end") = false, nb::arg("loss") = nb::none(),
          nb::sig("def __init__(self, token_id: int = 0, left: bool = False, columns: int = 0, multiple_of: "
                  "int = 1, "
                  "ignore_token: bool = False, max_tokens: int = 0, keep_end: bool = False, "
                  "loss: collections.abc.Sequence[str] | None = None) -> None"));

  nb::class_<Rows> rows(module, "Rows", nb::is_final(),
                        "Rows, or groups of rows, on their way into a batch.");
  rows.def(nb::init<nb::handle>(), nb::arg("rows"),
           nb::sig("def __init__(self, rows: list[typing.Any] | tuple[typing.Any, ...]) -> None"))
      .def("__len__", [](const Rows& self) { return self.tokens().size(); })
      .def_prop_ro(
          "groups",
          [](const Rows& self) -> std::optional<std::size_t> {
            if (const auto* ends = self.group_ends()) return ends->size();
            return {};
          },
          "How many groups; None for rows without.")
      .def(
          "pack",
          [](Rows& self, std::size_t capacity, const OwnedPadding& owned) {
            self.pack(capacity, owned.padding);
          },
          nb::arg("capacity"), nb::arg("padding"), "Groups the rows by best fit decreasing.")
      .def("columns", columns, nb::arg("padding"), "Tokens in a row, or group, of the batch.")
      .def(
          "flat_shape",
          [](const Rows& self, const OwnedPadding& owned) {
            const FlatShape shape = flat_shape(self.tokens(), owned.padding);
            return nb::make_tuple(shape.tokens, shape.sequences, shape.longest);
          },
          nb::arg("padding"), nb::sig("def flat_shape(self, padding: Padding) -> tuple[int, int, int]"),
          "Tokens, sequences, and tokens of the longest, when flattened.")
      .def("pad", pad, nb::arg("padding"), nb::arg("input_ids") = nb::none(),
           nb::arg("attention_mask") = nb::none(), nb::arg("labels") = nb::none(),
           nb::sig(
               "def pad(self, padding: Padding, input_ids: typing.Any = None, attention_mask: typing.Any = "
               "None, labels: typing.Any = None) -> None"),
           "Fills arrays of int64, [rows, columns]; one that is None is not wanted.")
      .def("pad_groups", pad_groups, nb::arg("padding"), nb::arg("input_ids") = nb::none(),
           nb::arg("position_ids") = nb::none(), nb::arg("labels") = nb::none(),
           nb::sig("def pad_groups(self, padding: Padding, input_ids: typing.Any = None, position_ids: "
                   "typing.Any = None, labels: typing.Any = None) -> None"),
           "Fills arrays of int64, [groups, columns]; one that is None is not wanted.")
      .def("flatten", flatten, nb::arg("padding"), nb::arg("input_ids") = nb::none(),
           nb::arg("position_ids") = nb::none(), nb::arg("labels") = nb::none(),
           nb::arg("cu_seqlens") = nb::none(), nb::arg("seq_idx") = nb::none(),
           nb::sig(
               "def flatten(self, padding: Padding, input_ids: typing.Any = None, position_ids: typing.Any "
               "= None, labels: typing.Any = None, cu_seqlens: typing.Any = None, seq_idx: typing.Any = "
               "None) -> None"),
           "Fills arrays of int64, [1, tokens], and of int32: cu_seqlens, [sequences + 1], and seq_idx, [1, "
           "tokens]. One that is None is not wanted.");

  module.def("pack", pack, nb::arg("lengths"), nb::arg("capacity"),
             nb::sig("def pack(lengths: numpy.typing.NDArray[numpy.uint32], capacity: int) -> "
                     "tuple[numpy.typing.NDArray[numpy.int64], numpy.typing.NDArray[numpy.int64]]"),
             "The rows by their place, bin by bin, and where each bin ends in there.");
}

}  // namespace tokcask::python
