#include "key.h"

#include <nanobind/operators.h>
#include <nanobind/stl/string_view.h>

#include <fmt/format.h>

#include <functional>

#include <tokcask/error.h>
#include <tokcask/key.h>

#include "arguments.h"

namespace tokcask::python {
namespace {

constexpr const char* kCacheKey =
    R"(What one tokenization is stored under: which text, which tokenizer, cut at which length.

A change to any of the three is another key, so tokens are never served for a text, a tokenizer or a length
they were not made with. Immutable, hashable, ordered, picklable. str(key) is the canonical form
`section_id|tokenizer_sha|sequence_len`, which parse() reads.

section_id     the identity of the text; see section_id()
tokenizer_sha  the identity of the tokenizer; see tokenizer_sha256()
sequence_len   tokens that were kept at most, from 1 to 2**31 - 1, which is for tokens that are not cut

ValueError when a part is empty, holds '|' or a control character, when the length is out of range, or when
the canonical form is longer than 504 bytes. TypeError for parts of another type, bool included.)";

constexpr const char* kSectionId =
    R"(The identity of a text: 32 hexadecimal digits, 128 bits of a hash of its content.

kind says what will be made of the text, so that one text tokenized by two recipes has two identities. The
text is hashed as UTF-8; ValueError if it cannot be encoded, or if kind holds a NUL.)";

void construct(CacheKey* self, nb::handle section_id, nb::handle tokenizer_sha, nb::handle sequence_len) {
  const std::string_view section = to_text(section_id, "section_id");
  const std::string_view sha = to_text(tokenizer_sha, "tokenizer_sha");
  if (sequence_len.is_none()) {
    throw nb::type_error(
        "sequence_len must be an int, not None; for tokens that are not cut, give 2**31 - 1");
  }
  new (self) CacheKey(section, sha, to_integer(sequence_len, "sequence_len"));
}

std::string represent(const CacheKey& key) {
  const auto quoted = [](std::string_view text) { return nb::cast<std::string>(nb::repr(nb::cast(text))); };
  return fmt::format("CacheKey(section_id={}, tokenizer_sha={}, sequence_len={})", quoted(key.section_id()),
                     quoted(key.tokenizer_sha()), key.sequence_len());
}

std::string identify(nb::handle text, nb::handle kind) {
  const std::string_view kind_text = to_text(kind, "kind");
  if (kind_text.find('\0') != std::string_view::npos) {
    throw nb::value_error("kind holds a NUL, which separates it from the text");
  }
  return section_id(to_text(text, "text"), kind_text);
}

}  // namespace

void bind_key(nb::module_& module) {
  nb::class_<CacheKey>(module, "CacheKey", nb::is_final(), kCacheKey)
      .def("__init__", construct, nb::arg("section_id").none(), nb::arg("tokenizer_sha").none(),
           nb::arg("sequence_len").none(),
           nb::sig("def __init__(self, section_id: str, tokenizer_sha: str, sequence_len: int) -> None"))
      .def_static(
          "parse", [](nb::handle canonical) { return CacheKey::parse(to_text(canonical, "canonical")); },
          nb::arg("canonical"), nb::sig("def parse(canonical: str) -> CacheKey"),
          "The key whose canonical form this is. ValueError for anything else.")
      .def_prop_ro(
          "section_id", [](const CacheKey& key) { return key.section_id(); }, "The identity of the text.")
      .def_prop_ro(
          "tokenizer_sha", [](const CacheKey& key) { return key.tokenizer_sha(); },
          "The identity of the tokenizer.")
      .def_prop_ro("sequence_len", &CacheKey::sequence_len, "Tokens that were kept at most.")
      .def("__str__", [](const CacheKey& key) { return key.canonical(); })
      .def("__repr__", represent)
      .def("__hash__", [](const CacheKey& key) { return std::hash<std::string>()(key.canonical()); })
      .def(nb::self == nb::self, nb::sig("def __eq__(self, other: object, /) -> bool"))
      .def(nb::self < nb::self, nb::sig("def __lt__(self, other: CacheKey, /) -> bool"))
      .def(nb::self <= nb::self, nb::sig("def __le__(self, other: CacheKey, /) -> bool"))
      .def(nb::self > nb::self, nb::sig("def __gt__(self, other: CacheKey, /) -> bool"))
      .def(nb::self >= nb::self, nb::sig("def __ge__(self, other: CacheKey, /) -> bool"))
      .def(
          "__reduce__",
          [](nb::handle_t<CacheKey> self) {
            const CacheKey& key = nb::cast<const CacheKey&>(self);
            return nb::make_tuple(self.type(),
                                  nb::make_tuple(key.section_id(), key.tokenizer_sha(), key.sequence_len()));
          },
          nb::sig("def __reduce__(self) -> tuple[object, ...]"));
  module.def("section_id", identify, nb::arg("text"), nb::arg("kind") = "text",
             nb::sig("def section_id(text: str, kind: str = 'text') -> str"), kSectionId);
}

}  // namespace tokcask::python
