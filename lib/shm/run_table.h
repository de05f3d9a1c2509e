// The run table: which runs are alive, who belongs to them, and what they have done so far.
//
// A part of the access table's file (access_table.h), and a hint as all of it is. A run begins with a handle
// and ends with the last of its members. A member is one open handle of one process; it has counters of its
// own, which no other process writes to, so that many workers do not fight for a cache line. The figures of a
// run are the sums of the members that have left and the counters of those that are there. The table is a
// file, so figures outlive the processes; a writer saves them in the store (writer.h).
//
// Who is alive is told by locks (F_OFD_SETLK), which the kernel gives back when a process ends. A table's
// user holds the lock of each row that it writes to: byte 1 + number of the row, member rows first, of the
// table's file. Byte 0 says that the table is in use (access_table.cc). The lock of a row is held without
// waiting.
//
// Invariants:
//  1. A member row is written by whoever holds its lock, for as long as it is a member. A row that names an
//     owner, and whose lock is free, is that of a dead process: who gets the lock frees the row.
//  2. A run row is filled by whoever holds its lock, and has its id last. So a row whose filler has died is
//     free.
//  3. A run lives while a member refers to it. It has a member before it can be seen, and one that was found
//     without any is ended by whoever finds it.
//  4. A run's row is free when it has ended and is saved, or did nothing. When none is free, the oldest that
//     has ended is used again.
// A kill in the middle of anything may lose or double what one member has counted, nothing else.
//
// Layout, little-endian; the offsets are from the table's start:
//   0        1,024 member rows of 128 bytes: u64 owner (0: free), u64 0, u64 started and u64 number of the
//   row
//            of its run, 64 bytes counters, u64 1 if it protects nothing, 0
//   131,072  256 run rows of 256 bytes: u64 id (0: free), u64 started and u64 ended (ns; 0: alive), u32
//   flags,
//            u32 sequence length, 64 bytes counters of members that have left, u64 bytes_after, u64 owner
//            that began it, u64 0, u64 when that owner closed it (0: it has not), 64 bytes tokenizer sha, u64
//            what of it is saved, 0
//   owner:    a process that has the table open; the low half is its pid, which is told to nobody
//   counters: u64 hits, misses, last activity in ns, derived, puts, declined, evicted, ns of tokenizing
#pragma once

#include <array>
#include <atomic>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include <tokcask/stats.h>

namespace tokcask::shm {

inline constexpr std::size_t kMaxRuns = 256;
inline constexpr std::size_t kMaxMembers = 1024;

struct Counters {
  std::atomic<std::uint64_t> hits{0};
  std::atomic<std::uint64_t> misses{0};
  std::atomic<std::uint64_t> last_active{0};
  std::atomic<std::uint64_t> derived{0};
  std::atomic<std::uint64_t> puts{0};
  std::atomic<std::uint64_t> declined{0};
  std::atomic<std::uint64_t> evicted{0};
  std::atomic<std::uint64_t> tokenize_ns{0};

  void add(const Counters& other) noexcept;
  void reset() noexcept;
  void copy_to(RunFigures& figures) const noexcept;
};

// Names a run for as long as it is in the table, whatever its id becomes.
struct RunRef {
  std::size_t row = 0;
  std::uint64_t started = 0;
  friend bool operator==(const RunRef&, const RunRef&) = default;
};

// Threads and processes: all members may be called concurrently. Not used after fork() in the child.
class RunTable {
 public:
  static constexpr std::size_t kBytes = 128 * kMaxMembers + 256 * kMaxRuns;

  // Bytes of the table's file whose locks this class uses: from the first one on, one for each row.
  static constexpr std::size_t kFirstLock = 1;

  // Over kBytes of shared memory, zeroed when it was new. `last_run` is the newest id handed out. `lock_file`
  // is a descriptor of the table's file, open for this alone; -1: no other process has the memory.
  RunTable(std::byte* memory, std::atomic<std::uint64_t>& last_run, int lock_file) noexcept;

  // Ids that are handed out from now on follow `stored`, the newest in the store. A last id that is far ahead
  // of that is damage.
  void raise_last_run(std::uint64_t stored) noexcept;

  struct Member {
    std::size_t row = 0;
    RunRef run;
    Counters* counters = nullptr;  // zero at first; valid until leave()
  };
  // Begins a run that started at the stamp `started`. Nothing when 256 runs or 1,024 members are alive.
  std::optional<Member> begin(std::uint64_t started) noexcept;
  // Joins a run. Nothing when it is not alive, or 1,024 members are.
  std::optional<Member> join(const RunRef& run) noexcept;
  std::optional<Member> join(std::uint64_t run_id) noexcept;
  // The newest living run that this process is a member of through this object.
  std::optional<Member> join_own() noexcept;

