// Processes that are killed in the middle of what they do, while others write and read. See README.md.
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <map>
#include <thread>

#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "operations.h"

namespace {

using namespace tokcask;
using namespace tokcask::campaign;
using namespace std::chrono_literals;
namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr auto kFlush = 600us;   // a flush of few entries takes less
constexpr auto kPatience = 10s;  // for a living process to come round

struct Arguments {
  std::size_t rounds = 2'000;
  std::uint64_t seed = default_seed();
  std::string operation;
  std::string program = fs::read_symlink("/proc/self/exe").parent_path() / "../../tools/tokcask";
  std::string json;
  bool verbose = false;
};

struct Row {
  std::uint64_t rounds = 0;
  std::uint64_t within = 0;  // killed before the operation ended
  std::uint64_t ok = 0;
  std::uint64_t lost = 0;
  std::uint64_t wrong = 0;
  std::uint64_t blocked = 0;
  std::uint64_t failed = 0;  // with an error where there may be none
  std::uint64_t busy = 0;    // flushes that ended with Error(kBusy), which is right while a writer is stopped
  std::chrono::nanoseconds longest{0};  // put and flush of a living writer
  std::chrono::nanoseconds usual{0};    // what the operation takes, about
};

std::string text_of(std::chrono::nanoseconds time) {
  return fmt::format("{:.1f} ms", std::chrono::duration<double, std::milli>(time).count());
}

// One store and those around it, for some rounds of an operation.
class Life {
 public:
  Life(const Operation& operation, const Arguments& arguments, std::uint64_t seed, Row& row)
      : operation_(operation), arguments_(arguments), row_(row), random_(seed), seed_(seed) {
    round_.directory = directory_.path();
    round_.program = arguments.program;
    round_.rules = operation.rules;
    round_.board = &*board_;
    if (operation_.rules.has_base) {
      in_child([&] {
        auto cache = TokenizedCache::open(round_.root(), options_of(operation_.rules));
        put_base(cache);
      });
    }
  }
  ~Life() {
    for (pid_t& child : crowd_) end(child);
  }
  Life(const Life&) = delete;
  Life& operator=(const Life&) = delete;

  // The operation once, without a kill, to know how long it takes. Not a round.
  std::string measure() {
    measuring_ = true;
    if (!operation_.makes) gather();
    if (std::string fault = play(); !fault.empty()) return fault;
    return disperse();
  }

  // The fault of the first round that has one.
  std::string live(std::size_t rounds) {
    if (!operation_.makes) gather();
    for (std::size_t i = 0; i < rounds; ++i) {
      round_.number = i;
      round_.seed = mix(seed_, i);
      std::string fault = play();
      count(fault);
      if (!fault.empty()) return fault;
    }
    std::string fault = disperse();
    if (!fault.empty()) {
      --row_.ok;
      count(fault);
    }
    return fault;
  }

 private:
  // ---- Children ----

  static void end(pid_t& child) {
    if (child <= 0) return;
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    child = 0;
  }

  // It stays to be waited for.
  static bool has_ended(pid_t child) {
    siginfo_t info{};
    return waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
           info.si_pid == child;
  }

  // True if it ended well within its time.
  template <class Act>
  bool in_child(const Act& act) {
    const End end = wait_for(start([&] {
                               act();
                               return 0;
                             }),
                             3 * kPatience);
    if (end.hung) blocked_ = true;
    return !end.hung && end.signal == 0 && end.code == 0;
  }

  pid_t start_number(std::size_t number) {
    return start([&, number] {
      return number < kWriters
                 ? write_for_ever(round_.root(), round_.rules, *board_, number)
                 : read_for_ever(round_.root(), round_.rules, *board_, number, mix(seed_, number));
    });
  }
  void gather() {
    for (std::size_t number = 0; number < kCrowd; ++number) crowd_[number] = start_number(number);
  }

  // ---- A round ----

  std::string play() {
    if (operation_.prepare && !in_child([&] { operation_.prepare(round_); })) return "cannot prepare";
    const bool early = operation_.makes && below(random_, 2) == 0;
    if (early) gather();
    board_->stage = 0;
    board_->victim().flushed = 0;
    board_->took_ns = 0;
    if (!measuring_) ++row_.rounds;
    strike();
    if (operation_.makes && !early) gather();
    if (const std::string fault = others_go_on(); !fault.empty()) return fault;
    flushed_.push_back(board_->victim().flushed);
    if (!in_child([&] { examine_store(round_.root(), round_.rules, *board_, flushed_); }))
      return blocked_ ? "blocked: the store cannot be examined" : "the examination failed";
    if (const std::string fault = blamed(); !fault.empty()) return fault;
    // What was interrupted is done once more, to its end, now and then.
    if (operation_.act && !operation_.makes && below(random_, 4) == 0) {
      board_->stage = 0;
      if (!in_child([&] { operation_.act(round_); })) return "the operation failed when it was done again";
      flushed_.back() = board_->victim().flushed;
    }
    return {};
  }

