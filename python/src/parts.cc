#include "parts.h"

#include <nanobind/ndarray.h>

#include <fmt/format.h>

#include <string>
#include <vector>

#include "arguments.h"
#include "numpy_array.h"

namespace tokcask::python {
namespace {

constexpr const char* kLabels = "labels";
using Int64Array = nb::ndarray<const std::int64_t, nb::c_contig, nb::device::cpu>;

constexpr ElementType kElements[] = {ElementType::kInt8,   ElementType::kUint8, ElementType::kInt16,
                                     ElementType::kInt32,  ElementType::kInt64, ElementType::kFloat16,
                                     ElementType::kFloat32};

// Rewords an Error as the ValueError that it becomes.
template <typename Add>
void add(const Add& act) {
  try {
    act();
  } catch (const std::exception& error) {
    throw nb::value_error(error.what());
  }
}

// The items of a mapping from names; of None none.
std::vector<std::pair<std::string, nb::object>> items_of(nb::handle mapping, const char* what) {
  std::vector<std::pair<std::string, nb::object>> items;
  if (mapping.is_none()) return items;
  if (!is_mapping(mapping)) {
    throw nb::type_error(
        fmt::format("{} must be a mapping from names, not {}", what, kind_of(mapping)).c_str());
  }
  for (const nb::handle pair : mapping.attr("items")()) {
    const std::string name(to_text(pair[0], fmt::format("a name of {}", what).c_str()));
    items.emplace_back(name, nb::borrow(pair[1]));
  }
  return items;
}

nb::object as_int64(nb::handle value, const std::string& name) {
  return nb::module_::import_("tokcask._arrays").attr("as_int64")(value, name);
}

void add_spans(Parts& parts, const std::string& name, nb::handle given) {
  const std::string what = fmt::format("spans[\"{}\"]", name);
  const nb::object pairs = nb::module_::import_("tokcask._arrays").attr("as_spans")(given, what);
  Int64Array array;
  if (!nb::try_cast(pairs, array, /*convert=*/false))
    throw nb::value_error((what + " cannot be read").c_str());
  std::vector<Span> spans(array.size() / 2);
  for (std::size_t i = 0; i < spans.size(); ++i) {
    spans[i] = {static_cast<std::uint32_t>(array.data()[2 * i]),
                static_cast<std::uint32_t>(array.data()[2 * i + 1])};
  }
  add([&] { parts.spans(name, spans); });
}

void add_scalar(Parts& parts, const std::string& name, nb::handle value) {
  const std::string what = fmt::format("scalars[\"{}\"]", name);
  if (PyIndex_Check(value.ptr())) {
    const nb::object number = nb::steal(PyNumber_Index(value.ptr()));  // bool too: 0 or 1
    const std::int64_t integer = to_integer(number, what.c_str());
    return add([&] { parts.integer(name, integer); });
  }
  const double real = PyFloat_AsDouble(value.ptr());
  if (PyErr_Occurred() != nullptr) {
    PyErr_Clear();
    throw nb::type_error(fmt::format("{} must be an int or a float, not {}", what, kind_of(value)).c_str());
  }
  add([&] { parts.real(name, real); });
}

void add_array(Parts& parts, const std::string& name, nb::handle given) {
  const std::string what = fmt::format("arrays[\"{}\"]", name);
  const nb::object array = nb::module_::import_("tokcask._arrays").attr("as_part")(given, what);
  const std::string type = nb::cast<std::string>(array.attr("dtype").attr("name"));
  const nb::bytes bytes = nb::cast<nb::bytes>(array.attr("tobytes")());
  for (const ElementType element : kElements) {
    if (type != to_string(element)) continue;
    return add([&] { parts.array(name, element, std::as_bytes(std::span(bytes.c_str(), bytes.size()))); });
  }
}

// Where labels are the ids or -100 they are spans, 8 bytes each; else an array.
void add_labels(Parts& parts, nb::handle input_ids, nb::handle given) {
  const nb::object ids = as_int64(input_ids, "input_ids");
  const nb::object labels = as_int64(given, kLabels);
  Int64Array of_ids, of_labels;
  if (!nb::try_cast(ids, of_ids, false) || !nb::try_cast(labels, of_labels, false))
    throw nb::value_error("labels cannot be read");
  if (of_ids.size() != of_labels.size()) {
    throw nb::value_error(
        fmt::format("labels has {} elements, but input_ids has {}", of_labels.size(), of_ids.size()).c_str());
  }
  constexpr std::int64_t kIgnored = -100;
  std::vector<Span> spans;
  for (std::uint32_t i = 0; i < of_labels.size(); ++i) {
    if (of_labels.data()[i] == kIgnored) continue;
    if (of_labels.data()[i] != of_ids.data()[i]) {
      return add_array(parts, kLabels,
                       nb::module_::import_("tokcask._arrays").attr("as_int32")(labels, kLabels));
    }
    if (spans.empty() || spans.back().end != i) spans.push_back({i, i});
    ++spans.back().end;
  }
  add([&] { parts.spans(kLabels, spans); });
}

}  // namespace

OwnedParts to_parts(nb::handle input_ids, nb::handle labels, nb::handle spans, nb::handle scalars,
                    nb::handle arrays) {
  if (labels.is_none() && spans.is_none() && scalars.is_none() && arrays.is_none()) return {};
  OwnedParts made{std::make_shared<Parts>(), {}};
  for (const auto& [name, value] : items_of(spans, "spans")) add_spans(*made.builder, name, value);
  for (const auto& [name, value] : items_of(scalars, "scalars")) add_scalar(*made.builder, name, value);
  for (const auto& [name, value] : items_of(arrays, "arrays")) add_array(*made.builder, name, value);
  if (!labels.is_none()) {
    if (has_labels(made.builder->list()))
      throw nb::value_error("labels are given twice: by the argument, and as a part of that name");
    add_labels(*made.builder, input_ids, labels);
  }
  add([&] { made.list = made.builder->list(); });
  const std::size_t tokens = nb::cast<std::size_t>(input_ids.attr("size"));
  if (const std::size_t least = made.list.least_tokens(); least > tokens) {
    throw nb::value_error(
        fmt::format("a span ends at {}, beyond the {} ids of input_ids", least, tokens).c_str());
  }
  return made;
}

nb::dict spans_of(const PartList& parts) {
  nb::dict found;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const Part part = parts[i];
    if (part.kind != PartKind::kSpans) continue;
    std::vector<std::int64_t> numbers;
    for (const Span& span : part.spans) {
      numbers.push_back(span.begin);
      numbers.push_back(span.end);
    }
    found[nb::str(part.name.data(), part.name.size())] =
        owned_array<std::int64_t>(numbers).attr("reshape")(part.spans.size(), 2);
  }
  return found;
}

