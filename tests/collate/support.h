// What the tests of collation share: random rows, arrays that notice a stray write, and errors as text.
#pragma once

#include <doctest/doctest.h>

#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include <tokcask/collate.h>

namespace tokcask::test {

// TOKCASK_TEST_SEED, or a new one each time. A test that uses it prints it when it fails.
[[nodiscard]] std::uint64_t test_seed();

// Rows that own their arrays. Lengths are around those where vectors and cache lines end; ids are negative,
// small and of the extremes of int32; a third of the rows has an irregular mask; arrays begin anywhere.
class Rows {
 public:
  Rows(std::mt19937_64& random, std::size_t count);
  explicit Rows(const std::vector<std::size_t>& lengths);

  // Borrowed from this.
  [[nodiscard]] const std::vector<Tokens>& tokens() const { return tokens_; }
  [[nodiscard]] std::size_t size() const { return tokens_.size(); }
  [[nodiscard]] const Tokens& operator[](std::size_t i) const { return tokens_[i]; }

 private:
  std::vector<std::vector<std::int32_t>> arrays_;
  std::vector<Tokens> tokens_;
};

// An array to be filled, with a margin that must stay as it is.
template <typename T>
class Array {
 public:
  explicit Array(std::size_t size, std::size_t misplaced = 0)
      : begin_(kMargin + misplaced), size_(size), all_(begin_ + size + kMargin, kUntouched) {}

  [[nodiscard]] std::span<T> span() { return std::span(all_).subspan(begin_, size_); }
  [[nodiscard]] std::vector<T> values() const {
    const auto begin = all_.begin() + static_cast<std::ptrdiff_t>(begin_);
    return {begin, begin + static_cast<std::ptrdiff_t>(size_)};
  }
  [[nodiscard]] bool margins_untouched() const {
    for (std::size_t i = 0; i < all_.size(); ++i) {
      if ((i < begin_ || i >= begin_ + size_) && all_[i] != kUntouched) return false;
    }
    return true;
  }

 private:
  static constexpr T kUntouched = 0x5a5a5a5a;
  static constexpr std::size_t kMargin = 16;
  std::size_t begin_;
  std::size_t size_;
  std::vector<T> all_;
};

// The message of the Error(kInvalidArgument) that `act` throws; empty when it throws nothing.
[[nodiscard]] std::string refusal(const std::function<void()>& act);

}  // namespace tokcask::test