  // The run protects what it uses for the sake of its other members alone.
  void protect_nothing(const Member& member) noexcept;

  // Ends the run of the last member before it leaves, so that its last commit saves the end. The run goes on
  // protecting what it used until then.
  void end_if_last(const Member& member, std::uint64_t now) noexcept;
  // Adds the member's counters to the run's sums. A run without members has ended; if it did nothing, it is
  // forgotten.
  void leave(const Member& member, std::uint64_t now) noexcept;

  // The run's tokenizer and length are those told first; another one is flagged. False while another process
  // is telling the first.
  bool identify(const RunRef& run, std::string_view tokenizer_sha, std::uint32_t sequence_len) noexcept;

  // Frees the members of dead processes and ends the runs that have no other.
  void sweep() noexcept;
  // The oldest living run that protects what it uses, or nothing. Sweeps.
  struct Oldest {
    std::uint64_t run_id;
    std::uint64_t started;
  };
  std::optional<Oldest> oldest() noexcept;
  std::optional<std::uint64_t> oldest_start() noexcept {
    const auto run = oldest();
    return run ? std::optional(run->started) : std::nullopt;
  }

  struct Entry {
    RunRef ref;
    RunFigures figures;
    std::uint64_t activity = 0;  // changes with the figures; 0: it did nothing that is worth a row
    std::uint64_t saved = 0;     // the activity that is in the store
    std::uint64_t tokenize_ns = 0;
    bool own = false;  // this object has a member of it
    [[nodiscard]] bool unsaved() const noexcept { return activity != 0 && activity != saved; }
  };
  [[nodiscard]] std::vector<Entry> entries() const;
  [[nodiscard]] std::optional<Entry> entry(const RunRef& run) const;
  // Its id, or 0 when it is not in the table any more.
  [[nodiscard]] std::uint64_t id_of(const RunRef& run) const noexcept;
  // That `activity` of it is in the store, under `id` and with `bytes_after`.
  void mark_saved(const RunRef& run, std::uint64_t activity, std::uint64_t id,
                  std::uint64_t bytes_after) noexcept;

 private:
  struct MemberRow;
  struct RunRow;
  using Referenced = std::bitset<kMaxRuns>;  // rows of runs that have members

  // The row of a run, or null when it is another's by now.
  [[nodiscard]] RunRow* find(const RunRef& run) const noexcept;
  [[nodiscard]] RunRef ref_of(std::size_t row) const noexcept;
  // What a member row refers to.
  [[nodiscard]] static std::optional<RunRef> run_of(const MemberRow& member) noexcept;
  // Members of a run; `own`: those of this object alone.
  [[nodiscard]] std::size_t count_members(const RunRef& run, bool own) const noexcept;
  // With the tokenizer's name, which takes memory, or without.
  enum class Names { kYes, kNo };
  [[nodiscard]] Entry read(std::size_t row, Names names) const;
  [[nodiscard]] std::optional<Entry> entry(const RunRef& run, Names names) const;
  void add_members(std::span<Entry> entries) const;

  // Of a row. Nobody else has what is held, no other thread either.
  [[nodiscard]] bool try_hold(std::size_t lock) noexcept;
  void release(std::size_t lock) noexcept;
  // A free row, held.
  std::optional<std::size_t> hold_run() noexcept;
  // Frees the row of the run that ended first; returns whether there was one.
  bool forget_oldest_ended() noexcept;
  std::optional<Member> add_member(const RunRef& run) noexcept;
  // Of a row that is held, and is released here.
  void free_member(std::size_t row, bool counted) noexcept;
  // Returns those referred to, and in `protecting` those by members that protect.
  Referenced sweep_members(Referenced* protecting = nullptr) noexcept;
  void sweep_run(std::size_t row) noexcept;
  void note_close(const RunRef& run, std::uint64_t now) noexcept;
  // Ends a run at `when`, unless it has more than `left` members.
  void end_run(const RunRef& run, std::uint64_t when, std::size_t left) noexcept;
  // Frees the row of a run that has ended, has no members, and did nothing or is saved.
  void release_if_done(const RunRef& run) noexcept;

  const std::uint64_t self_;  // names this object in the rows
  const int lock_file_;
  std::array<std::atomic<bool>, kMaxMembers + kMaxRuns> held_{};  // by this object
  MemberRow* members_;
  RunRow* runs_;
  std::atomic<std::uint64_t>* last_run_;
};

}  // namespace tokcask::shm
