// Rows of tokens on their way into a batch. Private to the package: tokcask.torch says it to users.
#pragma once

#include <nanobind/nanobind.h>

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include <tokcask/collate.h>

#include "tokens.h"

namespace tokcask::python {

namespace nb = nanobind;

// How rows are padded, with the names that it refers to.
struct OwnedPadding {
  Padding padding;
  std::vector<std::string> names = {};
  std::vector<std::string_view> views = {};
};

// Rows that stay as they are for as long as this lives, which holds on to what was given. Made and dropped
// with the GIL, read without.
class Rows {
 public:
  // `rows` is a list or tuple of rows, or one of groups, each a list or tuple of rows. A row is a
  // CachedTokens, of which nothing is copied; a mapping with "input_ids" and perhaps "attention_mask"; or
  // whatever NumPy makes a 1-D array of integers of. TypeError and ValueError, which name the row.
  explicit Rows(nb::handle rows);

  [[nodiscard]] const std::vector<Tokens>& tokens() const noexcept { return tokens_; }
  // Null for rows without groups.
  [[nodiscard]] const std::vector<std::size_t>* group_ends() const noexcept {
    return group_ends_ ? &*group_ends_ : nullptr;
  }
  // Groups rows that have none by best fit decreasing.
  void pack(std::size_t capacity, const Padding& padding);

 private:
  // Where a row was found, for messages.
  struct Place {
    std::size_t row;
    std::optional<std::size_t> group = {};
    [[nodiscard]] std::string text() const;
  };

  void add(nb::handle row, const Place& place);
  void add_other(nb::handle row, const Place& place);

  const nb::handle cached_tokens_ = nb::type<CachedTokens>();
  std::vector<Tokens> tokens_;
  std::vector<nb::tuple> owners_;
  std::vector<CheckedTokens> converted_;
  std::optional<std::vector<std::size_t>> group_ends_;
};

void bind_collate(nb::module_& module);

}  // namespace tokcask::python