  void strike() {
    switch (operation_.who) {
      case Who::kVictim:
        return kill_victim();
      case Who::kWriter:
        return kill_one_of_crowd(below(random_, kWriters));
      case Who::kReader:
        return kill_one_of_crowd(kWriters + below(random_, kReaders));
      case Who::kStopped:
        return stop_writer();
    }
  }

  void pause(std::chrono::nanoseconds most) {
    std::this_thread::sleep_for(
        std::chrono::nanoseconds(below(random_, static_cast<std::uint64_t>(most.count()) + 1)));
  }

  void kill_victim() {
    Board& board = *board_;
    const pid_t victim = start([&] {
      operation_.act(round_);
      board.took_ns = steady_ns() - board.began_ns;
      board.stage = 2;
      return 0;
    });
    const auto limit = Clock::now() + kPatience;
    // One that fails before it begins is waited for all the same.
    while (board.stage == 0 && Clock::now() < limit && !has_ended(victim)) std::this_thread::sleep_for(20us);
    if (measuring_) {
      const auto begun = Clock::now();
      const End end = wait_for(victim, kPatience);
      row_.usual = board.took_ns != 0 ? std::chrono::nanoseconds(board.took_ns) : Clock::now() - begun;
      if (end.hung || end.signal != 0 || end.code != 0) blame_victim(end);
      return;
    }
    pause(row_.usual * 6 / 5);
    const bool within = board.stage == 1 && !has_ended(victim);
    kill(victim, SIGKILL);
    const End end = wait_for(victim, kPatience);
    if (end.signal != SIGKILL && (end.signal != 0 || end.code != 0)) blame_victim(end);
    if (within) ++row_.within;
    if (board.took_ns != 0) row_.usual = (row_.usual * 3 + std::chrono::nanoseconds(board.took_ns)) / 4;
  }

  void blame_victim(const End& end) {
    board_->victim().blame(Fault::kError, fmt::format("the operation ended with signal {}, code {}{}",
                                                      end.signal, end.code, end.hung ? ", hung" : ""));
  }

  // Most of the time a writer does nothing, so it is waited for until it writes.
  void wait_for_flush(std::size_t writer) {
    const auto limit = Clock::now() + 50ms;
    while (!board_->seats[writer].flushing && Clock::now() < limit) std::this_thread::yield();
    pause(std::chrono::nanoseconds(board_->seats[writer].usual_ns) * 6 / 5);
  }

  void kill_one_of_crowd(std::size_t number) {
    if (number < kWriters) {
      wait_for_flush(number);
    } else {
      pause(1ms);
    }
    end(crowd_[number]);
    ++row_.within;
    // A round later somebody else is in its place.
    crowd_[number] = start_number(number);
  }

  // Of the write lock; 0: nobody.
  [[nodiscard]] pid_t lock_holder() const {
    const int fd = open((round_.root() / "write.lock").c_str(), O_RDWR | O_CLOEXEC);
    struct flock lock{};
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    const bool held = fd >= 0 && fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
    if (fd >= 0) close(fd);
    return held ? lock.l_pid : 0;
  }

  void stop_writer() {
    const std::size_t number = below(random_, kWriters);
    // Most of the time it does not hold the lock, so it is stopped until it does, if it does.
    constexpr int kMostTries = 30;
    for (int tries = 1;; ++tries) {
      wait_for_flush(number);
      kill(crowd_[number], SIGSTOP);
      siginfo_t info{};
      waitid(P_PID, static_cast<id_t>(crowd_[number]), &info, WSTOPPED);
      if (lock_holder() == crowd_[number] || tries == kMostTries) break;
      kill(crowd_[number], SIGCONT);
    }
    const std::uint64_t busy = board_->seats[1 - number].busy;
    const std::uint64_t rounds = board_->seats[1 - number].rounds;
    // The other one comes round, or is told that the lock is held, twice.
    const auto limit = Clock::now() + kPatience;
    while (board_->seats[1 - number].rounds < rounds + 2 && Clock::now() < limit)
      std::this_thread::sleep_for(1ms);
    if (board_->seats[1 - number].rounds < rounds + 2) blocked_ = true;
    if (board_->seats[1 - number].busy > busy) ++row_.within;
    kill(crowd_[number], SIGCONT);
  }

