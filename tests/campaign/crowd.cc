#include "crowd.h"

#include <thread>

#include <fmt/format.h>

#include <tokcask/dataset.h>

namespace tokcask::campaign {

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::uint64_t kMost = 1'000'000;  // entries of a row

std::uint64_t number_of(const Name& name) { return name.row * kMost + name.index; }

std::size_t length_of(const Name& name, std::uint64_t version) {
  const std::uint64_t chance = mix(number_of(name), version + 13);
  return chance % 8 == 0 ? 1500 + chance % 1500 : 1 + chance % 700;
}

// The store, as soon as there is one that can be opened. Nothing when it is over before.
std::optional<TokenizedCache> open_when_there(const std::filesystem::path& root, const Options& options,
                                              const Board& board) {
  while (!board.over) {
    try {
      return TokenizedCache::open(root, options);
    } catch (const Error& error) {
      // A reader does not make one, and does not set one aside.
      const bool waits =
          options.read_only && (error.code() == Errc::kNotFound || error.code() == Errc::kDamaged);
      if (!waits && error.code() != Errc::kBusy) throw;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return std::nullopt;
}

class Reader {
 public:
  Reader(const std::filesystem::path& root, const Rules& rules, Board& board, Seat& seat, std::uint64_t seed)
      : root_(root), rules_(rules), board_(board), seat_(seat), random_(seed) {}

  void run(bool with_dataset) {
    Options options = options_of(rules_);
    options.read_only = true;
    auto cache = open_when_there(root_, options, board_);
    if (!cache) return;
    if (with_dataset) open_dataset();
    std::optional<TokenView> held;
    Name held_name;
    for (; !board_.over; ++seat_.rounds) {
      if (held) judge(held_name, *held, 0, ~std::uint64_t{0});
      held_name = any();
      held = look(*cache, held_name);
      look_at_many(*cache);
      if (dataset_) {
        const std::uint64_t index = below(random_, kBaseEntries);
        const Name name{kBaseRow, index};
        judge_found(name, dataset_->get(index), least(name), 1);
      }
      std::this_thread::sleep_for(std::chrono::microseconds(300));
    }
  }

 private:
  struct Bounds {
    std::uint64_t least = 0;
    std::uint64_t most = 0;
  };

  void open_dataset() {
    std::vector<CacheKey> keys;
    for (std::uint64_t i = 0; i < kBaseEntries; ++i) keys.push_back(key_of({kBaseRow, i}));
    dataset_ = TokenDataset::open(root_, keys, {.missing = MissingKeys::kKeep, .on_message = silence()});
  }

  Name any() {
    const std::uint64_t row = below(random_, kWriters + 2);
    if (row < kWriters) return {row, below(random_, kRing)};
    if (row == kWriters) return {kOtherRow, below(random_, kOtherEntries)};
    return {kBaseRow, below(random_, kBaseEntries)};
  }

  // Asked before the look-up.
  std::uint64_t least(const Name& name) {
    if (rules_.promise != Promise::kThere) return 0;
    if (name.row < kWriters) return version_after(board_.seats[name.row].flushed, name.index);
    return rules_.has_base && (name.row == kBaseRow || rules_.other_row_stays) ? 1 : 0;
  }
  // Asked after it.
  std::uint64_t most(const Name& name) {
    return name.row < kWriters ? version_after(board_.seats[name.row].begun, name.index) : 1;
  }

  void judge(const Name& name, const TokenView& view, std::uint64_t at_least, std::uint64_t at_most) {
    const auto version = version_in(name, view);
    if (!version || *version > at_most) {
      seat_.blame(Fault::kWrong, fmt::format("entry {} of row {} is wrong", name.index, name.row));
    } else if (*version < at_least) {
      seat_.blame(Fault::kLost, fmt::format("entry {} of row {} has version {}, {} was flushed", name.index,
                                            name.row, *version, at_least));
    }
  }
  void judge_found(const Name& name, const std::optional<TokenView>& view, std::uint64_t at_least,
                   std::uint64_t at_most) {
    if (view) return judge(name, *view, at_least, at_most);
    if (at_least > 0 && rules_.promise == Promise::kThere)
      seat_.blame(Fault::kLost, fmt::format("entry {} of row {} is gone, version {} was flushed", name.index,
                                            name.row, at_least));
  }

  std::optional<TokenView> look(TokenizedCache& cache, const Name& name) {
    const std::uint64_t at_least = least(name);
    auto view = cache.get(key_of(name));
    judge_found(name, view, at_least, most(name));
    return view;
  }

  void look_at_many(TokenizedCache& cache) {
    std::vector<Name> names(8);
    std::vector<CacheKey> keys;
    std::vector<std::uint64_t> at_least;
    for (Name& name : names) {
      name = any();
      keys.push_back(key_of(name));
      at_least.push_back(least(name));
    }
    const auto views = cache.get_many(keys);
    for (std::size_t i = 0; i < names.size(); ++i)
      judge_found(names[i], views[i], at_least[i], most(names[i]));
  }

  const std::filesystem::path& root_;
  const Rules& rules_;
  Board& board_;
  Seat& seat_;
  Random random_;
  std::optional<TokenDataset> dataset_;
};

// All entries of a row that shall be there, and how many are.
std::uint64_t count_row(TokenizedCache& cache, Seat& seat, std::uint64_t row, std::uint64_t entries,
                        bool all) {
  std::uint64_t found = 0;
  for (std::uint64_t i = 0; i < entries; ++i) {
    const auto view = cache.get(key_of({row, i}));
    if (view) ++found;
    if (view && version_in({row, i}, *view) != 1)
      seat.blame(Fault::kWrong, fmt::format("entry {} of row {} is wrong", i, row));
    if (!view && all) seat.blame(Fault::kLost, fmt::format("entry {} of row {} is gone", i, row));
  }
  return found;
}

void verify(TokenizedCache& cache, Seat& seat) {
  const VerifyReport report = cache.verify();
  if (report.damaged == 0 && report.structure_ok) return;
  seat.blame(Fault::kWrong, fmt::format("verify: {} damaged, {}", report.damaged,
                                        report.findings.empty() ? "" : report.findings.front().reason));
}

}  // namespace

std::int64_t steady_ns() { return Clock::now().time_since_epoch().count(); }

CacheKey key_of(const Name& name) { return key_of(number_of(name), name.row == kOtherRow ? 'b' : 'a'); }

Content content_of(const Name& name, std::uint64_t version) {
  return content_of(number_of(name), version, length_of(name, version));
}

std::optional<std::uint64_t> version_in(const Name& name, const TokenView& view) {
  if (view.size() == 0 || view.input_ids()[0] <= 0) return std::nullopt;
  const auto version = static_cast<std::uint64_t>(view.input_ids()[0]);
  if (view.size() != length_of(name, version) || !content_of(name, version).is(view)) return std::nullopt;
  return version;
}

void Seat::blame(Fault what, std::string_view text) {
  Fault none = Fault::kNone;
  if (fault.compare_exchange_strong(none, what)) campaign::note(note, text);
}

Options options_of(const Rules& rules) {
  Options options;
  options.max_bytes = rules.max_bytes;
  options.batch_age = std::chrono::milliseconds(200);
  options.lock_timeout = rules.lock_timeout;
  options.derive_lengths = false;
  options.on_message = silence();
  return options;
}

int write_for_ever(const std::filesystem::path& root, const Rules& rules, Board& board, std::size_t number) {
  Seat& seat = board.seats[number];
  try {
    auto cache = open_when_there(root, options_of(rules), board);
    if (!cache) return 0;
    // What one that was killed did not get to flush is put again.
    for (std::uint64_t next = seat.flushed; !board.over; ++seat.rounds) {
      const auto start = Clock::now();
      try {
        for (int n = 0; n < 3; ++n) {
          const Name name{number, next % kRing};
          const std::uint64_t version = next / kRing + 1;
          if (++next > seat.begun) seat.begun = next;
          cache->put(key_of(name), content_of(name, version).tokens());
        }
        const std::int64_t before = steady_ns();
        seat.flushing = true;
        cache->flush();
        seat.flushed = next;
        seat.usual_ns = (3 * seat.usual_ns + steady_ns() - before) / 4;
      } catch (const Error& error) {
        if (error.code() != Errc::kBusy || rules.lock_timeout > std::chrono::seconds(30)) throw;
        ++seat.busy;
      }
      seat.flushing = false;
      const auto took = static_cast<std::uint64_t>((Clock::now() - start).count());
      if (took > seat.longest_ns) seat.longest_ns = took;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    cache->close();
  } catch (const std::exception& error) {
    seat.blame(Fault::kError, fmt::format("writer: {}", error.what()));
  }
  return 0;
}

int read_for_ever(const std::filesystem::path& root, const Rules& rules, Board& board, std::size_t number,
                  std::uint64_t seed) {
  Seat& seat = board.seats[number];
  try {
    Reader(root, rules, board, seat, seed).run(number % 2 == 0);
  } catch (const std::exception& error) {
    seat.blame(Fault::kError, fmt::format("reader: {}", error.what()));
  }
  return 0;
}

void examine_store(const std::filesystem::path& root, const Rules& rules, Board& board,
                   const std::vector<std::uint64_t>& flushed) {
  Seat& seat = board.victim();
  try {
    Options options = options_of(rules);
    options.observe = true;
    TokenizedCache cache = TokenizedCache::open(root, options);
    verify(cache, seat);
    const bool there = rules.promise == Promise::kThere;
    std::array<std::uint64_t, kWriters> promised{};
    for (std::size_t w = 0; w < kWriters; ++w) promised[w] = board.seats[w].flushed;
    for (std::size_t w = 0; w < kWriters; ++w) {
      for (std::uint64_t i = 0; i < kRing; ++i) {
        const auto view = cache.get(key_of({w, i}));
        const std::uint64_t most = version_after(board.seats[w].begun, i);
        const auto version = view ? version_in({w, i}, *view) : 0;
        if (!version || *version > most) {
          seat.blame(Fault::kWrong, fmt::format("entry {} of row {} is wrong", i, w));
        } else if (there && *version < version_after(promised[w], i)) {
          seat.blame(Fault::kLost, fmt::format("entry {} of row {} has version {}, {} was flushed", i, w,
                                               *version, version_after(promised[w], i)));
        }
      }
    }
    const std::uint64_t base = count_row(cache, seat, kBaseRow, kBaseEntries, there && rules.has_base);
    if (rules.promise == Promise::kBaseOnce && base != 0 && base != kBaseEntries)
      seat.blame(Fault::kLost,
                 fmt::format("{} of {} entries were cleared", kBaseEntries - base, kBaseEntries));
    count_row(cache, seat, kOtherRow, kOtherEntries, there && rules.has_base && rules.other_row_stays);
    for (std::size_t round = 0; round < flushed.size(); ++round)
      count_row(cache, seat, kVictimRow + round, flushed[round], there);
    if (rules.max_bytes && cache.stats().file_bytes > *rules.max_bytes)
      seat.blame(Fault::kWrong, fmt::format("the file has {} bytes", cache.stats().file_bytes));
  } catch (const std::exception& error) {
    seat.blame(Fault::kError, fmt::format("examination: {}", error.what()));
  }
}

}  // namespace tokcask::campaign
