// What the campaigns share: seeded choices, a directory of their own, tokens made from numbers, and children
// that may crash or hang.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include <tokcask/cache.h>

namespace tokcask::campaign {

using Random = std::mt19937_64;

// A number that looks like chance, the same for the same two.
[[nodiscard]] std::uint64_t mix(std::uint64_t a, std::uint64_t b);
// A number from 0 to `end` - 1.
[[nodiscard]] std::uint64_t below(Random& random, std::uint64_t end);
template <class T>
[[nodiscard]] const T& one_of(Random& random, const std::vector<T>& of) {
  return of[below(random, of.size())];
}

// TOKCASK_TEST_SEED, or a new one each time.
[[nodiscard]] std::uint64_t default_seed();

// The entries of a table by name, in the order of their table: for options.
[[nodiscard]] std::vector<std::string_view> split(std::string_view list);

// A fresh directory, removed with all that is in it: below TMPDIR if that is set, else in memory where there
// is /dev/shm, because no campaign looks at what a disk does.
class Directory {
 public:
  explicit Directory(bool keep = false);
  ~Directory();
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;
  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }
  [[nodiscard]] std::filesystem::path operator/(std::string_view name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
  bool keep_;
};

struct Content {
  std::vector<std::int32_t> ids;
  std::vector<std::int32_t> mask;  // empty: all ones

  [[nodiscard]] Tokens tokens() const { return {.input_ids = ids, .attention_mask = mask}; }
  [[nodiscard]] bool is(const TokenView& view) const;
  friend bool operator==(const Content&, const Content&) = default;
};

// `length` ids, the first of which is `version`, all of them made from the first two numbers.
[[nodiscard]] Content content_of(std::uint64_t number, std::uint64_t version, std::size_t length,
                                 bool masked = false);

// A key whose section is `number`, made to look like a hash.
[[nodiscard]] CacheKey key_of(std::uint64_t number, char tokenizer = 'a', std::int64_t sequence_len = 4096);

// Memory that forked children share; zeroed. T needs no destructor.
void* map_shared(std::size_t bytes);
void unmap_shared(void* memory, std::size_t bytes) noexcept;
template <class T>
class Shared {
 public:
  Shared() : value_(new (map_shared(sizeof(T))) T) {}
  ~Shared() { unmap_shared(value_, sizeof(T)); }
  Shared(const Shared&) = delete;
  Shared& operator=(const Shared&) = delete;
  T* operator->() const noexcept { return value_; }
  T& operator*() const noexcept { return *value_; }

 private:
  T* value_;
};

// Forks. The child calls `act` and ends with what it returns, or with kThrew; it dies with its parent.
inline constexpr int kThrew = 99;
[[nodiscard]] pid_t start(const std::function<int()>& act);

struct End {
  bool hung = false;
  int signal = 0;  // that ended it; 0: it ended itself
  int code = 0;
};
// Waits for the end of a child, which is killed when it takes longer than `limit`. Calls `meanwhile` now and
// then.
[[nodiscard]] End wait_for(pid_t child, std::chrono::milliseconds limit,
                           const std::function<void()>& meanwhile = {});

// Copies text into an array of a shared report, cut to what fits.
template <std::size_t N>
void note(char (&into)[N], std::string_view text) {
  const std::size_t length = text.copy(into, N - 1);
  into[length] = '\0';
}

// A sink that keeps nothing.
[[nodiscard]] inline MessageSink silence() {
  return [](Severity, std::string_view) {};
}

}  // namespace tokcask::campaign
