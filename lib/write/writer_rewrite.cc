// The writer's calls that put a new data file in the place of the old one.
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <utility>

#include <tokcask/error.h>

#include "write/writer.h"

namespace tokcask {

namespace {

// A new file, and the old one as it was if that fails.
Rewritten rewrite_into(const files::NewFile& file, const lmdb::Environment& from, shm::AccessTable& access,
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

// The entries that go when a file is to become smaller, oldest last access first: those that are protected
// come last, because they are those used last.
class LeaveOut {
 public:
  LeaveOut(std::vector<Victim> entries, Rewrite& how) : entries_(std::move(entries)), how_(&how) {
    std::sort(entries_.begin(), entries_.end(),
              [](const Victim& a, const Victim& b) { return a.stamp < b.stamp; });
    for (const Victim& entry : entries_) occupied_ += entry.occupied;
  }
  [[nodiscard]] std::uint64_t occupied() const { return occupied_; }
  [[nodiscard]] bool all() const { return out_ == entries_.size(); }
  // Until what is left occupies at most `most`; `least` entries in any case.
  void until(std::uint64_t most, std::size_t least) {
    for (std::size_t n = 0; !all() && (occupied_ > most || n < least); ++n) {
      const Victim& entry = entries_[out_++];
      occupied_ -= std::min<std::uint64_t>(occupied_, entry.occupied);
      if (entry.slot >= how_->leave_out.size()) how_->leave_out.resize(entry.slot + std::size_t{1});
      how_->leave_out[entry.slot] = true;
    }
  }

 private:
  std::vector<Victim> entries_;
  Rewrite* how_;
  std::size_t out_ = 0;
  std::uint64_t occupied_ = 0;
};

}  // namespace

void Writer::install(files::NewFile& file, const Rewritten& made, const WriteLock::Hold& hold) {
  // What somebody else did meanwhile, against the lock, is not to be lost.
  require_own_file();
  if (!hold.still_held() || environment_->last_txnid() != made.txnid) {
    throw Error(Errc::kBusy, fmt::format("{}: another process wrote to it while it was written anew, or may "
                                         "have, and it stays as it is; was write.lock removed?",
                                         (root_ / "data.mdb").string()));
  }
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
  install(file, made, hold);
  return report;
}

Recovery Writer::repair(const WriteLimits& limits) {
  const WriteLock::Hold hold = lock_.acquire(limits.lock_timeout);
  // Nothing else of begin(): LMDB is not to read this file any more.
  require_own_file();
  Recovery recovery = recover(root_, limits.max_bytes, /*shrink=*/false, NoRoom::kThrow);
  new_file_ = recovery.file;
  return recovery;
}

Writer::Lowered Writer::lower(std::uint64_t max_bytes, bool shrink, const WriteLimits& limits) {
  const WriteLock::Hold hold = lock_.acquire(limits.lock_timeout);
  begin();
  Lowered lowered;
  lowered.bytes_before = lowered.bytes_after = environment_->file_bytes();
  if (lowered.bytes_before <= max_bytes) return lowered;  // another process was faster

  room::Space space = measure(max_bytes);
  space.reusable = space.reusable_bytes = space.free_list_bytes = 0;  // the new file has no free list
  const std::uint64_t target = room::minus(space.limit, room::reserve(space)) * space.page_bytes;
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

  Rewrite how;
  how.max_bytes = max_bytes;
  how.fate = rows::Fate::kLowered;
  std::vector<Victim> entries;
  {
    const lmdb::ReadTransaction snapshot(*environment_);
    const rows::StoreRow store = read_store_row(snapshot);
    how.forget_hints = store.hint_bytes > room::hint_share(max_bytes);
    entries = live_entries(snapshot, store, *access_);
  }
  LeaveOut out(std::move(entries), how);
  // What entries occupy is less than what the file of them takes, so what is left out by this count has to
  // go. The new file tells how much more.
  if (out.occupied() > target) require_shrink(out.occupied());
  out.until(target, 0);
  // Where damaged rows say too little of what entries occupy, more and more go at once.
  for (std::size_t least = 1;; least *= 2) {
    files::NewFile file(root_);
    const Rewritten made = rewrite_into(file, *environment_, *access_, root_, how);
    if (made.bytes <= target || (out.all() && how.forget_hints)) {
      install(file, made, hold);
      lowered.bytes_after = made.bytes;
      lowered.removed = made.left_out;
      lowered.fits = made.bytes <= max_bytes;
      return lowered;
    }
    require_shrink(made.bytes);
    how.forget_hints = out.all();
    const std::uint64_t excess = made.bytes - target;
    out.until(room::minus(out.occupied(), excess + excess / 16), least);
  }
}

}  // namespace tokcask
