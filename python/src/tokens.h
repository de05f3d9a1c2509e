// CachedTokens: the Python class for tokens on their way in and out.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <optional>
#include <span>
#include <string>
#include <variant>

#include <tokcask/tokens.h>

#include "parts.h"

namespace tokcask::python {

namespace nb = nanobind;

// Either what get() found, or what a caller made, as it was given: put() checks it, so that a bad array is
// refused where the store is asked to take it.
class CachedTokens {
 public:
  struct Given {
    nb::object input_ids;       // numpy array of whatever dtype and shape
    nb::object attention_mask;  // the same, or None for all ones
    OwnedParts parts = {};
  };

  explicit CachedTokens(TokenView view) : value_(std::move(view)) {}
  explicit CachedTokens(Given given) : value_(std::move(given)) {}

  [[nodiscard]] const TokenView* view() const noexcept { return std::get_if<TokenView>(&value_); }
  [[nodiscard]] const PartList& parts() const noexcept {
    const TokenView* const found = view();
    return found != nullptr ? found->parts() : given()->parts.list;
  }
  [[nodiscard]] const Given* given() const noexcept { return std::get_if<Given>(&value_); }

 private:
  std::variant<TokenView, Given> value_;
};

using Int32Array = nb::ndarray<const std::int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// Tokens that the store can take, and what keeps them alive. Made and dropped with the GIL, used without.
class CheckedTokens {
 public:
  // ValueError for arrays that are not 1-D, not of integers, of different lengths, or hold a value outside
  // int32. `whose` is said behind the array's name: " of row 3".
  explicit CheckedTokens(const CachedTokens& tokens, const std::string& whose = {});

  [[nodiscard]] const Tokens& tokens() const noexcept { return tokens_; }

 private:
  Tokens tokens_;
  std::optional<TokenView> view_;
  std::shared_ptr<Parts> parts_;
  Int32Array input_ids_;
  Int32Array attention_mask_;
};

void bind_tokens(nb::module_& module);

}  // namespace tokcask::python
