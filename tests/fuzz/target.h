// What a fuzzer of this folder is: a function that takes any bytes at all and must neither crash, hang, read
// outside of them nor break what it says must hold. Linked to libFuzzer one by one (libfuzzer.cc), and to the
// test of the gate all together (fuzz_test.cc).
#pragma once

#include <cstddef>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tokcask::fuzz {

using Random = std::mt19937_64;

struct Target {
  const char* name;
  // Valid inputs to begin with.
  std::vector<std::string> (*seeds)();
  // Throws nothing.
  void (*run)(std::string_view bytes);
  // Changes an input so that it stays close to a valid one; null where bytes are as good as any. Never makes
  // it longer than `most` bytes.
  void (*mutate)(std::string& bytes, std::size_t most, Random& random) = nullptr;
  // How many mutations the gate runs.
  unsigned rounds = 4000;
};

extern const Target record_target;
extern const Target rows_target;
extern const Target keys_target;
extern const Target walker_target;
extern const Target npz_target;
extern const Target manifest_target;
extern const Target patterns_target;
extern const Target command_target;
extern const Target shm_target;

// Ends the program, with `what` on standard error, unless it holds.
void require(bool holds, const char* what);

// A number from 0 to `end` - 1, which is not 0.
[[nodiscard]] std::size_t below(Random& random, std::size_t end);

// Changes some bytes, of any input.
void mutate_bytes(std::string& bytes, std::size_t most, Random& random);

// A copy on the heap of exactly these bytes, aligned to 16, so that the sanitizer sees a read beyond it.
[[nodiscard]] std::vector<std::byte> exact_copy(std::string_view bytes);

// Takes values off the front of an input; zero, or nothing, when it is used up.
class Feed {
 public:
  explicit Feed(std::string_view bytes) : rest_(bytes) {}
  [[nodiscard]] std::string_view rest() const { return rest_; }
  unsigned byte();
  std::size_t number();  // two bytes
  std::string_view take(std::size_t bytes);
  // Up to the next `end`, which is taken too.
  std::string_view until(char end);

 private:
  std::string_view rest_;
};

}  // namespace tokcask::fuzz
