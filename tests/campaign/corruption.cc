// Damaged stores: what tokcask makes of them, and LMDB alone of the same bytes. See README.md.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <map>

#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "damage.h"
#include "examine.h"

namespace {

using namespace tokcask;
using namespace tokcask::campaign;
namespace fs = std::filesystem;

constexpr std::chrono::seconds kLimit{30};  // a case takes some 10 ms

struct Arguments {
  std::size_t cases = 10'000;
  std::size_t first = 0;
  unsigned seconds = 0;
  std::uint64_t seed = default_seed();
  std::string kind;
  std::string without;
  std::int64_t only = -1;
  std::string json;
  bool keep = false;
  bool no_lmdb = false;
};

enum class Outcome {
  kClean,
  kMiss,
  kRefused,
  kSetAside,
  kSalvaged,
  kOlder,
  kLost,
  kWrong,
  kThrew,
  kCrash,
  kHang
};
constexpr const char* kOutcomes[] = {"clean", "miss",  "refused", "set aside", "salvaged", "older",
                                     "lost",  "wrong", "threw",   "crash",     "hang"};
constexpr std::size_t kOutcomeCount = std::size(kOutcomes);

struct Row {
  std::uint64_t cases = 0;
  std::uint64_t outcomes[kOutcomeCount] = {};
  std::uint64_t present = 0;  // entries in the stores
  std::uint64_t served = 0;   // of these, at the first look
  void add(const Row& other) {
    cases += other.cases;
    present += other.present;
    served += other.served;
    for (std::size_t i = 0; i < kOutcomeCount; ++i) outcomes[i] += other.outcomes[i];
  }
};
using Table = std::map<std::size_t, Row>;  // by kind

struct Case {
  std::size_t number = 0;
  Kind kind = Kind::kBit;
  const Sample* sample = nullptr;
  bool read_only = false;
  DamagedStore damage;
};

class Campaign {
 public:
  explicit Campaign(const Arguments& arguments)
      : arguments_(arguments), samples_(make_samples(arguments.seed)) {
    for (const KindFacts& facts : kinds())
      if (wanted(facts.name)) plan_.insert(plan_.end(), facts.weight, facts.kind);
    if (plan_.empty()) throw std::invalid_argument("no such kind");
  }

  int run() {
    fmt::print("seed {}\n", arguments_.seed);
    const bool one = arguments_.only >= 0;
    const std::size_t first = one ? static_cast<std::size_t>(arguments_.only) : arguments_.first;
    const std::size_t end = first + (one ? 1 : arguments_.cases);
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(arguments_.seconds);
    std::size_t number = first;
    for (; number < end; ++number) {
      if (arguments_.seconds != 0 && std::chrono::steady_clock::now() >= limit) break;
      run_case(make_case(number), one);
    }
    print("tokcask", tokcask_);
    if (!arguments_.no_lmdb) print("LMDB alone", lmdb_);
    write_json();
    fmt::print("{} case(s) from {} on, {} failed\n", number - first, first, failures_.size());
    return failures_.empty() ? 0 : 1;
  }

 private:
  [[nodiscard]] bool wanted(std::string_view kind) const {
    const auto has = [&](const std::string& list) {
      const auto parts = split(list);
      return std::find(parts.begin(), parts.end(), kind) != parts.end();
    };
    return (arguments_.kind.empty() || has(arguments_.kind)) && !has(arguments_.without);
  }

  [[nodiscard]] Case make_case(std::size_t number) const {
    Random random(mix(arguments_.seed, number));
    Case made;
    made.number = number;
    // Steps by a prime, so that a few cases have all kinds.
    made.kind = plan_[number * 37 % plan_.size()];
    made.sample = &samples_[below(random, samples_.size())];
    made.read_only = below(random, 5) < 2;
    made.damage = damage(*made.sample, made.kind, random);
    return made;
  }

