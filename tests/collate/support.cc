#include "support.h"

#include <array>
#include <cstdlib>
#include <limits>

#include <tokcask/error.h>

namespace tokcask::test {

std::uint64_t test_seed() {
  if (const char* const given = std::getenv("TOKCASK_TEST_SEED")) return std::stoull(given);
  return std::random_device{}();
}

Rows::Rows(std::mt19937_64& random, std::size_t count) {
  constexpr std::array<std::size_t, 20> kLengths{0,  1,  2,  3,  7,  8,  9,   15,  16,  17,
                                                 31, 32, 33, 63, 64, 65, 100, 127, 128, 129};
  const auto below = [&random](std::size_t n) { return static_cast<std::size_t>(random() % n); };
  const auto id = [&]() -> std::int32_t {
    switch (below(8)) {
      case 0:
        return std::numeric_limits<std::int32_t>::min();
      case 1:
        return std::numeric_limits<std::int32_t>::max();
      case 2:
        return -static_cast<std::int32_t>(below(1000));
      default:
        return static_cast<std::int32_t>(below(5));
    }
  };
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t n = kLengths[below(kLengths.size())];
    const bool irregular = below(3) == 0;
    const std::size_t misplaced = below(16);
    std::vector<std::int32_t>& ids = arrays_.emplace_back(n + misplaced);
    for (std::int32_t& value : ids) value = id();
    Tokens row{.input_ids = std::span(ids).subspan(misplaced)};
    if (irregular) {
      std::vector<std::int32_t>& mask = arrays_.emplace_back(n + misplaced);
      for (std::int32_t& value : mask) value = static_cast<std::int32_t>(below(2));
      row.attention_mask = std::span(mask).subspan(misplaced);
    }
    tokens_.push_back(row);
  }
}

Rows::Rows(const std::vector<std::size_t>& lengths) {
  std::int32_t id = 0;
  for (const std::size_t n : lengths) {
    std::vector<std::int32_t>& ids = arrays_.emplace_back(n);
    for (std::int32_t& value : ids) value = ++id;
    tokens_.push_back({.input_ids = ids});
  }
}

std::string refusal(const std::function<void()>& act) {
  try {
    act();
  } catch (const Error& error) {
    CHECK(error.code() == Errc::kInvalidArgument);
    return error.what();
  }
  return {};
}

}  // namespace tokcask::test
