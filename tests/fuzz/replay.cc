#include "replay.h"

#include <doctest/doctest.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

namespace tokcask::fuzz {

namespace {

constexpr std::size_t kMostBytes = std::size_t{1} << 20;

std::uint64_t number_in(const char* variable, std::uint64_t otherwise) {
  const char* const value = std::getenv(variable);
  return value == nullptr ? otherwise : std::stoull(value);
}

// Printed at once, because what a crash would print comes too late.
std::uint64_t seed() {
  static const std::uint64_t seed = [] {
    const std::uint64_t chosen = number_in("TOKCASK_TEST_SEED", std::random_device{}());
    std::fprintf(stderr, "fuzz_test: TOKCASK_TEST_SEED=%llu\n", static_cast<unsigned long long>(chosen));
    return chosen;
  }();
  return seed;
}

std::vector<std::string> committed_inputs(const char* name) {
  std::vector<std::string> inputs;
  const std::filesystem::path directory = std::filesystem::path(FUZZ_CORPUS) / name;
  if (!std::filesystem::is_directory(directory)) return inputs;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    std::ifstream file(entry.path(), std::ios::binary);
    inputs.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  return inputs;
}

}  // namespace

void replay(const Target& target) {
  std::vector<std::string> corpus = target.seeds();
  REQUIRE_FALSE(corpus.empty());
  for (std::string& input : committed_inputs(target.name)) corpus.push_back(std::move(input));
  target.run({});
  for (const std::string& input : corpus) target.run(input);
  Random random(seed());
  for (std::uint64_t rounds = number_in("TOKCASK_FUZZ_ROUNDS", target.rounds); rounds > 0; --rounds) {
    std::string input = corpus[below(random, corpus.size())];
    if (target.mutate != nullptr && below(random, 4) != 0) {
      target.mutate(input, kMostBytes, random);
    } else {
      mutate_bytes(input, kMostBytes, random);
    }
    target.run(input);
  }
}

}  // namespace tokcask::fuzz
