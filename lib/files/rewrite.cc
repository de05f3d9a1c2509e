#include "files/rewrite.h"

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "files/appender.h"
#include "files/store_files.h"
#include "os/clock.h"
#include "record/record.h"
#include "record/rows.h"
#include "tables/commit.h"
#include "tables/history.h"

namespace tokcask {

using lmdb::Table;
using rows::MetaKey;
using rows::Tag;

namespace {

// Rows of fixed size by number, cut into the chunks in which they are stored.
template <typename Chunk, typename Row>
std::vector<Row> read_rows(const lmdb::ReadTransaction& snapshot, Tag tag, std::uint32_t count) {
  constexpr std::size_t kPerChunk = std::tuple_size_v<Chunk>;
  std::vector<Row> all(count);
  for (std::size_t first = 0; first < count; first += kPerChunk) {
    const auto value = snapshot.get(Table::kMeta, MetaKey(tag, first / kPerChunk).bytes());
    const auto chunk = value ? rows::read_row<Chunk>(*value) : std::nullopt;
    if (!chunk) continue;
    std::copy_n(chunk->begin(), std::min<std::size_t>(kPerChunk, count - first),
                all.begin() + static_cast<std::ptrdiff_t>(first));
  }
  return all;
}

// Sizes that this store writes; a value of another one is damage, and would misalign its neighbours.
bool aligned(const lmdb::Cursor::Entry& entry) {
  return entry.key.size() % 8 == 0 && entry.value.size() % 8 == 0;
}

class Rewriting {
 public:
  Rewriting(const lmdb::Environment& from, shm::AccessTable& access, const Rewrite& how)
      : access_(&access), how_(&how), snapshot_(from), store_(read_store_row(snapshot_)) {
    names_.refresh(snapshot_, store_.tokenizer_count);
    result_.txnid = snapshot_.id();
    entries_ = read_rows<rows::EntryChunk, rows::EntryRow>(snapshot_, Tag::kEntries, store_.slot_count);
    kept_.resize(entries_.size());
  }

  Rewritten run(const std::filesystem::path& directory) {
    {
      const auto to = lmdb::Environment::open(directory, lmdb::Environment::Mode::kCreate);
      Appender out(*to);
      copy_records(out);
      update_rows();
      copy_meta(out);
      out.finish();
      result_.bytes = to->file_bytes();
    }
    return std::move(result_);
  }

 private:
  void copy_records(Appender& out) {
    const lmdb::Cursor cursor(snapshot_, Table::kRecords);
    for (auto entry = cursor.first(); entry; entry = cursor.next()) {
      const auto slot = slot_of(*entry);
      if (!slot) {
        ++result_.damaged;
      } else if (*slot < how_->leave_out.size() && how_->leave_out[*slot]) {
        ++result_.left_out;
        result_.left_out_bytes += entries_[*slot].occupied;
        if (how_->fate != rows::Fate::kNone) {
          gone_.push_back({record::hash_key(record::unpadded(entry->key)), os::now_ns(),
                           access_->stamp(*slot), 0, how_->fate});
        }
      } else {
        kept_[*slot] = true;
        out.append(Table::kRecords, entry->key, entry->value);
      }
    }
  }

  // The slot of a record that may be served.
  [[nodiscard]] std::optional<std::uint32_t> slot_of(const lmdb::Cursor::Entry& entry) const {
    if (!aligned(entry)) return std::nullopt;
    const std::string_view canonical = record::unpadded(entry.key);
    const char* reason = nullptr;
    const auto record = record::decode(entry.value, record::hash_key(canonical), &reason);
    if (!record || record->header.slot >= entries_.size()) return std::nullopt;
    const rows::EntryRow& row = entries_[record->header.slot];
    if (row.tokenizer == 0 || row.generation != record->header.generation || !record::checksum_ok(*record) ||
        !is_row_of(row, canonical)) {
      return std::nullopt;
    }
    return record->header.slot;
  }

  [[nodiscard]] bool is_row_of(const rows::EntryRow& row, std::string_view canonical) const {
    try {
      const CacheKey key = CacheKey::parse(canonical);
      return same_key(row, entry_row_of(key, names_.number(key.tokenizer_sha())));
    } catch (const Error&) {
      return false;
    }
  }

  // Entries that were left out free their slots; totals and the list of free slots are made anew.
  void update_rows() {
    store_.entry_count = store_.total_bytes = store_.payload_bytes = 0;
    for (std::uint32_t slot = 0; slot < entries_.size(); ++slot) {
      rows::EntryRow& row = entries_[slot];
      if (kept_[slot]) {
        store_.entry_count += 1;
        store_.total_bytes += row.occupied;
        store_.payload_bytes += row.payload & ~rows::EntryRow::kLiteral;
        continue;
      }
      if (row.tokenizer != 0) result_.freed.push_back(slot);
      row = rows::EntryRow{};
    }
    while (!entries_.empty() && entries_.back().tokenizer == 0) entries_.pop_back();
    store_.slot_count = static_cast<std::uint32_t>(entries_.size());
    store_.free_slot = rows::kNoSlot;
    for (std::uint32_t slot = store_.slot_count; slot-- > 0;) {
      if (entries_[slot].tokenizer != 0) continue;
      entries_[slot].section = store_.free_slot;
      store_.free_slot = slot;
    }
    stamps_ = read_rows<rows::StampChunk, std::uint64_t>(snapshot_, Tag::kAccess, store_.slot_count);
    for (std::uint32_t slot = 0; slot < store_.slot_count; ++slot) {
      stamps_[slot] = entries_[slot].tokenizer == 0 ? 0 : std::max(stamps_[slot], access_->stamp(slot));
    }
    store_.rewrites += 1;
    store_.commits += 1;
    store_.clock_ns = access_->next_stamp();
    if (how_->max_bytes != 0) store_.max_bytes = how_->max_bytes;
    if (how_->new_store) store_.uuid = files::new_store_row(store_.page_bytes).uuid;
    if (how_->forget_hints) store_.hint_bytes = 0;
    result_.entries = store_.entry_count;
  }

