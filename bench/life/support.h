// What the benchmarks of a cache's life share: a directory, keys and tokens, times, arguments.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include <fmt/format.h>

#include <tokcask/cache.h>

namespace bench {

// A directory below TMPDIR (the disk that is measured), removed at the end.
class Directory {
 public:
  Directory() {
    std::string path = std::filesystem::temp_directory_path() / "tokcask-life-XXXXXX";
    if (::mkdtemp(path.data()) == nullptr) throw std::runtime_error("cannot make a directory in " + path);
    path_ = path;
  }
  ~Directory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;
  [[nodiscard]] std::filesystem::path operator/(std::string_view name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

// Numbers that look like the hashes that section ids are, without repeats.
inline std::uint64_t mixed(std::uint64_t number) {
  number = (number ^ (number >> 30)) * 0xbf58476d1ce4e5b9U;
  number = (number ^ (number >> 27)) * 0x94d049bb133111ebU;
  return number ^ (number >> 31);
}

inline tokcask::CacheKey key_of(std::uint64_t number) {
  static const std::string sha(64, 'b');
  return tokcask::CacheKey(fmt::format("{:016x}", mixed(number + 1)), sha, 2048);
}

// Ids that all records are cut from: `length` of them, beginning somewhere.
class Ids {
 public:
  explicit Ids(std::uint64_t seed) : ids_(kIds) {
    std::mt19937_64 random(seed);
    for (std::int32_t& id : ids_) id = static_cast<std::int32_t>(random() % 129'000);
  }
  [[nodiscard]] std::span<const std::int32_t> take(std::uint64_t number, std::size_t length) const {
    return std::span(ids_).subspan(number % (ids_.size() - length), length);
  }

 private:
  static constexpr std::size_t kIds = 1 << 18;
  std::vector<std::int32_t> ids_;
};

using Clock = std::chrono::steady_clock;
inline double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

inline double median(std::vector<double> values) {
  if (values.empty()) return 0.0;
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

// `--name value` pairs. Throws std::invalid_argument for a name that `allowed` has not.
inline std::map<std::string, std::string> arguments_of(int argc, char** argv,
                                                       std::map<std::string, std::string> allowed) {
  for (int i = 1; i < argc; i += 2) {
    const auto found = allowed.find(argv[i]);
    if (found == allowed.end() || i + 1 == argc) {
      std::string names;
      for (const auto& [name, value] : allowed) names += fmt::format(" [{} {}]", name, value);
      throw std::invalid_argument(fmt::format("usage: {}{}", argv[0], names));
    }
    found->second = argv[i + 1];
  }
  return allowed;
}

// "512M" or "4G", powers of 1024.
inline std::uint64_t bytes_of(const std::string& text) {
  std::size_t end = 0;
  const std::uint64_t number = std::stoull(text, &end);
  const std::string unit = text.substr(end);
  if (unit.empty()) return number;
  const std::size_t power = std::string("KMG").find(unit);
  if (power == std::string::npos) throw std::invalid_argument(text + " is not a size such as 512M or 4G");
  return number << (10 * (power + 1));
}

// Words of a comma-separated list.
inline std::vector<std::string> words_of(const std::string& list) {
  std::vector<std::string> words(1);
  for (const char c : list) {
    if (c == ',') {
      words.emplace_back();
    } else {
      words.back() += c;
    }
  }
  return words;
}

}  // namespace bench
