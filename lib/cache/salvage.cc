#include "cache/salvage.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include <tokcask/error.h>

#include "cache/appender.h"
#include "cache/commit.h"
#include "cache/mapped_file.h"
#include "cache/remains.h"
#include "cache/verify.h"
#include "lmdb/walker.h"
#include "os/clock.h"
#include "shm/access_table.h"

namespace tokcask {

namespace fs = std::filesystem;

using rows::MetaKey;
using rows::Tag;

namespace {

using Bytes = std::span<const std::byte>;

constexpr std::uint64_t kDayNs = 24ULL * 3600 * 1'000'000'000;

// What a file of so many bytes may hold, so that the writer can go on in it.
std::uint64_t usable(std::uint64_t max_bytes) {
  const std::uint64_t slack = std::clamp<std::uint64_t>(max_bytes / 16, 192 << 10, 4 << 20);
  return max_bytes - std::min(max_bytes / 2, slack);
}

// Writes a new data file of what was found.
class Rebuild {
 public:
  Rebuild(Bytes file, const Remains& remains, const shm::AccessTable* access)
      : file_(file), remains_(&remains), access_(access) {}

  // Of the first `count` entries, with the rows that were found or without. Returns the size of the file.
  std::uint64_t write(const fs::path& directory, std::size_t count, bool with_rows, std::uint64_t max_bytes) {
    std::error_code ignored;
    fs::remove(directory / "data.mdb", ignored);  // of an attempt before
    entries_.clear();
    stamps_.clear();
    tokenizers_.clear();
    rows_.clear();
    const auto environment = lmdb::Environment::open(directory, lmdb::Environment::Mode::kCreate);
    store_ = files::new_store_row(environment->page_bytes());
    Appender out(*environment);
    write_records(out, count);
    if (with_rows) keep_rows();
    write_rows(out, with_rows, max_bytes);
    out.finish();
    const lmdb::ReadTransaction transaction(*environment);
    const VerifyReport report = verify_tables(transaction);
    if (!is_clean(report) || report.records != entries_.size()) {
      throw Error(Errc::kIo, fmt::format("{}: what was written is not what is read back",
                                         (directory / "data.mdb").string()));
    }
    return environment->file_bytes();
  }

  [[nodiscard]] std::uint64_t entries() const noexcept { return entries_.size(); }

 private:
  void write_records(Appender& out, std::size_t count) {
    std::vector<const Remains::Entry*> chosen;
    for (const Remains::Entry& entry : std::span(remains_->entries).first(count)) chosen.push_back(&entry);
    std::sort(chosen.begin(), chosen.end(),
              [](const Remains::Entry* a, const Remains::Entry* b) { return a->canonical < b->canonical; });
    for (const Remains::Entry* entry : chosen) write_record(out, *entry);
  }

  // The bytes are copied before they are checked, so that what was checked is what is written.
  void write_record(Appender& out, const Remains::Entry& entry) {
    const std::size_t size =
        record::record_bytes(entry.header.length, (entry.header.flags & record::kFlagMask) != 0);
    old_.assign(file_.begin() + static_cast<std::ptrdiff_t>(entry.offset),
                file_.begin() + static_cast<std::ptrdiff_t>(entry.offset + size));
    const char* reason = nullptr;
    const auto record = record::decode(old_, record::hash_key(entry.canonical), &reason);
    if (!record || !record::checksum_ok(*record)) return;
    record::Header header = record->header;
    header.slot = static_cast<std::uint32_t>(entries_.size());
    new_.resize(size);
    record::encode(header, record->ids, record->mask, new_);
    out.append(lmdb::Table::kRecords, record::PaddedKey(entry.canonical).bytes(), new_);

    const CacheKey key = CacheKey::parse(entry.canonical);
    rows::EntryRow row = entry_row_of(key, number_of(key.tokenizer_sha()));
    row.generation = header.generation;
    row.occupied =
        static_cast<std::uint32_t>(occupied_bytes(entry.canonical.size(), size, store_.page_bytes));
    const std::size_t payload = record::payload_bytes(header.length, !record->mask.empty());
    row.payload |= static_cast<std::uint32_t>(payload);
    if ((row.payload & rows::EntryRow::kLiteral) != 0)
      add(MetaKey(Tag::kLiteral, header.slot), rows::encode_text(key.section_id()));
    entries_.push_back(row);
    stamps_.push_back(last_access(entry));
    store_.entry_count += 1;
    store_.total_bytes += row.occupied;
    store_.payload_bytes += payload;
  }

  [[nodiscard]] std::uint64_t last_access(const Remains::Entry& entry) const {
    std::uint64_t last = std::max(entry.last_access, entry.header.created_ns);
    if (access_ == nullptr) return last;
    const std::uint64_t live = access_->stamp(entry.header.slot);
    return live > last && live < os::now_ns() + kDayNs ? live : last;
  }

  std::uint32_t number_of(std::string_view sha) {
    const auto [at, is_new] = tokenizers_.emplace(sha, static_cast<std::uint32_t>(tokenizers_.size() + 1));
    if (is_new) add(MetaKey(Tag::kTokenizer, at->second), rows::encode_text(sha));
    return at->second;
  }

