#include "shm/run_table.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

#include "os/clock.h"
#include "os/process_descriptor.h"
#include "shm/run_rows.h"

namespace tokcask::shm {

namespace {

// Runs that may have begun since the newest in the store; a last id further ahead is damage.
constexpr std::uint64_t kMostAhead = std::uint64_t{1} << 16;

// Two objects have different owners, even those of one pid: they begin at different times.
std::uint64_t new_owner() noexcept { return os::now_ns() << 32 | static_cast<std::uint32_t>(getpid()); }

}  // namespace

RunTable::RunTable(std::byte* memory, std::atomic<std::uint64_t>& last_run, int lock_file) noexcept
    : self_(new_owner()),
      lock_file_(lock_file),
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
  return id == 0 || id > kMaxId || load(row.started) != run.started ? nullptr : &row;
}

RunRef RunTable::ref_of(std::size_t row) const noexcept { return {row, load(runs_[row].started)}; }

std::optional<RunRef> RunTable::run_of(const MemberRow& member) noexcept {
  if (member.owner.load() == 0) return std::nullopt;
  const RunRef run{load(member.run_row), load(member.run_started)};
  if (run.started == 0 || run.row >= kMaxRuns) return std::nullopt;
  return run;
}

std::size_t RunTable::count_members(const RunRef& run, bool own) const noexcept {
  std::size_t count = 0;
  for (std::size_t i = 0; i < kMaxMembers; ++i) {
    const MemberRow& member = members_[i];
    if (run_of(member) == run && (!own || load(member.owner) == self_)) ++count;
  }
  return count;
}

// ---- Locks ----

bool RunTable::try_hold(std::size_t lock) noexcept {
  // The kernel tells descriptors apart, not threads.
  if (held_[lock].exchange(true)) return false;
  if (lock_file_ < 0 || os::set_lock(lock_file_, F_WRLCK, static_cast<off_t>(kFirstLock + lock)) == 0)
    return true;
  held_[lock].store(false);
  return false;
}

void RunTable::release(std::size_t lock) noexcept {
  if (lock_file_ >= 0)
    static_cast<void>(os::set_lock(lock_file_, F_UNLCK, static_cast<off_t>(kFirstLock + lock)));
  held_[lock].store(false);
}

// ---- Beginning and joining ----

bool RunTable::forget_oldest_ended() noexcept {
  std::optional<std::size_t> oldest;
  for (std::size_t i = 0; i < kMaxRuns; ++i) {
    if (find(ref_of(i)) == nullptr || load(runs_[i].ended) == 0 || count_members(ref_of(i), false) > 0)
      continue;
    if (!oldest || load(runs_[i].ended) < load(runs_[*oldest].ended)) oldest = i;
  }
  if (oldest) runs_[*oldest].id.store(0);
  return oldest.has_value();
}

std::optional<std::size_t> RunTable::hold_run() noexcept {
  do {
    for (std::size_t i = 0; i < kMaxRuns; ++i) {
      if (load(runs_[i].id) != 0 || !try_hold(kMaxMembers + i)) continue;
      if (runs_[i].id.load() == 0) return i;
      release(kMaxMembers + i);
    }
  } while (forget_oldest_ended());
  return std::nullopt;
}

std::optional<RunTable::Member> RunTable::add_member(const RunRef& run) noexcept {
  for (std::size_t i = 0; i < kMaxMembers; ++i) {
    MemberRow& member = members_[i];
    if (load(member.owner) != 0 || !try_hold(i)) continue;
    if (member.owner.load() != 0) {
      release(i);
      continue;
    }
    member.counters.reset();
    set(member.unprotected, 0);
    set(member.run_row, run.row);
    set(member.run_started, run.started);
    member.owner.store(self_);
    return Member{i, run, &member.counters};
  }
  return std::nullopt;
}

std::optional<RunTable::Member> RunTable::begin(std::uint64_t started) noexcept {
  sweep();
  const auto held = hold_run();
  if (!held) return std::nullopt;
  RunRow& row = runs_[*held];
  set(row.started, started);
  set(row.ended, 0);
  row.flags.store(0, std::memory_order_relaxed);
  row.sequence_len.store(0, std::memory_order_relaxed);
  row.sums.reset();
  set(row.bytes_after, 0);
  set(row.founder, self_);
  set(row.closed, 0);
  for (auto& word : row.tokenizer_sha) set(word, 0);
  set(row.saved, 0);
  const auto member = add_member({*held, started});
  if (member) row.id.store(std::max<std::uint64_t>((last_run_->fetch_add(1) + 1) & kMaxId, 1));
  release(kMaxMembers + *held);
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
    free_member(member->row, false);
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
  for (std::uint64_t below = kMaxId + 1;;) {
    std::optional<RunRef> newest;
    std::uint64_t newest_id = 0;
    for (std::size_t i = 0; i < kMaxMembers; ++i) {
      const MemberRow& member = members_[i];
      if (member.owner.load() != self_) continue;
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

void RunTable::free_member(std::size_t at, bool counted) noexcept {
  MemberRow& member = members_[at];
  const auto run = run_of(member);
  RunRow* const row = counted && run ? find(*run) : nullptr;
  if (row != nullptr) row->sums.add(member.counters);
  member.counters.reset();
  set(member.run_started, 0);
  member.owner.store(0);
  release(at);
}

void RunTable::note_close(const RunRef& run, std::uint64_t now) noexcept {
  RunRow* const row = find(run);
  if (row == nullptr || load(row->founder) != self_) return;
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
  free_member(member.row, true);
  end_run(member.run, now, 0);
  release_if_done(member.run);
}

// ---- Who is dead ----

RunTable::Referenced RunTable::sweep_members(Referenced* protecting) noexcept {
  Referenced referenced;
  for (std::size_t i = 0; i < kMaxMembers; ++i) {
    MemberRow& member = members_[i];
    if (load(member.owner) == 0) continue;
    if (try_hold(i)) {
      free_member(i, true);  // whoever held it is dead, or has just left
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
  if (id > kMaxId) row.id.compare_exchange_strong(id, 0);  // damage
  if (id == 0 || id > kMaxId) return;
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

}  // namespace tokcask::shm
