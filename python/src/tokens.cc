#include "tokens.h"

#include <fmt/format.h>

#include <cstdint>

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

Is also a read-only mapping of "input_ids" and "attention_mask" to the arrays, as the rows are that collators of
other libraries take: tokens["input_ids"] is tokens.input_ids.

Objects compare by value. A pickle holds copies. May be used in any thread.)";

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
void construct(CachedTokens* self, nb::handle input_ids, nb::handle attention_mask) {
  if (is_mapping(input_ids)) {
    throw nb::type_error(
        fmt::format("input_ids is a mapping ({}); give its arrays one by one", kind_of(input_ids)).c_str());
  }
  const nb::object of_integers = nb::module_::import_("tokcask._arrays").attr("of_integers");
  new (self) CachedTokens(CachedTokens::Given{
      .input_ids = of_integers(input_ids, "input_ids"),
      .attention_mask = attention_mask.is_none() ? nb::none() : of_integers(attention_mask, "attention_mask"),
  });
}

// What makes it a mapping.

bool is_key(nb::handle key, const char* name) {
  return PyUnicode_Check(key.ptr()) && PyUnicode_CompareWithASCIIString(key.ptr(), name) == 0;
}

bool contains(nb::handle_t<CachedTokens> /*self*/, nb::handle key) {
  return is_key(key, "input_ids") || is_key(key, "attention_mask");
}

nb::object get(nb::handle_t<CachedTokens> self, nb::handle key, nb::handle otherwise) {
  if (is_key(key, "input_ids")) return input_ids(self);
  if (is_key(key, "attention_mask")) return attention_mask(self);
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
          [](nb::handle_t<CachedTokens> /*self*/) {
            return nb::iter(nb::make_tuple("input_ids", "attention_mask"));
          },
          nb::sig("def __iter__(self) -> collections.abc.Iterator[str]"))
      .def(
          "__len__", [](nb::handle_t<CachedTokens> /*self*/) { return 2; },
          nb::sig("def __len__(self) -> int"))
      .def("get", get, nb::arg("key").none(), nb::arg("default") = nb::none(),
           nb::sig("def get(self, key: str, default: typing.Any = None) -> typing.Any"),
           "The array of that name, or `default` for any other.")
      .def("keys", view("KeysView"), nb::sig("def keys(self) -> collections.abc.KeysView[str]"),
           "The names: \"input_ids\" and \"attention_mask\".")
      .def("values", view("ValuesView"),
           nb::sig("def values(self) -> collections.abc.ValuesView[numpy.typing.NDArray[numpy.int32]]"),
           "The two arrays.")
      .def("items", view("ItemsView"),
           nb::sig("def items(self) -> collections.abc.ItemsView[str, numpy.typing.NDArray[numpy.int32]]"),
           "Both, as pairs.");
  nb::module_::import_("collections.abc").attr("Mapping").attr("register")(tokens);
}

bool equal(nb::handle_t<CachedTokens> a, nb::handle_t<CachedTokens> b) {
  const nb::object same = nb::module_::import_("numpy").attr("array_equal");
  return nb::cast<bool>(same(input_ids(a), input_ids(b))) &&
         nb::cast<bool>(same(attention_mask(a), attention_mask(b)));
}

nb::object represent(nb::handle_t<CachedTokens> self) {
  return nb::str("CachedTokens(input_ids={!r}, attention_mask={!r})")
      .format(input_ids(self), attention_mask(self));
}

}  // namespace

CheckedTokens::CheckedTokens(const CachedTokens& tokens, const std::string& whose) {
  if (const TokenView* view = tokens.view()) {
    view_ = *view;
    tokens_.input_ids = view->input_ids();
    if (!view->mask_is_all_ones()) tokens_.attention_mask = view->attention_mask();
    return;
  }
  input_ids_ = as_int32(tokens.given()->input_ids, "input_ids" + whose);
  tokens_.input_ids = span_of(input_ids_);
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
      .def("__init__", construct, nb::arg("input_ids"), nb::arg("attention_mask") = nb::none(),
           nb::sig("def __init__(self, input_ids: numpy.typing.ArrayLike, "
                   "attention_mask: numpy.typing.ArrayLike | None = None) -> None"))
      .def_prop_ro("input_ids", input_ids, kInputIds,
                   nb::for_getter(nb::sig("def input_ids(self, /) -> numpy.typing.NDArray[numpy.int32]")))
      .def_prop_ro(
          "attention_mask", attention_mask, kAttentionMask,
          nb::for_getter(nb::sig("def attention_mask(self, /) -> numpy.typing.NDArray[numpy.int32]")))
      .def("__eq__", equal, nb::is_operator(), nb::sig("def __eq__(self, other: object, /) -> bool"))
      .def("__repr__", represent, nb::sig("def __repr__(self) -> str"))
      .def(
          "__reduce__",
          [](nb::handle_t<CachedTokens> self) {
            return nb::make_tuple(self.type(), nb::make_tuple(input_ids(self), attention_mask(self)));
          },
          nb::sig("def __reduce__(self) -> tuple[object, ...]"));
  bind_mapping(tokens);
  // Equal by value, and the arrays of a caller can change.
  tokens.attr("__hash__") = nb::none();
}

}  // namespace tokcask::python