  std::string others_go_on() {
    std::array<std::uint64_t, kCrowd> before{};
    for (std::size_t number = 0; number < kCrowd; ++number) before[number] = board_->seats[number].rounds;
    const auto limit = Clock::now() + kPatience;
    for (std::size_t number = 0; number < kCrowd; ++number) {
      while (board_->seats[number].rounds < before[number] + 2) {
        if (const std::string fault = blamed(); !fault.empty()) return fault;
        if (Clock::now() >= limit) {
          blocked_ = true;
          return fmt::format("blocked: {} {}", number < kWriters ? "writer" : "reader", number);
        }
        std::this_thread::sleep_for(200us);
      }
    }
    return blocked_ ? "blocked while a writer was stopped" : "";
  }

  [[nodiscard]] std::string blamed() {
    static constexpr const char* kNames[] = {"", "wrong", "lost", "error"};
    for (const Seat& seat : board_->seats) {
      const Fault fault = seat.fault;
      if (fault == Fault::kNone) continue;
      fault_ = std::max(fault_, static_cast<int>(fault));
      return fmt::format("{}: {}", kNames[static_cast<int>(fault)], seat.note);
    }
    return {};
  }

  void count(const std::string& fault) {
    for (std::size_t writer = 0; writer < kWriters; ++writer) {
      const std::chrono::nanoseconds longest(
          static_cast<std::int64_t>(board_->seats[writer].longest_ns.exchange(0)));
      // Who is stopped waits as long as it is stopped.
      if (operation_.who != Who::kStopped) row_.longest = std::max(row_.longest, longest);
      row_.busy += board_->seats[writer].busy.exchange(0);
    }
    if (fault.empty()) {
      ++row_.ok;
    } else if (blocked_) {
      ++row_.blocked;
    } else if (fault_ == static_cast<int>(Fault::kWrong)) {
      ++row_.wrong;
    } else if (fault_ == static_cast<int>(Fault::kLost)) {
      ++row_.lost;
    } else {
      ++row_.failed;
    }
  }

  // All end, and the store that they leave is whole, and no run in it is alive.
  std::string disperse() {
    board_->over = true;
    for (pid_t& child : crowd_) {
      if (child <= 0) continue;
      const End end = wait_for(child, kPatience);
      child = 0;
      if (end.hung) return "blocked at the end";
      if (end.signal != 0 || end.code != 0)
        return fmt::format("one of the crowd ended with signal {}", end.signal);
    }
    const bool done = in_child([&] {
      examine_store(round_.root(), round_.rules, *board_, flushed_);
      Options options = options_of(round_.rules);
      options.observe = true;
      auto cache = TokenizedCache::open(round_.root(), options);
      for (const RunFigures& run : cache.runs()) {
        if (run.state == RunState::kAlive)
          board_->victim().blame(Fault::kWrong, fmt::format("run {} is said to be alive", run.run_id));
      }
    });
    if (!done) return "the store cannot be examined at the end";
    return blamed();
  }

  const Operation& operation_;
  const Arguments& arguments_;
  Row& row_;
  Random random_;
  std::uint64_t seed_;
  Directory directory_;
  Shared<Board> board_;
  Round round_;
  std::array<pid_t, kCrowd> crowd_{};
  std::vector<std::uint64_t> flushed_;
  bool measuring_ = false;
  bool blocked_ = false;
  int fault_ = 0;
};

class Campaign {
 public:
  explicit Campaign(const Arguments& arguments) : arguments_(arguments) {
    const auto names = split(arguments.operation);
    for (const Operation& operation : operations()) {
      if (!names.empty() && std::ranges::find(names, operation.name) == names.end()) continue;
      if (std::string_view(operation.name) == "import" && !fs::exists(arguments.program)) {
        fmt::print("import is left out: there is no {}\n", arguments.program);
        continue;
      }
      wanted_.push_back(&operation);
    }
    if (wanted_.empty()) throw std::invalid_argument("no such operation");
  }