  // The chunks of the history that rows of what is gone are added to, by number.
  std::map<std::uint64_t, rows::HistoryChunk> changed_history() {
    std::map<std::uint64_t, rows::HistoryChunk> chunks;
    if (gone_.empty()) return chunks;
    store_.history_ring = history_ring(store_.max_bytes);
    // Of more than there is room for, those that were used last.
    std::sort(gone_.begin(), gone_.end(),
              [](const rows::HistoryRow& a, const rows::HistoryRow& b) { return a.wanted_ns < b.wanted_ns; });
    const std::size_t skipped = gone_.size() - std::min<std::size_t>(gone_.size(), store_.history_ring);
    for (const rows::HistoryRow& row : std::span(gone_).subspan(skipped)) {
      const std::uint64_t at = store_.history++ % store_.history_ring;
      const auto [chunk, is_new] = chunks.try_emplace(at / rows::kHistoryPerChunk);
      if (is_new) {
        const auto value = snapshot_.get(Table::kMeta, MetaKey(Tag::kHistory, chunk->first).bytes());
        const auto stored = value ? rows::read_row<rows::HistoryChunk>(*value) : std::nullopt;
        if (stored) chunk->second = *stored;
      }
      chunk->second[at % rows::kHistoryPerChunk] = row;
    }
    return chunks;
  }

  // All chunks that the ring still has, changed or not.
  void append_history(Appender& out) {
    const auto changed = changed_history();
    const std::uint64_t chunks = (store_.history_ring + rows::kHistoryPerChunk - 1) / rows::kHistoryPerChunk;
    for (std::uint64_t number = 0; number < chunks; ++number) {
      const MetaKey key(Tag::kHistory, number);
      if (const auto chunk = changed.find(number); chunk != changed.end()) {
        out.append(Table::kMeta, key.bytes(), std::as_bytes(std::span(chunk->second)));
      } else if (const auto value = snapshot_.get(Table::kMeta, key.bytes());
                 value && value->size() == sizeof(rows::HistoryChunk)) {
        out.append(Table::kMeta, key.bytes(), *value);
      }
    }
  }

  // In key order, which is that of the tags; rows of tags that this program does not know stay as they are.
  void copy_meta(Appender& out) {
    bool stamps = false;
    bool entries = false;
    bool history = false;
    const lmdb::Cursor cursor(snapshot_, Table::kMeta);
    for (auto entry = cursor.first(); entry; entry = cursor.next()) {
      const auto tag = static_cast<Tag>(entry->key[0]);
      if (tag >= Tag::kAccess && !std::exchange(stamps, true))
        append_rows<rows::StampChunk>(out, Tag::kAccess, stamps_);
      if (tag >= Tag::kEntries && !std::exchange(entries, true))
        append_rows<rows::EntryChunk>(out, Tag::kEntries, entries_);
      if (tag >= Tag::kHistory && !std::exchange(history, true)) append_history(out);
      if (tag == Tag::kStore) {
        out.append(Table::kMeta, entry->key, rows::bytes_of(store_));
      } else if (keeps(tag, *entry)) {
        out.append(Table::kMeta, entry->key, entry->value);
      }
    }
  }

  [[nodiscard]] bool keeps(Tag tag, const lmdb::Cursor::Entry& entry) const {
    if (!aligned(entry)) return false;
    switch (tag) {
      case Tag::kAccess:
      case Tag::kEntries:
      case Tag::kHistory:
        return false;  // written anew
      case Tag::kDirectory:
      case Tag::kTokenizerFile:
      case Tag::kTraits:
        return !how_->forget_hints;
      case Tag::kLiteral: {
        std::uint64_t slot = 0;
        for (std::size_t i = 1; i < 8; ++i) slot = slot << 8 | static_cast<std::uint64_t>(entry.key[i]);
        return slot < entries_.size() && (entries_[slot].payload & rows::EntryRow::kLiteral) != 0;
      }
      default:
        return true;
    }
  }

  shm::AccessTable* access_;
  const Rewrite* how_;
  const lmdb::ReadTransaction snapshot_;
  rows::StoreRow store_;
  TokenizerNames names_;
  std::vector<rows::EntryRow> entries_;
  std::vector<std::uint64_t> stamps_;
  std::vector<bool> kept_;
  std::vector<rows::HistoryRow> gone_;
  Rewritten result_;
};

}  // namespace

Rewritten rewrite(const lmdb::Environment& from, shm::AccessTable& access,
                  const std::filesystem::path& directory, const Rewrite& how) {
  return Rewriting(from, access, how).run(directory);
}

}  // namespace tokcask