nb::dict scalars_of(const PartList& parts) {
  nb::dict found;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const Part part = parts[i];
    const nb::str name(part.name.data(), part.name.size());
    if (part.kind == PartKind::kInteger) found[name] = nb::int_(part.integer);
    if (part.kind == PartKind::kReal) found[name] = nb::float_(part.real);
  }
  return found;
}

nb::dict arrays_of(const PartList& parts, nb::handle owner) {
  nb::dict found;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const Part part = parts[i];
    if (part.kind != PartKind::kArray) continue;
    found[nb::str(part.name.data(), part.name.size())] = read_only_array(part.array, owner);
  }
  return found;
}

bool has_labels(const PartList& parts) { return parts.spans(kLabels) || parts.array(kLabels); }

nb::object labels_of(const PartList& parts, nb::handle input_ids) {
  if (const auto array = parts.array(kLabels)) return read_only_array(*array, {}).attr("astype")("int64");
  const auto spans = parts.spans(kLabels);
  if (!spans) return nb::none();
  const nb::object numpy = nb::module_::import_("numpy");
  const nb::object labels = numpy.attr("full_like")(input_ids, -100, nb::arg("dtype") = "int64");
  for (const Span& span : *spans) {
    const nb::object at = nb::slice(nb::int_(span.begin), nb::int_(span.end), nb::none());
    labels[at] = input_ids[at];
  }
  return labels;
}

}  // namespace tokcask::python