  void run_case(const Case& made, bool verbose) {
    if (verbose) {
      fmt::print("case {}: {}, store {}, {}: {}\n", made.number, facts_of(made.kind).name, made.sample->name,
                 made.read_only ? "read-only" : "read-write", made.damage.what);
      std::fflush(stdout);
    }
    run_one(made, "tokcask", examine, tokcask_, verbose);
    if (!arguments_.no_lmdb && facts_of(made.kind).data) run_one(made, "LMDB", examine_lmdb, lmdb_, verbose);
  }

  template <class Examine>
  void run_one(const Case& made, const char* who, const Examine& examine, Table& table, bool verbose) {
    const bool is_tokcask = std::strcmp(who, "tokcask") == 0;
    const Directory directory(arguments_.keep);
    const fs::path root = directory / "store";
    write_store(root, made.damage.files, made.sample->keys_name);
    // LMDB alone has its lock file beside the data.
    if (!is_tokcask && made.damage.files.lock) write_bytes(root / "lock.mdb", *made.damage.files.lock);
    const Shared<Report> shared;
    Report& report = *shared;
    const pid_t child = start([&] {
      if (!is_tokcask) signal(SIGABRT, SIG_DFL);
      examine(root, *made.sample, made.damage, made.read_only, report);
      return 0;
    });
    const End end = wait_for(child, kLimit, [&] {
      if (report.stage != 1) return;
      harm(root, made.damage.later);
      report.stage = 2;
    });
    const Outcome outcome = judge(end, report, root, made);
    Row& row = table[static_cast<std::size_t>(made.kind)];
    ++row.cases;
    ++row.outcomes[static_cast<std::size_t>(outcome)];
    if (report.looked) {
      row.present += report.hits + report.misses;
      row.served += report.hits;
    }
    if (verbose) {
      fmt::print(
          "{}: {} (signal {}, hits {}, misses {}, older {}, back {}, wrong {}, lost {}, errors {}, last step "
          "{})\n  {}\n  {}\n{}",
          who, kOutcomes[static_cast<std::size_t>(outcome)], end.signal, report.hits, report.misses,
          report.older, report.back, report.wrong, report.lost, report.errors, report.step, report.message,
          report.note, arguments_.keep ? "  " + root.string() + "\n" : "");
    }
    if (is_tokcask && fails(outcome, made)) fail(made, outcome, end, report);
  }

  // What an entry's owner would complain about. Where data.mdb is damaged, an older value of a key is none:
  // the samples put other tokens under some keys, against the contract of keys.
  static bool fails(Outcome outcome, const Case& made) {
    return outcome > Outcome::kOlder || (outcome == Outcome::kOlder && !facts_of(made.kind).data);
  }

  Outcome judge(const End& end, const Report& report, const fs::path& root, const Case& made) const {
    if (end.hung) return Outcome::kHang;
    if (end.signal != 0 || end.code != 0) return end.code == kThrew ? Outcome::kThrew : Outcome::kCrash;
    if (report.wrong > 0) return Outcome::kWrong;
    if (report.threw) return Outcome::kThrew;
    if (report.lost > 0) return Outcome::kLost;
    if (report.older > 0) return Outcome::kOlder;
    for (const fs::directory_entry& entry : fs::directory_iterator(root))
      if (entry.path().filename().string().find("set-aside") != std::string::npos)
        return report.hits > 0 ? Outcome::kSalvaged : Outcome::kSetAside;
    static_cast<void>(made);
    if (report.refused) return Outcome::kRefused;
    return report.misses > 0 ? Outcome::kMiss : Outcome::kClean;
  }

  // To a file that others have open: in place.
  static void harm(const fs::path& root, const Later& later) {
    const fs::path file = root / later.file;
    std::error_code error;
    if (!fs::exists(file)) return;
    Bytes bytes = read_bytes(file);
    const std::size_t before = bytes.size();
    later.change(bytes);
    if (bytes.size() != before) return fs::resize_file(file, bytes.size(), error);
    const int fd = ::open(file.c_str(), O_WRONLY | O_CLOEXEC);
    if (fd < 0 || ::write(fd, bytes.data(), bytes.size()) < 0)
      throw std::runtime_error("cannot write " + file.string());
    ::close(fd);
  }

