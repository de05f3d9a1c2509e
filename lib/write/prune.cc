// Committer::prune() and clear(): entries that go because somebody asked for that.
#include <algorithm>
#include <limits>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include "os/clock.h"
#include "os/file_limit.h"
#include "os/patience.h"
#include "write/committer.h"

namespace tokcask {

namespace {

constexpr std::uint64_t kNever = std::numeric_limits<std::uint64_t>::max();
// Between the commits of a large prune: long enough for one that waits for the write lock to find it free.
constexpr std::chrono::milliseconds kTurn{5};

// What `options` choose, of entries last used before `before`, which may become earlier.
std::vector<Victim> chosen(const lmdb::Environment& environment, const shm::AccessTable& access,
                           const PruneOptions& options, std::uint64_t& before) {
  const lmdb::ReadTransaction transaction(environment);
  const rows::StoreRow store = read_store_row(transaction);
  if (options.keep_last_runs) {
    const std::vector<rows::RunRow> runs = read_runs(transaction);
    if (runs.size() < *options.keep_last_runs) return {};
    const rows::RunRow& oldest_kept = runs[runs.size() - *options.keep_last_runs];
    before = std::min(before, static_cast<std::uint64_t>(std::max<std::int64_t>(oldest_kept.started_ns, 0)));
  }
  std::uint32_t tokenizer = 0;
  if (options.tokenizer_sha) {
    TokenizerNames names;
    names.refresh(transaction, store.tokenizer_count);
    tokenizer = names.number(*options.tokenizer_sha);
    if (tokenizer == 0) return {};
  }
  const auto length = static_cast<std::uint32_t>(options.sequence_len.value_or(0));
  std::vector<Victim> victims = live_entries(transaction, store, access, [&](const rows::EntryRow& row) {
    return (tokenizer == 0 || row.tokenizer == tokenizer) && (length == 0 || row.sequence_len == length);
  });
  std::erase_if(victims, [&](const Victim& victim) { return victim.stamp >= before; });
  return victims;
}

}  // namespace

void Committer::prune(const PruneOptions& options, PruneReport& report) {
  const WithoutFileLimitSignal quiet;
  std::uint64_t before = kNever;
  if (options.older_than) {
    const std::uint64_t now = os::now_ns();  // before any waiting: what is used meanwhile is not older
    const auto ago = static_cast<std::uint64_t>(std::max<std::int64_t>(options.older_than->count(), 0));
    before = ago < now ? now - ago : 0;
  }
  if (!options.dry_run) flush();
  const std::vector<Victim> victims = chosen(*environment_, *access_, options, before);
  if (options.dry_run) {
    report.removed = victims.size();
    for (const Victim& victim : victims) report.bytes += victim.occupied;
    return;
  }
  for (std::span<const Victim> rest(victims); !rest.empty();) {
    {
      const auto lock = lock_patiently(commit_mutex_);
      rest = rest.subspan(writer().remove(rest, before, host_.limits(), report));
    }
    if (!rest.empty()) std::this_thread::sleep_for(kTurn);
  }
}

std::uint64_t Committer::clear() {
  const WithoutFileLimitSignal quiet;
  const auto lock = lock_patiently(commit_mutex_);
  Stats pending;
  add_to(pending);  // without those that replace an entry
  const std::uint64_t removed = writer().clear(host_.limits());
  {
    const std::lock_guard pending_lock(pending_mutex_);
    active_ = Batch{};
    failure_ = nullptr;
    count_pending();
  }
  room_made_.notify_all();
  return pending.entry_count + removed;
}

}  // namespace tokcask
