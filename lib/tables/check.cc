#include "tables/check.h"

#include <fmt/format.h>

#include <optional>
#include <utility>
#include <vector>

#include "record/record.h"
#include "tables/read.h"

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

}  // namespace tokcask
