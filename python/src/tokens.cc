#include "tokens.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#include "arguments.h"
#include "numpy_array.h"

namespace tokcask::python {
namespace {

constexpr const char* kCachedTokens =
    R"(The tokens of one section: input_ids and attention_mask, 1-D arrays of one length.

As returned by get(), both are read-only NumPy arrays of int32 that lie in the store's memory map: nothing is
copied. input_ids starts at a multiple of 8 bytes, of 64 for about 480 tokens and more. The bytes stay valid
and unchanged for as long as any of the arrays or this object lives, whatever happens to the store or to the
cache it came from; the price is that the pages of that snapshot are not reused meanwhile. Copy the arrays
(numpy.array(tokens.input_ids)) to hold them for long.

To be put, arrays of any integer dtype will do, and lists; ValueError for floats. Whether they can be stored is
checked by put().
attention_mask=None means all ones. No tokens at all is legal.

Beside its ids an entry may have parts, at most 64, each with a name of at most 64 bytes:
    spans    {name: pairs (begin, end)} over the ids, sorted, which do not overlap: "assistant", "prompt", "chosen"
    scalars  {name: int or float}
    arrays   {name: 1-D array} of any length, of int8, uint8, int16, int32, int64, float16 or float32
    labels   one per id, -100 for what is not to be learned; see the attribute
An entry without parts takes not a byte more. ValueError or TypeError, which name the part, for what cannot be one.

Is also a read-only mapping of "input_ids" and "attention_mask" to the arrays, as the rows are that collators of
other libraries take: tokens["input_ids"] is tokens.input_ids.

Objects compare by value. A pickle holds copies. May be used in any thread.)";

constexpr const char* kLabelsDoc =
    "What is to be learned: int64, as long as input_ids, -100 where nothing is; made for each call. None "
    "where the\n"
    "entry has no labels. They are stored as spans, 8 bytes each, where each is the id or -100.";
constexpr const char* kSpansDoc =
    "{name: int64 array [spans, 2]} of pairs (begin, end) over the ids, sorted; copies.";
constexpr const char* kScalarsDoc = "{name: int or float}.";
constexpr const char* kArraysDoc =
    "{name: 1-D array}, read-only from get() and in place, at a multiple of 8 bytes.";
constexpr const char* kPartDoc =
    "The ids of the span of that name, without a copy. KeyError if there is none, ValueError if there are "
    "several.";
constexpr const char* kInputIds =
    "The token ids: 1-D int32 and read-only from get(), otherwise the array that was given.";
constexpr const char* kAttentionMask =
    "1 for every token that counts: 1-D int32 and read-only from get(), otherwise the array that was given. "
    "A mask\n"
    "of all ones is a view of one array that all entries share.";

// The caller's array itself where it will do, else a converted copy.
Int32Array as_int32(nb::handle array, const std::string& name) {
  Int32Array result;
  const auto usable = [&](nb::handle candidate) {
    return nb::try_cast(candidate, result, /*convert=*/false) &&
           reinterpret_cast<std::uintptr_t>(result.data()) % alignof(std::int32_t) == 0;
  };
  if (usable(array)) return result;
  if (usable(nb::module_::import_("tokcask._arrays").attr("as_int32")(array, name))) return result;
  throw nb::value_error(fmt::format("{} cannot be read as an array of int32", name).c_str());
}

std::span<const std::int32_t> span_of(const Int32Array& array) { return {array.data(), array.size()}; }

nb::object input_ids(nb::handle_t<CachedTokens> self) {
  const CachedTokens& tokens = nb::cast<const CachedTokens&>(self);
  if (const TokenView* view = tokens.view()) return read_only_array(view->input_ids(), self);
  return tokens.given()->input_ids;
}

nb::object attention_mask(nb::handle_t<CachedTokens> self) {
  const CachedTokens& tokens = nb::cast<const CachedTokens&>(self);
  if (const TokenView* view = tokens.view()) {
    // The shared array of ones lives as long as the process; an owner would only pin the snapshot.
    return read_only_array(view->attention_mask(), view->mask_is_all_ones() ? nb::handle() : self);
  }
  const CachedTokens::Given& given = *tokens.given();
  if (!given.attention_mask.is_none()) return given.attention_mask;
  return read_only_array(all_ones(nb::cast<std::size_t>(given.input_ids.attr("size"))), {});
}

// From two arrays or anything that NumPy makes arrays of, which would include a mapping.
void construct(CachedTokens* self, nb::handle input_ids, nb::handle attention_mask, nb::handle labels,
               nb::handle spans, nb::handle scalars, nb::handle arrays) {
  if (is_mapping(input_ids)) {
    throw nb::type_error(
        fmt::format("input_ids is a mapping ({}); give its arrays one by one", kind_of(input_ids)).c_str());
  }
  const nb::object of_integers = nb::module_::import_("tokcask._arrays").attr("of_integers");
  nb::object ids = of_integers(input_ids, "input_ids");
  OwnedParts parts = to_parts(ids, labels, spans, scalars, arrays);
  new (self) CachedTokens(CachedTokens::Given{
      .input_ids = std::move(ids),
      .attention_mask = attention_mask.is_none() ? nb::none() : of_integers(attention_mask, "attention_mask"),
      .parts = std::move(parts),
  });
}

const PartList& parts(nb::handle_t<CachedTokens> self) { return nb::cast<const CachedTokens&>(self).parts(); }

nb::object labels(nb::handle_t<CachedTokens> self) { return labels_of(parts(self), input_ids(self)); }

// The ids of the one span of that name, without a copy.
nb::object part(nb::handle_t<CachedTokens> self, nb::handle name) {
  const std::string text(to_text(name, "name"));
  const auto spans = parts(self).spans(text);
  if (!spans) {
    const nb::object names = nb::str(", ").attr("join")(spans_of(parts(self)));
    throw nb::key_error(
        fmt::format("there are no spans \"{}\"; there are: {}", text, nb::cast<std::string>(names)).c_str());
  }
  if (spans->size() > 1) {
    throw nb::value_error(
        fmt::format("\"{}\" has {} spans; take them from .spans one by one", text, spans->size()).c_str());
  }
  const Span span = spans->empty() ? Span{} : spans->front();
  return input_ids(self)[nb::slice(nb::int_(span.begin), nb::int_(span.end), nb::none())];
}

// What makes it a mapping.

bool is_key(nb::handle key, const char* name) {
  return PyUnicode_Check(key.ptr()) && PyUnicode_CompareWithASCIIString(key.ptr(), name) == 0;
}

bool contains(nb::handle_t<CachedTokens> self, nb::handle key) {
  return is_key(key, "input_ids") || is_key(key, "attention_mask") ||
         (is_key(key, "labels") && has_labels(parts(self)));
}

nb::object get(nb::handle_t<CachedTokens> self, nb::handle key, nb::handle otherwise) {
  if (is_key(key, "input_ids")) return input_ids(self);
  if (is_key(key, "attention_mask")) return attention_mask(self);
  if (is_key(key, "labels") && has_labels(parts(self))) return labels(self);
  return nb::borrow(otherwise);
}

nb::object get_item(nb::handle_t<CachedTokens> self, nb::handle key) {
  nb::object found = get(self, key, {});
  if (found.is_valid()) return found;
  PyErr_SetObject(PyExc_KeyError, key.ptr());
  throw nb::python_error();
}

void bind_mapping(nb::class_<CachedTokens>& tokens) {
  // The views of collections.abc work for any mapping.
  const auto view = [](const char* name) {
    return [name](nb::handle_t<CachedTokens> self) -> nb::object {
      return nb::module_::import_("collections.abc").attr(name)(self);
    };
  };
  tokens
      .def("__getitem__", get_item, nb::arg("key").none(),
           nb::sig("def __getitem__(self, key: str, /) -> numpy.typing.NDArray[numpy.int32]"))
      .def("__contains__", contains, nb::arg("key").none(),
           nb::sig("def __contains__(self, key: object, /) -> bool"))
      .def(
          "__iter__",
          [](nb::handle_t<CachedTokens> self) {
            return nb::iter(has_labels(parts(self)) ? nb::make_tuple("input_ids", "attention_mask", "labels")
                                                    : nb::make_tuple("input_ids", "attention_mask"));
          },
          nb::sig("def __iter__(self) -> collections.abc.Iterator[str]"))
      .def(
          "__len__", [](nb::handle_t<CachedTokens> self) { return has_labels(parts(self)) ? 3 : 2; },
          nb::sig("def __len__(self) -> int"))
      .def("get", get, nb::arg("key").none(), nb::arg("default") = nb::none(),
           nb::sig("def get(self, key: str, default: typing.Any = None) -> typing.Any"),
           "The array of that name, or `default` for any other.")
      .def("keys", view("KeysView"), nb::sig("def keys(self) -> collections.abc.KeysView[str]"),
           "The names: \"input_ids\", \"attention_mask\", and \"labels\" where there are labels.")
      .def("values", view("ValuesView"),
           nb::sig("def values(self) -> collections.abc.ValuesView[numpy.typing.NDArray[numpy.int32]]"),
           "The arrays.")
      .def("items", view("ItemsView"),
           nb::sig("def items(self) -> collections.abc.ItemsView[str, numpy.typing.NDArray[numpy.int32]]"),
           "Names and arrays, as pairs.");
  nb::module_::import_("collections.abc").attr("Mapping").attr("register")(tokens);
}

bool equal(nb::handle_t<CachedTokens> a, nb::handle_t<CachedTokens> b) {
  const nb::object same = nb::module_::import_("numpy").attr("array_equal");
  return nb::cast<bool>(same(input_ids(a), input_ids(b))) &&
         nb::cast<bool>(same(attention_mask(a), attention_mask(b))) &&
         std::ranges::equal(parts(a).bytes(), parts(b).bytes());
}

nb::object represent(nb::handle_t<CachedTokens> self) {
  nb::object text = nb::str("CachedTokens(input_ids={!r}, attention_mask={!r}")
                        .format(input_ids(self), attention_mask(self));
  const auto append = [&](const char* name, const nb::dict& values) {
    if (values.size() > 0) text = text + nb::str(", {}={!r}").format(name, values);
  };
  append("spans", spans_of(parts(self)));
  append("scalars", scalars_of(parts(self)));
  append("arrays", arrays_of(parts(self), self));
  return text + nb::str(")");
}

}  // namespace

