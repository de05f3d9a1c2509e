// Engine::verify(): every page, every record and every total, on one snapshot.
#include "cache/verify.h"

#include <fmt/format.h>

#include <chrono>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include <tokcask/cache.h>

#include "cache/engine.h"
#include "cache/mapped_file.h"
#include "cache/salvage.h"
#include "cache/store_files.h"
#include "lmdb/walker.h"

namespace tokcask {

using lmdb::Table;
using rows::MetaKey;
using rows::Tag;

namespace {

class Verification {
 public:
  explicit Verification(const lmdb::ReadTransaction& transaction)
      : transaction_(&transaction), store_(read_store_row(transaction)) {
    names_.refresh(transaction, store_.tokenizer_count);
    entries_.resize(store_.slot_count);
    for (std::uint64_t first = 0; first < entries_.size(); first += rows::kEntriesPerChunk) {
      const auto value =
          transaction.get(Table::kMeta, MetaKey(Tag::kEntries, first / rows::kEntriesPerChunk).bytes());
      const auto chunk = value ? rows::read_row<rows::EntryChunk>(*value) : std::nullopt;
      if (!chunk) {
        table_damage(fmt::format("the entry table lacks the rows from slot {} on", first));
        continue;
      }
      for (std::uint64_t i = 0; i < rows::kEntriesPerChunk && first + i < entries_.size(); ++i) {
        entries_[first + i] = (*chunk)[i];
      }
    }
  }

  VerifyReport run() {
    const lmdb::Cursor cursor(*transaction_, Table::kRecords);
    for (auto entry = cursor.first(); entry; entry = cursor.next()) check(entry->key, entry->value);
    check_totals();
    return std::move(report_);
  }

 private:
  void check(lmdb::Bytes key, lmdb::Bytes value) {
    ++report_.records;
    const std::string canonical(record::unpadded(key));
    const char* reason = nullptr;
    const auto record = record::decode(value, record::hash_key(canonical), &reason);
    if (!record) return damage(canonical, reason);
    if (record->header.slot >= entries_.size()) return damage(canonical, "it names a slot that there is not");
    const rows::EntryRow& row = entries_[record->header.slot];
    if (row.tokenizer == 0 || row.generation != record->header.generation) {
      return damage(canonical, kNotCurrent);
    }
    ++known_;
    if (!record::checksum_ok(*record)) return damage(canonical, "its checksum is wrong");
    const std::string wanted =
        canonical_of(*transaction_, record->header.slot, row, names_.name(row.tokenizer));
    if (wanted != canonical)
      table_damage(fmt::format("the entry table has {} for the record of {}", wanted, canonical));
  }

  void check_totals() {
    std::uint64_t live = 0;
    std::uint64_t total = 0;
    std::uint64_t payload = 0;
    for (const rows::EntryRow& row : entries_) {
      if (row.tokenizer == 0) continue;
      ++live;
      total += row.occupied;
      payload += row.payload & ~rows::EntryRow::kLiteral;
    }
    if (live != known_) table_damage(fmt::format("{} entries have no record of their own", live - known_));
    compare("entries", store_.entry_count, live);
    compare("occupied bytes", store_.total_bytes, total);
    compare("payload bytes", store_.payload_bytes, payload);
  }

  void compare(const char* what, std::uint64_t stored, std::uint64_t counted) {
    if (stored != counted)
      table_damage(fmt::format("the store row says {} {}, the entries say {}", stored, what, counted));
  }
  void damage(const std::string& key, const char* reason) {
    ++report_.damaged;
    add({key, reason});
  }
  void table_damage(std::string reason) {
    report_.structure_ok = false;
    add({{}, std::move(reason)});
  }
  void add(Damage finding) {
    if (report_.findings.size() < VerifyReport::kMaxFindings) report_.findings.push_back(std::move(finding));
  }

