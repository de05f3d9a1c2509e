// Parts of entries, from and to Python. All of it needs the GIL.
#pragma once

#include <nanobind/nanobind.h>

#include <memory>

#include <tokcask/parts.h>

namespace tokcask::python {

namespace nb = nanobind;

// A list of parts of a caller's, with the block that it points into.
struct OwnedParts {
  std::shared_ptr<Parts> builder;  // null: none
  PartList list;
};

// From arguments of CachedTokens(), each of which may be None. `input_ids` is an array. ValueError and
// TypeError, which name the part.
[[nodiscard]] OwnedParts to_parts(nb::handle input_ids, nb::handle labels, nb::handle spans,
                                  nb::handle scalars, nb::handle arrays);

// {name: int64 array [spans, 2]}, copies.
[[nodiscard]] nb::dict spans_of(const PartList& parts);
// {name: int or float}
[[nodiscard]] nb::dict scalars_of(const PartList& parts);
// {name: read-only array}, which keep `owner` alive.
[[nodiscard]] nb::dict arrays_of(const PartList& parts, nb::handle owner);

// Whether there are labels, and these: an int64 array as long as the ids, made for this call; or None.
[[nodiscard]] bool has_labels(const PartList& parts);
[[nodiscard]] nb::object labels_of(const PartList& parts, nb::handle input_ids);

}  // namespace tokcask::python
