// What is being done when the kill comes.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "crowd.h"

namespace tokcask::campaign {

// One round of an operation, as its process and those that prepare for it see it.
struct Round {
  std::filesystem::path directory;  // has `store`, and what else is needed
  std::filesystem::path program;    // tokcask
  std::uint64_t number = 0;         // in the life of this store
  std::uint64_t seed = 0;
  Rules rules;
  Board* board = nullptr;

  [[nodiscard]] std::filesystem::path root() const { return directory / "store"; }
  [[nodiscard]] std::uint64_t row() const { return kVictimRow + number; }
  void begin() const {
    board->began_ns = steady_ns();
    board->stage = 1;
  }
};

enum class Who { kVictim, kWriter, kReader, kStopped };  // who is killed, or stopped for a while

struct Operation {
  const char* name;
  const char* what;
  Rules rules;
  // Rounds that one store lives for.
  unsigned rounds = 8;
  // The others begin when the operation does, or after the kill: for operations that make something.
  bool makes = false;
  Who who = Who::kVictim;
  // In a child of its own, before.
  std::function<void(const Round&)> prepare = {};
  // In the process that is killed.
  std::function<void(const Round&)> act = {};
};

[[nodiscard]] const std::vector<Operation>& operations();

// Puts the entries that are there from the start.
void put_base(TokenizedCache& cache);

}  // namespace tokcask::campaign
