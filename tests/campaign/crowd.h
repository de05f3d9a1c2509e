// The processes around a killed one: writers and readers of one store, what each has promised, and whether
// what they read is right. Every process can tell, because tokens are made from the numbers in their keys.
#pragma once

#include <array>
#include <atomic>
#include <optional>

#include "support.h"

namespace tokcask::campaign {

// Entries come in rows of a number; a row's entries are numbered from 0.
struct Name {
  std::uint64_t row = 0;
  std::uint64_t index = 0;
};
inline constexpr std::uint64_t kRing = 64;     // entries of a writer's row, which it writes again and again
inline constexpr std::uint64_t kBaseRow = 9;   // there before anybody else came
inline constexpr std::uint64_t kOtherRow = 8;  // the same, of another tokenizer
inline constexpr std::uint64_t kVictimRow = 100;  // and following: one for each round
inline constexpr std::uint64_t kBaseEntries = 150;
inline constexpr std::uint64_t kOtherEntries = 60;

[[nodiscard]] CacheKey key_of(const Name& name);
[[nodiscard]] Content content_of(const Name& name, std::uint64_t version);
// The version of the entry that this is, if it is one.
[[nodiscard]] std::optional<std::uint64_t> version_in(const Name& name, const TokenView& view);

// The highest version that entry `index` of a ring has after so many puts; 0: none.
[[nodiscard]] constexpr std::uint64_t version_after(std::uint64_t puts, std::uint64_t index) {
  return puts <= index ? 0 : (puts - 1 - index) / kRing + 1;
}

enum class Fault : int { kNone, kWrong, kLost, kError };

// What a process tells of itself.
struct Seat {
  std::atomic<std::uint64_t> begun;       // puts, before each is made
  std::atomic<std::uint64_t> flushed;     // puts that a flush has promised
  std::atomic<std::uint64_t> rounds;      // how often it came round
  std::atomic<std::uint64_t> longest_ns;  // of a put and flush
  std::atomic<std::uint64_t> busy;        // Error(kBusy), where there may be some
  std::atomic<bool> flushing;
  std::atomic<std::int64_t> usual_ns;  // of a flush, about
  std::atomic<Fault> fault;            // the first
  char note[300];

  void blame(Fault what, std::string_view text);
};

inline constexpr std::size_t kWriters = 2;
inline constexpr std::size_t kReaders = 4;
inline constexpr std::size_t kCrowd = kWriters + kReaders;

struct Board {
  std::array<Seat, kCrowd + 1> seats;  // writers, readers, the one that is killed
  std::atomic<bool> over;              // all shall close and end
  std::atomic<int> stage;              // of the one that is killed: 1 in its operation, 2 past it
  std::atomic<std::int64_t> began_ns;  // then; steady clock
  std::atomic<std::int64_t> took_ns;   // the operation, if it ended and can tell
  Seat& victim() { return seats[kCrowd]; }
};

// What is asked of entries.
enum class Promise {
  kThere,     // what was flushed is there
  kBaseOnce,  // the base is there as a whole, or gone as a whole: nothing else is asked
  kRight,     // what is there is right
};

struct Rules {
  Promise promise = Promise::kThere;
  bool has_base = true;         // there is one from the start
  bool other_row_stays = true;  // nobody prunes it
  std::optional<std::uint64_t> max_bytes;
  std::chrono::milliseconds lock_timeout{60'000};
};

[[nodiscard]] std::int64_t steady_ns();

[[nodiscard]] Options options_of(const Rules& rules);

// The life of one process of the crowd, until the board says that it is over. For child processes.
int write_for_ever(const std::filesystem::path& root, const Rules& rules, Board& board, std::size_t number);
int read_for_ever(const std::filesystem::path& root, const Rules& rules, Board& board, std::size_t number,
                  std::uint64_t seed);

// Looks at everything: each entry, the tables, the pages. Blames the seat of the one that was killed.
// `flushed` has, for each round so far, what its victim promised.
void examine_store(const std::filesystem::path& root, const Rules& rules, Board& board,
                   const std::vector<std::uint64_t>& flushed);

}  // namespace tokcask::campaign
