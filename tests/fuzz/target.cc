#include "target.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace tokcask::fuzz {

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "fuzz: does not hold: %s\n", what);
  std::abort();
}

std::size_t below(Random& random, std::size_t end) { return random() % end; }

namespace {

// Sizes and signs are where mistakes are.
std::string interesting_number(Random& random) {
  constexpr std::array<std::uint64_t, 12> kNumbers = {
      0, 1, 7, 8, 0x7f, 0xff, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff, ~0ULL >> 1, ~0ULL};
  const std::uint64_t number = kNumbers.at(below(random, kNumbers.size())) + below(random, 3) - 1;
  std::string bytes(std::size_t{1} << below(random, 4), '\0');
  std::memcpy(bytes.data(), &number, bytes.size());
  return bytes;
}

void overwrite(std::string& bytes, std::size_t at, std::string_view with) {
  bytes.replace(at, std::min(with.size(), bytes.size() - at), with.substr(0, bytes.size() - at));
}

void mutate_once(std::string& bytes, std::size_t most, Random& random) {
  const std::size_t at = below(random, bytes.size() + 1);
  if (at == bytes.size()) {
    bytes.append(1 + below(random, 8), static_cast<char>(random()));
  } else {
    const std::size_t count = 1 + below(random, std::min<std::size_t>(bytes.size() - at, 32));
    switch (below(random, 7)) {
      case 0:
        bytes[at] = static_cast<char>(bytes[at] ^ 1 << below(random, 8));
        break;
      case 1:
        bytes[at] = static_cast<char>(random());
        break;
      case 2:
        overwrite(bytes, at, interesting_number(random));
        break;
      case 3:
        bytes.erase(at, count);
        break;
      case 4:
        bytes.insert(below(random, bytes.size()), bytes.substr(at, count));
        break;
      case 5:
        overwrite(bytes, below(random, bytes.size()), bytes.substr(at, count));
        break;
      default:
        bytes.insert(at, 1, bytes[below(random, bytes.size())]);
        break;
    }
  }
  if (bytes.size() > most) bytes.resize(most);
}

}  // namespace

void mutate_bytes(std::string& bytes, std::size_t most, Random& random) {
  for (std::size_t changes = 1 + below(random, 5); changes > 0; --changes) mutate_once(bytes, most, random);
}

std::vector<std::byte> exact_copy(std::string_view bytes) {
  std::vector<std::byte> copy(bytes.size());
  if (!bytes.empty()) std::memcpy(copy.data(), bytes.data(), bytes.size());
  return copy;
}

unsigned Feed::byte() {
  const std::string_view taken = take(1);
  return taken.empty() ? 0 : static_cast<unsigned char>(taken.front());
}

std::size_t Feed::number() {
  const unsigned low = byte();
  return low | byte() << 8U;
}

std::string_view Feed::take(std::size_t bytes) {
  const std::string_view taken = rest_.substr(0, bytes);
  rest_.remove_prefix(taken.size());
  return taken;
}

std::string_view Feed::until(char end) {
  const std::string_view taken = rest_.substr(0, rest_.find(end));
  rest_.remove_prefix(std::min(taken.size() + 1, rest_.size()));
  return taken;
}

}  // namespace tokcask::fuzz
