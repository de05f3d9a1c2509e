#include "shm/run_table.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <limits>
#include <string>
#include <utility>

namespace tokcask::shm {

namespace {

// Set in the first word of a row while its other fields are being written.
constexpr std::uint64_t kClaimed = std::uint64_t{1} << 63;
// Ids are 56 bits wide in the store.
constexpr std::uint64_t kMaxId = (std::uint64_t{1} << 56) - 1;
// Runs that may have begun since the newest in the store; a last id further ahead is damage.
constexpr std::uint64_t kMostAhead = std::uint64_t{1} << 16;

constexpr std::uint32_t kKilled = 1;
constexpr std::uint32_t kSeveral = 2;
constexpr std::uint32_t kNamed = 4;  // tokenizer and length are there

constexpr std::size_t kShaWords = 8;
using Sha = std::array<std::uint64_t, kShaWords>;

Sha to_words(std::string_view sha) {
  Sha words{};
  std::memcpy(words.data(), sha.data(), std::min(sha.size(), sizeof words));
  return words;
}

// The start of a process that has ended, and that its parent has not waited for yet.
constexpr std::uint64_t kEnded = ~std::uint64_t{0};

// When process `pid` started, in clock ticks since boot (field 22 of /proc/PID/stat), or 0 if there is none.
// With the pid it names a process for as long as the machine is up.
// Needs no memory.
std::uint64_t process_start(std::uint64_t pid) noexcept {
  std::array<char, 32> path{"/proc/"};
  constexpr std::string_view kFile = "/stat";
  char* const end = std::to_chars(path.data() + strlen(path.data()), path.end() - kFile.size() - 1, pid).ptr;
  std::copy(kFile.begin(), kFile.end(), end);
  const int fd = open(path.data(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  std::array<char, 1024> line{};
  const ssize_t size = read(fd, line.data(), line.size());
  close(fd);
  std::string_view rest(line.data(), static_cast<std::size_t>(std::max<ssize_t>(size, 0)));
  // The second field is the program's name in parentheses and may hold anything.
  rest.remove_prefix(std::min(rest.rfind(')') + 1, rest.size()));
  const auto next_field = [&] {
    rest.remove_prefix(std::min(rest.find_first_not_of(' '), rest.size()));
    const std::string_view field = rest.substr(0, rest.find(' '));
    rest.remove_prefix(field.size());
    return field;
  };
  if (const std::string_view state = next_field(); state == "Z" || state == "X") return kEnded;
  for (int field = 4; field < 22; ++field) next_field();
  const std::string_view field = next_field();
  std::uint64_t start = 0;
  std::from_chars(field.data(), field.data() + field.size(), start);
  return start;
}

Process this_process() noexcept {
  const auto pid = static_cast<std::uint64_t>(getpid());
  return {pid, process_start(pid)};
}

bool is_alive(const Process& process) noexcept {
  if (process.pid == 0 || process.pid > std::numeric_limits<pid_t>::max()) return false;  // damage
  if (kill(static_cast<pid_t>(process.pid), 0) != 0 && errno == ESRCH) return false;
  const std::uint64_t found = process_start(process.pid);
  if (found == kEnded) return false;
  return found == 0 || process.start == 0 || found == process.start;  // no /proc: believe the pid
}

// Asks for each process once.
class Liveness {
 public:
  bool operator()(const Process& process) noexcept {
    const auto known = std::span(known_).first(count_);
    const auto found =
        std::find_if(known.begin(), known.end(), [&](const auto& entry) { return entry.first == process; });
    if (found != known.end()) return found->second;
    const bool alive = is_alive(process);
    known_[count_++] = {process, alive};
    return alive;
  }

 private:
  std::array<std::pair<Process, bool>, kMaxMembers> known_{};  // no more are asked for in one sweep
  std::size_t count_ = 0;
};

std::uint64_t load(const std::atomic<std::uint64_t>& word) noexcept {
  return word.load(std::memory_order_relaxed);
}

void set(std::atomic<std::uint64_t>& word, std::uint64_t value) noexcept {
  word.store(value, std::memory_order_relaxed);
}

std::uint64_t activity_of(const RunFigures& figures, std::uint64_t tokenize_ns) noexcept {
  const std::uint64_t done =
      figures.hits + figures.misses + figures.puts + figures.declined + figures.evicted + tokenize_ns;
  return done == 0 || figures.ended_ns == 0 ? done : done + 1;
}

}  // namespace

// ---- Rows ----

void Counters::add(const Counters& other) noexcept {
  constexpr auto kOrder = std::memory_order_relaxed;
  hits.fetch_add(load(other.hits), kOrder);
  misses.fetch_add(load(other.misses), kOrder);
  derived.fetch_add(load(other.derived), kOrder);
  puts.fetch_add(load(other.puts), kOrder);
  declined.fetch_add(load(other.declined), kOrder);
  evicted.fetch_add(load(other.evicted), kOrder);
  tokenize_ns.fetch_add(load(other.tokenize_ns), kOrder);
  const std::uint64_t active = load(other.last_active);
  std::uint64_t seen = load(last_active);
  while (seen < active && !last_active.compare_exchange_weak(seen, active, kOrder)) {
  }
}

void Counters::reset() noexcept {
  for (std::atomic<std::uint64_t>* const word :
       {&hits, &misses, &last_active, &derived, &puts, &declined, &evicted, &tokenize_ns}) {
    set(*word, 0);
  }
}

void Counters::copy_to(RunFigures& figures) const noexcept {
  figures.hits = load(hits);
  figures.misses = load(misses);
  figures.last_active_ns = static_cast<std::int64_t>(load(last_active));
  figures.derived = load(derived);
  figures.puts = load(puts);
  figures.declined = load(declined);
  figures.evicted = load(evicted);
  figures.tokenize_seconds = static_cast<double>(load(tokenize_ns)) / 1e9;
}

struct RunTable::MemberRow {
  std::atomic<std::uint64_t> pid;
  std::atomic<std::uint64_t> process_start;
  std::atomic<std::uint64_t> run_started;
  std::atomic<std::uint64_t> run_row;
  Counters counters;
  std::atomic<std::uint64_t> unprotected;
  std::uint64_t zero[3];
};

struct RunTable::RunRow {
  std::atomic<std::uint64_t> id;
  std::atomic<std::uint64_t> started;
  std::atomic<std::uint64_t> ended;
  std::atomic<std::uint32_t> flags;
  std::atomic<std::uint32_t> sequence_len;
  Counters sums;
  std::atomic<std::uint64_t> bytes_after;
  std::atomic<std::uint64_t> founder_pid;
  std::atomic<std::uint64_t> founder_start;
  std::atomic<std::uint64_t> closed;
  std::array<std::atomic<std::uint64_t>, kShaWords> tokenizer_sha;
  std::atomic<std::uint64_t> saved;
  std::uint64_t zero[7];
};

RunTable::RunTable(std::byte* memory, std::atomic<std::uint64_t>& last_run) noexcept
    : self_(this_process()),
      members_(reinterpret_cast<MemberRow*>(memory)),
      runs_(reinterpret_cast<RunRow*>(memory + kMaxMembers * sizeof(MemberRow))),
      last_run_(&last_run) {
  static_assert(sizeof(Counters) == 64 && sizeof(MemberRow) == 128 && sizeof(RunRow) == 256);
  static_assert(kMaxMembers * sizeof(MemberRow) + kMaxRuns * sizeof(RunRow) == kBytes);
  static_assert(std::atomic<std::uint32_t>::is_always_lock_free);
}

void RunTable::raise_last_run(std::uint64_t stored) noexcept {
  std::uint64_t seen = load(*last_run_);
  while ((seen < stored || seen - stored > kMostAhead) && !last_run_->compare_exchange_weak(seen, stored)) {
  }
}

RunTable::RunRow* RunTable::find(const RunRef& run) const noexcept {
  if (run.row >= kMaxRuns) return nullptr;
  RunRow& row = runs_[run.row];
  const std::uint64_t id = row.id.load(std::memory_order_acquire);
  return id == 0 || (id & kClaimed) != 0 || load(row.started) != run.started ? nullptr : &row;
}

RunRef RunTable::ref_of(std::size_t row) const noexcept { return {row, load(runs_[row].started)}; }

std::optional<RunRef> RunTable::run_of(const MemberRow& member) noexcept {
  if (member.pid.load() == 0) return std::nullopt;
  const RunRef run{load(member.run_row), load(member.run_started)};
  if (run.started == 0 || run.row >= kMaxRuns) return std::nullopt;
  return run;
}

std::size_t RunTable::count_members(const RunRef& run, bool own) const noexcept {
  std::size_t count = 0;
  for (std::size_t i = 0; i < kMaxMembers; ++i) {
    const MemberRow& member = members_[i];
    if (run_of(member) != run) continue;
    const Process process{load(member.pid) & ~kClaimed, load(member.process_start)};
    if (!own || process == self_) ++count;
  }
  return count;
}

// ---- Beginning and joining ----

std::optional<std::size_t> RunTable::oldest_ended() const noexcept {
  std::optional<std::size_t> oldest;
  for (std::size_t i = 0; i < kMaxRuns; ++i) {
    if (find(ref_of(i)) == nullptr || load(runs_[i].ended) == 0 || count_members(ref_of(i), false) > 0)
      continue;
    if (!oldest || load(runs_[i].ended) < load(runs_[*oldest].ended)) oldest = i;
  }
  return oldest;
}

std::optional<std::size_t> RunTable::claim_run() noexcept {
  for (std::size_t i = 0; i < kMaxRuns; ++i) {
    std::uint64_t free = 0;
    if (runs_[i].id.compare_exchange_strong(free, self_.pid | kClaimed)) return i;
  }
  while (const auto oldest = oldest_ended()) {
    std::uint64_t id = runs_[*oldest].id.load();
    if (id != 0 && (id & kClaimed) == 0 &&
        runs_[*oldest].id.compare_exchange_strong(id, self_.pid | kClaimed)) {
      return oldest;
    }
  }
  return std::nullopt;
}

std::optional<RunTable::Member> RunTable::add_member(const RunRef& run) noexcept {
  for (std::size_t i = 0; i < kMaxMembers; ++i) {
    MemberRow& member = members_[i];
    std::uint64_t free = 0;
    if (!member.pid.compare_exchange_strong(free, self_.pid | kClaimed)) continue;
    set(member.process_start, self_.start);
    member.counters.reset();
    set(member.unprotected, 0);
    set(member.run_row, run.row);
    set(member.run_started, run.started);
    member.pid.store(self_.pid);
    return Member{i, run, &member.counters};
  }
  return std::nullopt;
}

std::optional<RunTable::Member> RunTable::begin(std::uint64_t started) noexcept {
  sweep();
  const auto claimed = claim_run();
  if (!claimed) return std::nullopt;
  RunRow& row = runs_[*claimed];
  set(row.started, started);
  set(row.ended, 0);
  row.flags.store(0, std::memory_order_relaxed);
  row.sequence_len.store(0, std::memory_order_relaxed);
  row.sums.reset();
  set(row.bytes_after, 0);
  set(row.founder_pid, self_.pid);
  set(row.founder_start, self_.start);
  set(row.closed, 0);
  for (auto& word : row.tokenizer_sha) set(word, 0);
  set(row.saved, 0);
  const auto member = add_member({*claimed, started});
  const std::uint64_t id = member ? std::max<std::uint64_t>((last_run_->fetch_add(1) + 1) & kMaxId, 1) : 0;
  row.id.store(id);
  return member;
}

std::optional<RunTable::Member> RunTable::join(const RunRef& run) noexcept {
  const auto lives = [&] {
    const RunRow* const row = find(run);
    return row != nullptr && row->ended.load() == 0;
  };
  if (!lives()) return std::nullopt;
  const auto member = add_member(run);
  // Its last member may have left meanwhile.
  if (member && !lives()) {
    MemberRow& own = members_[member->row];
    own.pid.store(self_.pid | kClaimed);
    free_member(own, false);
    return std::nullopt;
  }
  return member;
}

std::optional<RunTable::Member> RunTable::join(std::uint64_t run_id) noexcept {
  if (run_id == 0 || run_id > kMaxId) return std::nullopt;
  sweep();  // a dead run is not joined
  for (std::size_t i = 0; i < kMaxRuns; ++i) {
    if (runs_[i].id.load(std::memory_order_acquire) != run_id) continue;
    if (const auto member = join(ref_of(i))) return member;
  }
  return std::nullopt;
}

std::optional<RunTable::Member> RunTable::join_own() noexcept {
  // From the newest on, one after the other, until one can be joined.
  for (std::uint64_t below = kClaimed;;) {
    std::optional<RunRef> newest;
    std::uint64_t newest_id = 0;
    for (std::size_t i = 0; i < kMaxMembers; ++i) {
      const MemberRow& member = members_[i];
      if (Process{member.pid.load(), load(member.process_start)} != self_) continue;
      const auto run = run_of(member);
      if (!run || find(*run) == nullptr) continue;
      const std::uint64_t id = load(runs_[run->row].id);
      if (id >= below || id <= newest_id) continue;
      newest = run;
      newest_id = id;
    }
    if (!newest) return std::nullopt;
    if (const auto member = join(*newest)) return member;
    below = newest_id;
  }
}

// ---- Leaving and ending ----

void RunTable::free_member(MemberRow& member, bool counted) noexcept {
  if (counted) {
    const auto run = run_of(member);
    if (RunRow* const row = run ? find(*run) : nullptr) row->sums.add(member.counters);
  }
  member.counters.reset();
  set(member.run_started, 0);
  member.pid.store(0);
}

void RunTable::note_close(const RunRef& run, std::uint64_t now) noexcept {
  RunRow* const row = find(run);
  if (row == nullptr || Process{load(row->founder_pid), load(row->founder_start)} != self_) return;
  if (count_members(run, true) <= 1) set(row->closed, now);
}

void RunTable::end_run(const RunRef& run, std::uint64_t when, std::size_t left) noexcept {
  RunRow* const row = find(run);
  if (row == nullptr || row->ended.load() != 0 || count_members(run, false) > left) return;
  if (load(row->closed) == 0) row->flags.fetch_or(kKilled);
  std::uint64_t alive = 0;
  row->ended.compare_exchange_strong(alive, std::max<std::uint64_t>(when, 1));
  if (count_members(run, false) <= left) return;
  // Joined meanwhile. Who joins looks again whether it lives; one that saw it ended is on the way out.
  row->ended.store(0);
  row->flags.fetch_and(~kKilled);
}

void RunTable::release_if_done(const RunRef& run) noexcept {
  const auto done = entry(run, Names::kNo);
  if (!done || done->figures.ended_ns == 0 || done->unsaved()) return;
  if (count_members(run, false) > 0) return;
  std::uint64_t id = done->figures.run_id;
  if (!runs_[run.row].id.compare_exchange_strong(id, 0)) return;
  if (done->activity == 0) last_run_->compare_exchange_strong(id, id - 1);
}

void RunTable::protect_nothing(const Member& member) noexcept { set(members_[member.row].unprotected, 1); }

void RunTable::end_if_last(const Member& member, std::uint64_t now) noexcept {
  note_close(member.run, now);
  end_run(member.run, now, 1);
}

void RunTable::leave(const Member& member, std::uint64_t now) noexcept {
  note_close(member.run, now);
  MemberRow& row = members_[member.row];
  row.pid.store(self_.pid | kClaimed);
  free_member(row, true);
  end_run(member.run, now, 0);
  release_if_done(member.run);
}

// ---- Who is dead ----

RunTable::Referenced RunTable::sweep_members(Referenced* protecting) noexcept {
  Referenced referenced;
  Liveness alive;
  for (std::size_t i = 0; i < kMaxMembers; ++i) {
    MemberRow& member = members_[i];
    std::uint64_t pid = member.pid.load();
    if (pid == 0) continue;
    const bool claimed = (pid & kClaimed) != 0;
    const Process process{pid & ~kClaimed, claimed ? 0 : load(member.process_start)};
    if (!alive(process) && member.pid.compare_exchange_strong(pid, self_.pid | kClaimed)) {
      free_member(member, !claimed);
    } else if (const auto run = run_of(member); run && find(*run) != nullptr) {
      referenced.set(run->row);
      if (protecting != nullptr && load(member.unprotected) != 1) protecting->set(run->row);
    }
  }
  return referenced;
}

void RunTable::sweep_run(std::size_t at) noexcept {
  RunRow& row = runs_[at];
  std::uint64_t id = row.id.load();
  if (id == 0) return;
  if ((id & kClaimed) != 0) {
    if (!is_alive({id & ~kClaimed, 0})) row.id.compare_exchange_strong(id, 0);
    return;
  }
  const RunRef run = ref_of(at);
  end_run(run, std::max({run.started, load(row.closed), load(row.sums.last_active)}), 0);
  release_if_done(run);
}

void RunTable::sweep() noexcept {
  const Referenced referenced = sweep_members();
  for (std::size_t i = 0; i < kMaxRuns; ++i) {
    if (!referenced.test(i)) sweep_run(i);
  }
}

std::optional<RunTable::Oldest> RunTable::oldest() noexcept {
  std::optional<Oldest> oldest;
  Referenced protecting;
  const Referenced referenced = sweep_members(&protecting);
  for (std::size_t i = 0; i < kMaxRuns; ++i) {
    if (!referenced.test(i)) {
      sweep_run(i);
    } else if (protecting.test(i)) {
      const Oldest run{load(runs_[i].id), load(runs_[i].started)};
      if (!oldest || run.started < oldest->started) oldest = run;
    }
  }
  return oldest;
}

// ---- Figures ----

bool RunTable::identify(const RunRef& run, std::string_view tokenizer_sha,
                        std::uint32_t sequence_len) noexcept {
  RunRow* const row = find(run);
  if (row == nullptr) return true;
  const Sha words = to_words(tokenizer_sha);
  if ((row->flags.load(std::memory_order_acquire) & kNamed) == 0) {
    std::uint32_t none = 0;
    if (!row->sequence_len.compare_exchange_strong(none, sequence_len)) return false;
    for (std::size_t i = 0; i < kShaWords; ++i) set(row->tokenizer_sha[i], words[i]);
    row->flags.fetch_or(kNamed, std::memory_order_release);
    return true;
  }
  const bool same = row->sequence_len.load(std::memory_order_relaxed) == sequence_len &&
                    std::equal(words.begin(), words.end(), row->tokenizer_sha.begin(),
                               [](std::uint64_t a, const auto& b) { return a == load(b); });
  if (!same) row->flags.fetch_or(kSeveral);
  return true;
}

// Without the counters of its members.
RunTable::Entry RunTable::read(std::size_t at, Names names) const {
  const RunRow& row = runs_[at];
  Entry entry;
  entry.ref = ref_of(at);
  entry.saved = load(row.saved);
  entry.tokenize_ns = load(row.sums.tokenize_ns);
  RunFigures& figures = entry.figures;
  row.sums.copy_to(figures);
  figures.run_id = load(row.id);
  figures.started_ns = static_cast<std::int64_t>(load(row.started));
  figures.ended_ns = static_cast<std::int64_t>(load(row.ended));
  figures.bytes_after = load(row.bytes_after);
  const std::uint32_t flags = row.flags.load(std::memory_order_acquire);
  if (figures.ended_ns != 0) figures.state = (flags & kKilled) != 0 ? RunState::kKilled : RunState::kEnded;
  figures.several_tokenizers = (flags & kSeveral) != 0;
  if ((flags & kNamed) != 0 && names == Names::kYes) {
    Sha words;
    for (std::size_t i = 0; i < kShaWords; ++i) words[i] = load(row.tokenizer_sha[i]);
    const auto* const text = reinterpret_cast<const char*>(words.data());
    figures.tokenizer_sha.assign(text, strnlen(text, sizeof words));
    figures.sequence_len = row.sequence_len.load(std::memory_order_relaxed);
  }
  return entry;
}

void RunTable::add_members(std::span<Entry> entries) const {
  std::array<Entry*, kMaxRuns> by_row{};
  for (Entry& entry : entries) by_row[entry.ref.row] = &entry;
  for (std::size_t i = 0; i < kMaxMembers; ++i) {
    const MemberRow& member = members_[i];
    const auto run = run_of(member);
    Entry* const entry = run ? by_row[run->row] : nullptr;
    if (entry == nullptr || entry->ref != *run) continue;
    RunFigures& sum = entry->figures;
    RunFigures figures;
    member.counters.copy_to(figures);
    sum.hits += figures.hits;
    sum.misses += figures.misses;
    sum.derived += figures.derived;
    sum.puts += figures.puts;
    sum.declined += figures.declined;
    sum.evicted += figures.evicted;
    sum.last_active_ns = std::max(sum.last_active_ns, figures.last_active_ns);
    entry->tokenize_ns += load(member.counters.tokenize_ns);
    entry->own = entry->own || Process{load(member.pid), load(member.process_start)} == self_;
  }
  for (Entry& entry : entries) {
    entry.figures.tokenize_seconds = static_cast<double>(entry.tokenize_ns) / 1e9;
    entry.activity = activity_of(entry.figures, entry.tokenize_ns);
  }
}

std::vector<RunTable::Entry> RunTable::entries() const {
  std::vector<Entry> entries;
  for (std::size_t i = 0; i < kMaxRuns; ++i) {
    if (find(ref_of(i)) == nullptr) continue;
    entries.push_back(read(i, Names::kYes));
    if (find(entries.back().ref) == nullptr) entries.pop_back();  // freed while it was read
  }
  add_members(entries);
  return entries;
}

std::optional<RunTable::Entry> RunTable::entry(const RunRef& run) const { return entry(run, Names::kYes); }

std::optional<RunTable::Entry> RunTable::entry(const RunRef& run, Names names) const {
  if (find(run) == nullptr) return std::nullopt;
  Entry entry = read(run.row, names);
  if (entry.ref != run || find(run) == nullptr) return std::nullopt;
  add_members({&entry, 1});
  return entry;
}

std::uint64_t RunTable::id_of(const RunRef& run) const noexcept {
  const RunRow* const row = find(run);
  return row == nullptr ? 0 : row->id.load(std::memory_order_relaxed) & ~kClaimed;
}

void RunTable::mark_saved(const RunRef& run, std::uint64_t activity, std::uint64_t id,
                          std::uint64_t bytes_after) noexcept {
  RunRow* const row = find(run);
  if (row == nullptr) return;
  row->id.store(id);
  set(row->bytes_after, bytes_after);
  set(row->saved, activity);
  release_if_done(run);
}

}  // namespace tokcask::shm
