// The writer's calls that put a new data file in the place of the old one.
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <utility>

#include <tokcask/error.h>

#include "cache/writer.h"

namespace tokcask {

namespace {

// A new file, and the old one as it was if that fails.
Rewritten rewrite_into(files::NewFile& file, const lmdb::Environment& from, shm::AccessTable& access,
                       const std::filesystem::path& root, const Rewrite& how) {
  try {
    return rewrite(from, access, file.directory(), how);
  } catch (const Error& error) {
    throw Error(error.code(),
                fmt::format("{}: cannot be written anew, and stays as it was: {}; that takes the "
                            "space of the new file beside the old one",
                            (root / "data.mdb").string(), error.what()));
  }
}

}  // namespace

void Writer::install(files::NewFile& file, const Rewritten& made) {
  new_file_ = file.install();
  access_->note_damage(false);  // such records were left out
  for (const std::uint32_t slot : made.freed) access_->assign(slot, 0);
}

CompactReport Writer::compact(const WriteLimits& limits) {
  const WriteLock::Hold hold = lock_.acquire(limits.lock_timeout);
  begin();
  files::NewFile file(root_);
  const Rewritten made = rewrite_into(file, *environment_, *access_, root_, {});
  const CompactReport report{environment_->file_bytes(), made.bytes, made.entries, made.damaged};
  install(file, made);
  return report;
}

std::uint64_t Writer::clear(const WriteLimits& limits) {
  const WriteLock::Hold hold = lock_.acquire(limits.lock_timeout);
  begin();
  files::NewFile file(root_);
  Rewrite how;
  how.clear = true;
  const Rewritten made = rewrite_into(file, *environment_, *access_, root_, how);
  install(file, made);
  for (std::uint32_t slot = 0; slot < made.slots_before; ++slot) access_->assign(slot, 0);
  return made.left_out;
}

Recovery Writer::repair(const WriteLimits& limits) {
  const WriteLock::Hold hold = lock_.acquire(limits.lock_timeout);
  // Nothing else of begin(): LMDB is not to read this file any more.
  if (const auto current = files::id_of(root_ / "data.mdb"); current && *current != environment_->file_id())
    throw Replaced{};
  Recovery recovery = recover(root_, limits.max_bytes, /*shrink=*/false, NoRoom::kThrow);
  new_file_ = recovery.file;
  return recovery;
}

void Writer::remove_by_rewriting(std::span<const Victim> victims, std::uint64_t before, rows::Fate fate,
                                 PruneReport& report) {
  Rewrite how;
  how.fate = fate;
  for (const Victim& victim : victims) {
    if (access_->stamp(victim.slot) >= before) continue;  // used since
    if (victim.slot >= how.leave_out.size()) how.leave_out.resize(victim.slot + std::size_t{1});
    how.leave_out[victim.slot] = true;
  }
  files::NewFile file(root_);
  const Rewritten made = rewrite_into(file, *environment_, *access_, root_, how);
  install(file, made);
  report.removed += made.left_out;
  report.bytes += made.left_out_bytes;
}

Writer::Lowered Writer::lower(std::uint64_t max_bytes, bool shrink, const WriteLimits& limits) {
  const WriteLock::Hold hold = lock_.acquire(limits.lock_timeout);
  begin();
  Lowered lowered;
  lowered.bytes_before = lowered.bytes_after = environment_->file_bytes();
  if (lowered.bytes_before <= max_bytes) return lowered;  // another process was faster

  // Less what removing one entry may take, and the pages that puts never get: in a file that is full to the
  // last page nothing could be removed any more.
  const std::uint64_t page_bytes = environment_->page_bytes();
  Room room = measure(max_bytes);
  room.reusable = 0;  // the new file has no free list to speak of
  const std::uint64_t slack = (room.reserve() + room.tree_pages(1, 0) + room.free_list_pages(0)) * page_bytes;
  const std::uint64_t target = max_bytes - std::min(max_bytes, slack);

  std::vector<Victim> entries;
  {
    const lmdb::ReadTransaction snapshot(*environment_);
    entries = live_entries(snapshot, read_store_row(snapshot), *access_);
  }
  // The first to go is at the front. Who is protected comes after all that are not, because the protected are
  // those used last.
  std::sort(entries.begin(), entries.end(),
            [](const Victim& a, const Victim& b) { return a.stamp < b.stamp; });
  std::uint64_t occupied = 0;
  for (const Victim& entry : entries) occupied += entry.occupied;

  Rewrite how;
  how.max_bytes = max_bytes;
  how.fate = rows::Fate::kLowered;
  std::size_t out = 0;
  const auto leave_out_until = [&](std::uint64_t most) {
    for (; out < entries.size() && occupied > most; ++out) {
      const Victim& entry = entries[out];
      occupied -= std::min<std::uint64_t>(occupied, entry.occupied);
      if (entry.slot >= how.leave_out.size()) how.leave_out.resize(entry.slot + std::size_t{1});
      how.leave_out[entry.slot] = true;
    }
  };
  // What entries occupy is less than what the file of them takes, so what is left out by this count has to
  // go. The new file tells how much more.
  const auto require_shrink = [&](std::uint64_t stored) {
    if (shrink) return;
    throw Error(
        Errc::kInvalidArgument,
        fmt::format("{}: max_bytes is {}, and what is stored takes {} bytes, in a file of {}; nothing was "
                    "removed. Give a max_bytes of at least {}, or none to keep the one it has; or prune "
                    "it first; or give shrink, too (shrink=True, --shrink), to have the entries removed "
                    "that were used least lately",
                    (root_ / "data.mdb").string(), max_bytes, stored, lowered.bytes_before,
                    lowered.bytes_before));
  };
  if (occupied > target) require_shrink(occupied);
  leave_out_until(target);
  for (;;) {
    files::NewFile file(root_);
    const Rewritten made = rewrite_into(file, *environment_, *access_, root_, how);
    if (made.bytes > target && !how.clear) {
      require_shrink(made.bytes);
      if (out == entries.size()) how.clear = true;  // the remembered directories go too
      const std::uint64_t excess = made.bytes - target;
      leave_out_until(occupied - std::min(occupied, excess + excess / 16));
      continue;
    }
    install(file, made);
    lowered.bytes_after = made.bytes;
    lowered.removed = made.left_out;
    lowered.fits = made.bytes <= max_bytes;
    return lowered;
  }
}

}  // namespace tokcask