CheckedTokens::CheckedTokens(const CachedTokens& tokens, const std::string& whose) {
  if (const TokenView* view = tokens.view()) {
    view_ = *view;
    tokens_ = view_->tokens();
    return;
  }
  input_ids_ = as_int32(tokens.given()->input_ids, "input_ids" + whose);
  tokens_.input_ids = span_of(input_ids_);
  parts_ = tokens.given()->parts.builder;
  tokens_.parts = tokens.given()->parts.list;
  if (tokens.given()->attention_mask.is_none()) return;
  attention_mask_ = as_int32(tokens.given()->attention_mask, "attention_mask" + whose);
  tokens_.attention_mask = span_of(attention_mask_);
  if (tokens_.attention_mask.size() != tokens_.input_ids.size()) {
    throw nb::value_error(fmt::format("attention_mask{} has {} elements, but input_ids has {}", whose,
                                      tokens_.attention_mask.size(), tokens_.input_ids.size())
                              .c_str());
  }
}

void bind_tokens(nb::module_& module) {
  nb::class_<CachedTokens> tokens(
      module, "CachedTokens", nb::is_final(),
      nb::sig("@typing.final\n"
              "class CachedTokens(collections.abc.Mapping[str, numpy.typing.NDArray[numpy.int32]])"),
      kCachedTokens);
  tokens
      .def("__init__", construct, nb::arg("input_ids"), nb::arg("attention_mask") = nb::none(), nb::kw_only(),
           nb::arg("labels") = nb::none(), nb::arg("spans") = nb::none(), nb::arg("scalars") = nb::none(),
           nb::arg("arrays") = nb::none(),
           nb::sig("def __init__(self, input_ids: numpy.typing.ArrayLike, "
                   "attention_mask: numpy.typing.ArrayLike | None = None, *, "
                   "labels: numpy.typing.ArrayLike | None = None, "
                   "spans: collections.abc.Mapping[str, numpy.typing.ArrayLike] | None = None, "
                   "scalars: collections.abc.Mapping[str, int | float] | None = None, "
                   "arrays: collections.abc.Mapping[str, numpy.typing.ArrayLike] | None = None) -> None"))
      .def_prop_ro("input_ids", input_ids, kInputIds,
                   nb::for_getter(nb::sig("def input_ids(self, /) -> numpy.typing.NDArray[numpy.int32]")))
      .def_prop_ro(
          "attention_mask", attention_mask, kAttentionMask,
          nb::for_getter(nb::sig("def attention_mask(self, /) -> numpy.typing.NDArray[numpy.int32]")))
      .def_prop_ro("labels", labels, kLabelsDoc,
                   nb::for_getter(nb::sig("def labels(self, /) -> numpy.typing.NDArray[numpy.int64] | None")))
      .def_prop_ro(
          "spans", [](nb::handle_t<CachedTokens> self) { return spans_of(parts(self)); }, kSpansDoc,
          nb::for_getter(nb::sig("def spans(self, /) -> dict[str, numpy.typing.NDArray[numpy.int64]]")))
      .def_prop_ro(
          "scalars", [](nb::handle_t<CachedTokens> self) { return scalars_of(parts(self)); }, kScalarsDoc,
          nb::for_getter(nb::sig("def scalars(self, /) -> dict[str, int | float]")))
      .def_prop_ro(
          "arrays", [](nb::handle_t<CachedTokens> self) { return arrays_of(parts(self), self); }, kArraysDoc,
          nb::for_getter(nb::sig("def arrays(self, /) -> dict[str, numpy.typing.NDArray[typing.Any]]")))
      .def("part", part, nb::arg("name"),
           nb::sig("def part(self, name: str) -> numpy.typing.NDArray[numpy.int32]"), kPartDoc)
      .def("__eq__", equal, nb::is_operator(), nb::sig("def __eq__(self, other: object, /) -> bool"))
      .def("__repr__", represent, nb::sig("def __repr__(self) -> str"))
      .def(
          "__reduce__",
          [](nb::handle_t<CachedTokens> self) {
            if (parts(self).empty())
              return nb::make_tuple(self.type(), nb::make_tuple(input_ids(self), attention_mask(self)));
            const nb::object make = nb::module_::import_("tokcask._arrays").attr("tokens_with_parts");
            return nb::make_tuple(make,
                                  nb::make_tuple(input_ids(self), attention_mask(self), spans_of(parts(self)),
                                                 scalars_of(parts(self)), arrays_of(parts(self), self)));
          },
          nb::sig("def __reduce__(self) -> tuple[object, ...]"));
  bind_mapping(tokens);
  // Equal by value, and the arrays of a caller can change.
  tokens.attr("__hash__") = nb::none();
}

}  // namespace tokcask::python
