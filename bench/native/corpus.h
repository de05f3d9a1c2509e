// The corpus that bench/suite/corpus.py made, mapped: one flat array of ids, where each record begins, and
// the records' keys.
#pragma once

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include <tokcask/key.h>

#include "mapped_file.h"

namespace bench {

// A one-dimensional array of NumPy's in its file.
template <typename T>
class Array {
 public:
  explicit Array(const std::filesystem::path& path) : file_(path) {
    const std::span<const char> bytes = file_.bytes();
    std::uint16_t header = 0;
    if (bytes.size() < 10 || std::memcmp(bytes.data(), "\x93NUMPY\x01", 7) != 0) {
      throw std::runtime_error(path.string() + " is no .npy file of version 1");
    }
    std::memcpy(&header, bytes.data() + 8, sizeof header);
    const std::size_t begin = 10 + header;  // a multiple of 64
    values_ = {reinterpret_cast<const T*>(bytes.data() + begin), (bytes.size() - begin) / sizeof(T)};
  }
  [[nodiscard]] std::span<const T> values() const { return values_; }

 private:
  MappedFile file_;
  std::span<const T> values_;
};

class Corpus {
 public:
  explicit Corpus(const std::filesystem::path& directory)
      : ids_(directory / "ids.npy"), offsets_(directory / "offsets.npy") {
    std::ifstream lines(directory / "keys.txt");
    for (std::string line; std::getline(lines, line);) keys_.push_back(tokcask::CacheKey::parse(line));
    if (keys_.size() + 1 != offsets_.values().size()) throw std::runtime_error("the corpus is incomplete");
  }
  [[nodiscard]] std::size_t size() const { return keys_.size(); }
  [[nodiscard]] const std::vector<tokcask::CacheKey>& keys() const { return keys_; }
  [[nodiscard]] std::span<const std::int32_t> ids() const { return ids_.values(); }
  [[nodiscard]] std::span<const std::int32_t> row(std::size_t index) const {
    const auto begin = static_cast<std::size_t>(offsets_.values()[index]);
    return ids().subspan(begin, static_cast<std::size_t>(offsets_.values()[index + 1]) - begin);
  }

 private:
  Array<std::int32_t> ids_;
  Array<std::int64_t> offsets_;
  std::vector<tokcask::CacheKey> keys_;
};

inline std::int64_t sum(std::span<const std::int32_t> ids) {
  std::int64_t total = 0;
  for (const std::int32_t id : ids) total += id;
  return total;
}

}  // namespace bench