  int run() {
    fmt::print("seed {}\n", arguments_.seed);
    std::size_t left = arguments_.rounds;
    std::vector<std::size_t> share(wanted_.size(), arguments_.rounds / wanted_.size());
    for (std::size_t i = 0; i < arguments_.rounds % wanted_.size(); ++i) ++share[i];
    // In turn, so that a campaign that is stopped has something of everything.
    for (std::uint64_t life = 0; left > 0; ++life) {
      for (std::size_t i = 0; i < wanted_.size(); ++i) {
        const std::size_t rounds = std::min<std::size_t>(share[i], wanted_[i]->rounds);
        if (rounds == 0) continue;
        share[i] -= rounds;
        left -= rounds;
        live(*wanted_[i], mix(mix(arguments_.seed, life), i), rounds);
      }
    }
    print();
    write_json();
    return failures_.empty() ? 0 : 1;
  }

 private:
  void live(const Operation& operation, std::uint64_t seed, std::size_t rounds) {
    const auto start = Clock::now();
    Row& row = rows_[operation.name];
    std::string fault;
    if (operation.act && row.usual == 0ns) fault = Life(operation, arguments_, mix(seed, 1), row).measure();
    if (fault.empty()) fault = Life(operation, arguments_, seed, row).live(rounds);
    if (arguments_.verbose)
      fmt::print("{}: {} round(s), {}\n", operation.name, rounds, text_of(Clock::now() - start));
    if (fault.empty()) return;
    failures_.push_back(fmt::format("{}: {}; again: kills_test --operation {} --seed {} (moments are chance)",
                                    operation.name, fault, operation.name, arguments_.seed));
    fmt::print("FAILED: {}\n", failures_.back());
    std::fflush(stdout);
  }

  void print() {
    fmt::print(
        "\n| {:<30} | rounds | within |     ok |   lost |  wrong | blocked | errors |   busy | takes about | "
        "longest put and flush |\n",
        "killed in");
    fmt::print("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n");
    Row total;
    for (const Operation* operation : wanted_) {
      const Row& row = rows_[operation->name];
      print(operation->what, row);
      total.rounds += row.rounds;
      total.within += row.within;
      total.ok += row.ok;
      total.lost += row.lost;
      total.wrong += row.wrong;
      total.blocked += row.blocked;
      total.failed += row.failed;
      total.busy += row.busy;
      total.longest = std::max(total.longest, row.longest);
    }
    print("all", total);
    fmt::print("{} round(s), {} failed\n", total.rounds, failures_.size());
  }
  static void print(const char* what, const Row& row) {
    fmt::print(
        "| {:<30} | {:>6} | {:>6} | {:>6} | {:>6} | {:>6} | {:>7} | {:>6} | {:>6} | {:>11} | {:>21} |\n",
        what, row.rounds, row.within, row.ok, row.lost, row.wrong, row.blocked, row.failed, row.busy,
        row.usual == 0ns ? "" : text_of(row.usual), text_of(row.longest));
  }

  void write_json() {
    if (arguments_.json.empty()) return;
    nlohmann::json document{{"schema_version", 1}, {"seed", arguments_.seed}, {"failures", failures_}};
    for (const Operation* operation : wanted_) {
      const Row& row = rows_[operation->name];
      document["operations"][operation->name] = {
          {"rounds", row.rounds},
          {"within", row.within},
          {"ok", row.ok},
          {"lost", row.lost},
          {"wrong", row.wrong},
          {"blocked", row.blocked},
          {"errors", row.failed},
          {"busy", row.busy},
          {"longest_put_and_flush_seconds", std::chrono::duration<double>(row.longest).count()}};
    }
    std::ofstream(arguments_.json) << document.dump(2) << '\n';
  }

  Arguments arguments_;
  std::vector<const Operation*> wanted_;
  std::map<std::string, Row> rows_;
  std::vector<std::string> failures_;
};

}  // namespace

int main(int argc, char** argv) {
  Arguments arguments;
  CLI::App app(
      "Kills processes in the middle of what they do and looks what is left. Exits with 1 if anything was "
      "lost, wrong or blocked.");
  app.add_option("--rounds", arguments.rounds, "how many, spread over the operations");
  app.add_option("--seed", arguments.seed, "of all choices; default TOKCASK_TEST_SEED, or a new one");
  app.add_option("--operation", arguments.operation, "these operations only, with commas between");
  app.add_option("--tokcask", arguments.program, "the command, for import-npz");
  app.add_option("--json", arguments.json, "write the table to this file");
  app.add_flag("--verbose", arguments.verbose, "tell how long each store lived");
  CLI11_PARSE(app, argc, argv);
  try {
    return Campaign(arguments).run();
  } catch (const std::exception& error) {
    fmt::print(stderr, "kills_test: {}\n", error.what());
    return 2;
  }
}