  const lmdb::ReadTransaction* transaction_;
  rows::StoreRow store_;
  TokenizerNames names_;
  std::vector<rows::EntryRow> entries_;
  std::uint64_t known_ = 0;
  VerifyReport report_;
};

}  // namespace

VerifyReport verify_tables(const lmdb::ReadTransaction& transaction) {
  return Verification(transaction).run();
}

void add_to(VerifyReport& report, const Recovery& recovery) {
  report.kept_as = recovery.kept.filename().string();
  if (!recovery.salvaged) return;
  report.saved = recovery.salvaged->saved;
  report.lost = recovery.salvaged->lost();
}

namespace {

// A file that is not fit for LMDB.
VerifyReport report_of(std::vector<std::string> findings) {
  VerifyReport report;
  report.structure_ok = false;
  for (std::string& finding : findings) report.findings.push_back({{}, std::move(finding)});
  return report;
}

VerifyReport report_of(const files::Inspection& inspection) {
  if (!inspection.findings.empty()) return report_of(inspection.findings);
  const bool absent = inspection.condition == files::Condition::kAbsent;
  return report_of({fmt::format("data.mdb {}", absent ? "is gone" : inspection.why)});
}

// Meta pages are overwritten while others commit, so what is wrong has to stay wrong.
std::vector<std::string> lasting_meta_findings(lmdb::Bytes file) {
  constexpr int kLooks = 8;
  constexpr std::chrono::milliseconds kPause{2};
  std::vector<std::string> findings = lmdb::meta_findings(file);
  for (int looks = 1; !findings.empty() && looks < kLooks; ++looks) {
    std::this_thread::sleep_for(kPause);
    findings = lmdb::meta_findings(file);
  }
  return findings;
}

}  // namespace

VerifyReport Engine::verify() {
  // First the pages, without LMDB, which would trust them: those of a snapshot that is held, so that nobody
  // writes to them meanwhile. Its meta page may be overwritten as soon as two commits have followed.
  constexpr int kMostAttempts = 16;
  try {
    for (int attempt = 0; attempt < kMostAttempts; ++attempt) {
      const lmdb::ReadTransaction transaction(*environment_);
      const std::byte* const map = environment_->map();
      const std::optional<MappedFile> mapped =
          map == nullptr ? std::optional<MappedFile>(root_ / "data.mdb") : std::nullopt;
      const lmdb::Bytes file = mapped ? mapped->bytes() : lmdb::Bytes(map, environment_->file_bytes());
      const auto meta = lmdb::meta_pages(file)[transaction.id() % lmdb::layout::kMetaPages];
      if (!meta || meta->txnid != transaction.id()) continue;
      std::vector<std::string> findings = lasting_meta_findings(file);
      if (!findings.empty()) return report_of(std::move(findings));
      lmdb::WalkReport walked = lmdb::walk_snapshot(file, *meta);
      if (!walked.ok) return report_of(std::move(walked.findings));
      return verify_tables(transaction);
    }
  } catch (const Error& error) {
    // The store row is gone, or the file was cut off.
    if (error.code() != Errc::kDamaged) throw;
    return report_of({fmt::format("data.mdb: {}", error.what())});
  }
  // No meta page is that of the transaction which LMDB takes for the last.
  return report_of(files::inspect(root_));
}

namespace {

// What is wrong with a store that cannot be opened; nothing when it can be.
std::optional<VerifyReport> unusable(const std::filesystem::path& root, Options options) {
  options.read_only = true;
  options.observe = true;
  try {
    static_cast<void>(TokenizedCache::open(root, options));
    return std::nullopt;
  } catch (const Error& error) {
    if (error.code() != Errc::kDamaged) throw;
    const files::Inspection inspection = files::inspect(root);
    return inspection.condition == files::Condition::kGood ? report_of({error.what()})
                                                           : report_of(inspection);
  }
}

}  // namespace

VerifyReport verify(const std::filesystem::path& root, const VerifyOptions& verify_options, Options options) {
  options.max_bytes.reset();
  options.read_only = options.observe = !verify_options.repair;
  std::optional<VerifyReport> report = unusable(root, options);
  if (!report) return TokenizedCache::open(root, options).verify(verify_options);
  if (!verify_options.repair) return *std::move(report);
  if (const auto recovery = Engine::recover_if_unusable(root, options)) add_to(*report, *recovery);
  report->repaired = is_clean(verify(root, {}, options));
  return *std::move(report);
}

}  // namespace tokcask