  void fail(const Case& made, Outcome outcome, const End& end, const Report& report) {
    std::string options = arguments_.kind.empty() ? "" : " --kind " + arguments_.kind;
    if (!arguments_.without.empty()) options += " --without " + arguments_.without;
    const std::string text = fmt::format(
        "{} in case {} ({}, store {}, {}: {}): step {}, signal {}: {}; again: corruption_test --seed {} "
        "--only "
        "{}{}",
        kOutcomes[static_cast<std::size_t>(outcome)], made.number, facts_of(made.kind).name,
        made.sample->name, made.read_only ? "read-only" : "read-write", made.damage.what, report.step,
        end.signal, report.note, arguments_.seed, made.number, options);
    failures_.push_back(text);
    fmt::print("FAILED: {}\n", text);
    std::fflush(stdout);
  }

  static std::string kept(const Row& row) {
    if (row.present == 0) return "-";
    return fmt::format("{:.1f}%", 100.0 * static_cast<double>(row.served) / static_cast<double>(row.present));
  }

  static void print_row(const char* name, const Row& row) {
    fmt::print("| {:<26} | {:>6} |", name, row.cases);
    for (const std::uint64_t count : row.outcomes)
      fmt::print(" {:>9} |", count == 0 ? "" : std::to_string(count));
    fmt::print(" {:>7} |\n", kept(row));
  }

  static void print(const char* who, const Table& table) {
    fmt::print("\n{}\n| {:<26} | {:>6} |", who, "damage", "cases");
    for (const char* name : kOutcomes) fmt::print(" {:>9} |", name);
    fmt::print(" {:>7} |\n|---|--:|", "served");
    for (std::size_t i = 0; i <= kOutcomeCount; ++i) fmt::print("--:|");
    fmt::print("\n");
    Row total;
    for (const auto& [kind, row] : table) {
      print_row(kinds()[kind].what, row);
      total.add(row);
    }
    print_row("all", total);
  }

  static nlohmann::json to_json(const Table& table) {
    nlohmann::json rows = nlohmann::json::object();
    for (const auto& [kind, row] : table) {
      nlohmann::json& out = rows[kinds()[kind].name];
      out["cases"] = row.cases;
      for (std::size_t i = 0; i < kOutcomeCount; ++i) out[kOutcomes[i]] = row.outcomes[i];
      out["entries"] = row.present;
      out["served"] = row.served;
    }
    return rows;
  }

  void write_json() const {
    if (arguments_.json.empty()) return;
    const nlohmann::json document{{"schema_version", 1},
                                  {"seed", arguments_.seed},
                                  {"tokcask", to_json(tokcask_)},
                                  {"lmdb", to_json(lmdb_)},
                                  {"failures", failures_}};
    std::ofstream(arguments_.json) << document.dump(2) << '\n';
  }

  Arguments arguments_;
  std::vector<Sample> samples_;
  std::vector<Kind> plan_;
  Table tokcask_;
  Table lmdb_;
  std::vector<std::string> failures_;
};

}  // namespace

int main(int argc, char** argv) {
  Arguments arguments;
  CLI::App app("Damages stores and looks what is made of them. Exits with 1 if anything was wrong.");
  app.add_option("--cases", arguments.cases, "how many");
  app.add_option("--first", arguments.first, "the number of the first one, to do many in parts");
  app.add_option("--seconds", arguments.seconds, "stop after so long");
  app.add_option("--seed", arguments.seed, "of all choices; default TOKCASK_TEST_SEED, or a new one");
  app.add_option("--kind", arguments.kind, "these kinds only, with commas between");
  app.add_option("--without", arguments.without, "not these kinds");
  app.add_option("--only", arguments.only, "this case alone, with all that is known of it");
  app.add_option("--json", arguments.json, "write the tables to this file");
  app.add_flag("--keep", arguments.keep, "keep the directories of the cases");
  app.add_flag("--no-lmdb", arguments.no_lmdb, "not the same through LMDB alone");
  CLI11_PARSE(app, argc, argv);
  try {
    return Campaign(arguments).run();
  } catch (const std::exception& error) {
    fmt::print(stderr, "corruption_test: {}\n", error.what());
    return 2;
  }
}
