#include "files/salvage.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include <tokcask/error.h>
#include <tokcask/options.h>

#include "files/survivors.h"
#include "lmdb/walker.h"
#include "os/clock.h"
#include "os/mapped_file.h"
#include "shm/access_table.h"
#include "tables/check.h"
#include "tables/commit.h"

namespace tokcask {

namespace fs = std::filesystem;

using lmdb::Table;
using rows::Tag;

namespace {

using Bytes = std::span<const std::byte>;

// Written in one transaction, which holds it in memory until then.
constexpr std::uint64_t kTransactionBytes = 32 << 20;

// What a file of so many bytes may hold, so that the writer can go on in it.
std::uint64_t usable(std::uint64_t max_bytes) {
  const std::uint64_t slack = std::clamp<std::uint64_t>(max_bytes / 16, 192 << 10, 4 << 20);
  return max_bytes - std::min(max_bytes / 2, slack);
}

// Whether a row stays as it is. Those of entries are made anew with the entries.
bool is_kept(Bytes key) {
  const auto tag = static_cast<Tag>(key[0]);
  return tag != Tag::kStore && tag != Tag::kTokenizer && tag != Tag::kEntries && tag != Tag::kAccess &&
         tag != Tag::kLiteral;
}

// The store row, and the rows that were found.
void write_rows(const lmdb::Environment& environment, const Survivors& found, bool with_rows,
                std::uint64_t max_bytes) {
  lmdb::WriteTransaction transaction(environment);
  rows::StoreRow store = files::new_store_row(environment.page_bytes());
  store.max_bytes = max_bytes;
  if (const auto& old = found.store) {
    store.created_ns = old->created_ns;
    store.last_run_id = old->last_run_id;
    std::copy(std::begin(old->tokenizer_sha), std::end(old->tokenizer_sha), store.tokenizer_sha);
    store.cleared_ns = old->cleared_ns;
    store.cleared_entries = old->cleared_entries;
    if (with_rows) {
      store.history = old->history;
      store.history_ring = old->history_ring;
    }
  }
  transaction.put(Table::kMeta, rows::MetaKey(Tag::kStore, 0).bytes(), rows::bytes_of(store));
  for (const auto& [key, value] : found.rows) {
    if (with_rows && is_kept(key)) transaction.put(Table::kMeta, key, value);
  }
  transaction.commit();
}

std::uint64_t last_access(const Survivors::Entry& entry, const shm::AccessTable* access) {
  std::uint64_t last = entry.header.created_ns;
  const std::uint64_t most = os::now_ns() + os::kMostAheadNs;
  for (const std::uint64_t stamp :
       {entry.last_access, access == nullptr ? 0 : access->stamp(entry.header.slot)}) {
    if (stamp > last && stamp < most) last = stamp;
  }
  return last;
}

// The record in `copy`, a copy of the entry's. The copy is checked, so what was checked is what is written.
record::Record checked_copy(const Survivors::Entry& entry, std::vector<std::uint64_t>& copy) {
  copy.resize(entry.record.size() / sizeof(std::uint64_t));
  std::memcpy(copy.data(), entry.record.data(), copy.size() * sizeof(std::uint64_t));
  const char* reason = nullptr;
  const auto record = record::decode(std::as_bytes(std::span(copy)), entry.header.key_hash, &reason);
  if (!record || !record::checksum_ok(*record))
    throw Error(Errc::kIo, "data.mdb changes while what is left of it is saved");
  return *record;
}

// In key order, which leaves the fewest gaps.
void write_records(const lmdb::Environment& environment, std::span<const Survivors::Entry> entries,
                   const shm::AccessTable* access) {
  std::vector<const Survivors::Entry*> sorted;
  for (const Survivors::Entry& entry : entries) sorted.push_back(&entry);
  std::ranges::sort(sorted, {},
                    [](const Survivors::Entry* entry) -> const auto& { return entry->canonical; });
  TokenizerNames names;
  std::vector<std::uint64_t> copy;
  for (std::size_t at = 0; at < sorted.size();) {
    Commit commit(environment, names);
    std::uint64_t& clock = commit.store().clock_ns;
    for (std::uint64_t bytes = 0; at < sorted.size() && bytes < kTransactionBytes; ++at) {
      const record::Record record = checked_copy(*sorted[at], copy);
      const std::uint64_t stamp = last_access(*sorted[at], access);
      clock = std::max(clock, stamp);
      commit.put(CacheKey::parse(sorted[at]->canonical),
                 {.tokens = record.tokens(), .created_ns = record.header.created_ns, .stamp = stamp});
      bytes += sorted[at]->record.size();
    }
    commit.finish();
    commit.commit();
  }
}

// Writes a new data file of the first `count` entries, with the rows that were found or without. Returns the
// size of the file.
std::uint64_t write_file(const fs::path& directory, const Survivors& found, std::size_t count, bool with_rows,
                         const shm::AccessTable* access, std::uint64_t max_bytes) {
  std::error_code ignored;
  fs::remove(directory / "data.mdb", ignored);  // of an attempt before
  const auto environment = lmdb::Environment::open(directory, lmdb::Environment::Mode::kCreate);
  write_rows(*environment, found, with_rows, max_bytes);
  write_records(*environment, std::span(found.entries).first(count), access);
  environment->sync();
  const VerifyReport report = verify_tables(lmdb::ReadTransaction(*environment));
  if (!is_clean(report) || report.records != count) {
    throw Error(Errc::kIo, fmt::format("{}: what was written is not what is read back",
                                       (directory / "data.mdb").string()));
  }
  return environment->file_bytes();
}

// How many of the newest entries occupy no more than `most`.
std::size_t fitting(const Survivors& found, std::uint64_t most) {
  const auto page_bytes = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  std::size_t count = 0;
  for (std::uint64_t occupied = 0; count < found.entries.size(); ++count) {
    const Survivors::Entry& entry = found.entries[count];
    occupied += occupied_bytes(entry.canonical.size(), entry.record.size(), page_bytes);
    if (occupied > most) break;
  }
  return count;
}

std::uint64_t budget_for(const Survivors& found, std::optional<std::uint64_t> given, bool shrink) {
  if (given && shrink) return *given;
  const std::uint64_t last = found.store ? found.store->max_bytes : 0;
  return std::max(given.value_or(0), last >= Options::kMinMaxBytes ? last : Options::kDefaultMaxBytes);
}

// Writes `directory`/data.mdb of the newest entries that fit. Returns how many they are.
std::uint64_t rebuild(const Survivors& found, const shm::AccessTable* access, const fs::path& directory,
                      std::uint64_t max_bytes) {
  const std::uint64_t target = usable(max_bytes);
  std::uint64_t most = target;  // that entries may occupy
  bool with_rows = true;
  std::size_t count = 0;
  for (;;) {
    count = fitting(found, most);
    const std::uint64_t bytes = write_file(directory, found, count, with_rows, access, max_bytes);
    if (bytes <= target) break;
    // The tables take room too. The new file tells how much.
    const std::uint64_t excess = bytes - target;
    if (count == 0 && !with_rows) throw Error(Errc::kIo, "a store without entries is larger than the budget");
    if (count == 0) with_rows = false;
    most -= std::min(most, excess + excess / 16);
  }
  const MappedFile made(directory / "data.mdb");
  const lmdb::WalkReport report = lmdb::walk(made.bytes());
  if (!report.ok) {
    throw Error(Errc::kIo, fmt::format("what was written is not what is read back: {}",
                                       report.findings.empty() ? "" : report.findings.front()));
  }
  return count;
}

// Of the old store, if there is one: for access times that were not written to it yet.
std::unique_ptr<shm::AccessTable> access_table_of(const fs::path& root, const Survivors& found) {
  std::error_code ignored;
  if (!found.store || !fs::exists(root / "access.shm", ignored)) return nullptr;
  return shm::AccessTable::open(root, found.store->uuid);
}

}  // namespace

std::string Recovery::description() const {
  const std::string name = kept.filename().string();
  if (salvaged) {
    return fmt::format("{} of {} records saved, the old file is kept as {}", salvaged->saved, salvaged->known,
                       name);
  }
  if (why_not.empty()) return fmt::format("it is kept as {}, and the store starts empty", name);
  return fmt::format(
      "it is kept as {}, and the store starts empty, because what is left could not be saved: {}. To save it "
      "later, free some space, move that file back to data.mdb while nobody has the store open, and run "
      "tokcask verify --repair",
      name, why_not);
}

Recovery recover(const fs::path& root, std::optional<std::uint64_t> max_bytes, bool shrink, NoRoom no_room) {
  Recovery recovery;
  files::NewFile fresh(root);
  std::unique_ptr<shm::AccessTable> access;
  try {
    const MappedFile file(root / "data.mdb");
    const Survivors found = find_survivors(file.bytes());
    access = access_table_of(root, found);
    if (!found.rows.empty() || !found.entries.empty()) {
      const std::uint64_t saved =
          rebuild(found, access.get(), fresh.directory(), budget_for(found, max_bytes, shrink));
      recovery.salvaged = Salvaged{saved, found.known};
    }
  } catch (const Error& error) {
    if (no_room == NoRoom::kThrow) throw;
    recovery.why_not = error.what();
  } catch (const std::bad_alloc&) {
    if (no_room == NoRoom::kThrow) throw;
    recovery.why_not = "not enough memory";
  }
  if (!recovery.salvaged) {
    std::error_code ignored;
    fs::remove(fresh.directory() / "data.mdb", ignored);
    files::make_empty(fresh.directory(), root / "data.mdb");
  }
  files::SetAside aside(root);
  recovery.file = fresh.install();
  aside.keep();
  recovery.kept = aside.path();
  return recovery;
}

void add_to(VerifyReport& report, const Recovery& recovery) {
  report.kept_as = recovery.kept.filename().string();
  if (!recovery.salvaged) return;
  report.saved = recovery.salvaged->saved;
  report.lost = recovery.salvaged->lost();
}

}  // namespace tokcask