  void add(const MetaKey& key, std::vector<std::byte> value) { add(key.bytes(), std::move(value)); }
  void add(Bytes key, std::vector<std::byte> value) {
    rows_.insert_or_assign(std::string(reinterpret_cast<const char*>(key.data()), key.size()),
                           std::move(value));
  }

  // Those that do not belong to slots, which are new.
  void keep_rows() {
    for (const auto& [key, value] : remains_->rows) {
      switch (static_cast<Tag>(key[0])) {
        case Tag::kStore:
        case Tag::kTokenizer:
        case Tag::kEntries:
        case Tag::kAccess:
        case Tag::kLiteral:
          break;
        default:
          add(key, {value.begin(), value.end()});
      }
    }
  }

  void write_rows(Appender& out, bool with_rows, std::uint64_t max_bytes) {
    if (const auto& old = remains_->store) {
      store_.created_ns = old->created_ns;
      store_.last_run_id = old->last_run_id;
      std::copy(std::begin(old->tokenizer_sha), std::end(old->tokenizer_sha), store_.tokenizer_sha);
      store_.cleared_ns = old->cleared_ns;
      store_.cleared_entries = old->cleared_entries;
      if (with_rows) {
        store_.history = old->history;
        store_.history_ring = old->history_ring;
      }
    }
    store_.slot_count = static_cast<std::uint32_t>(entries_.size());
    store_.tokenizer_count = static_cast<std::uint32_t>(tokenizers_.size());
    store_.next_generation = remains_->next_generation;
    store_.commits = 1;
    store_.max_bytes = max_bytes;
    for (const std::uint64_t stamp : stamps_) store_.clock_ns = std::max(store_.clock_ns, stamp);
    const Bytes store = rows::bytes_of(store_);
    add(MetaKey(Tag::kStore, 0), {store.begin(), store.end()});
    // In key order, which is that of the tags.
    bool stamps = false;
    bool entries = false;
    for (const auto& [key, value] : rows_) {
      const auto tag = static_cast<Tag>(key[0]);
      if (tag > Tag::kAccess && !std::exchange(stamps, true))
        append_rows<rows::StampChunk>(out, Tag::kAccess, stamps_);
      if (tag > Tag::kEntries && !std::exchange(entries, true))
        append_rows<rows::EntryChunk>(out, Tag::kEntries, entries_);
      out.append(lmdb::Table::kMeta, std::as_bytes(std::span(key)), value);
    }
  }

  Bytes file_;
  const Remains* remains_;
  const shm::AccessTable* access_;  // may be null
  rows::StoreRow store_;
  std::vector<rows::EntryRow> entries_;  // by slot, as those below
  std::vector<std::uint64_t> stamps_;
  std::map<std::string, std::uint32_t, std::less<>> tokenizers_;
  std::map<std::string, std::vector<std::byte>> rows_;  // by key
  std::vector<std::byte> old_;
  std::vector<std::byte> new_;
};

// How many of the newest entries occupy no more than `most`.
std::size_t fitting(const Remains& remains, std::uint64_t most) {
  const auto page_bytes = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  std::uint64_t occupied = 0;
  for (std::size_t i = 0; i < remains.entries.size(); ++i) {
    const Remains::Entry& entry = remains.entries[i];
    occupied += occupied_bytes(
        entry.canonical.size(),
        record::record_bytes(entry.header.length, (entry.header.flags & record::kFlagMask) != 0), page_bytes);
    if (occupied > most) return i;
  }
  return remains.entries.size();
}

std::uint64_t budget_for(const Remains& remains, std::optional<std::uint64_t> given, bool shrink) {
  if (given && shrink) return *given;
  const std::uint64_t last = remains.store ? remains.store->max_bytes : 0;
  return std::max(given.value_or(0), last >= Options::kMinMaxBytes ? last : Options::kDefaultMaxBytes);
}

// Writes `directory`/data.mdb. Returns how many entries it has.
std::uint64_t rebuild(Bytes file, const Remains& remains, const shm::AccessTable* access,
                      const fs::path& directory, std::uint64_t max_bytes) {
  Rebuild rebuild(file, remains, access);
  const std::uint64_t target = usable(max_bytes);
  std::uint64_t most = target;  // that entries may occupy
  bool with_rows = true;
  for (;;) {
    const std::size_t count = fitting(remains, most);
    const std::uint64_t bytes = rebuild.write(directory, count, with_rows, max_bytes);
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
  return rebuild.entries();
}

// Of the old store, if there is one: for access times that were not written to it yet, and for those who have
// it open.
std::unique_ptr<shm::AccessTable> access_table_of(const fs::path& root, const Remains& remains) {
  std::error_code ignored;
  if (!remains.store || !fs::exists(root / "access.shm", ignored)) return nullptr;
  return shm::AccessTable::open(root, remains.store->uuid);
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
    const Remains remains = find_remains(file.bytes());
    access = access_table_of(root, remains);
    if (!remains.other_format && (remains.has_snapshot || !remains.entries.empty())) {
      Salvaged salvaged;
      salvaged.known = remains.known;
      salvaged.saved = rebuild(file.bytes(), remains, access.get(), fresh.directory(),
                               budget_for(remains, max_bytes, shrink));
      recovery.salvaged = salvaged;
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
  if (access) access->note_replaced();
  aside.keep();
  recovery.kept = aside.path();
  return recovery;
}

}  // namespace tokcask
