#include "files/survivors.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <set>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include <tokcask/error.h>
#include <tokcask/key.h>

#include "lmdb/page_layout.h"
#include "lmdb/walker.h"

namespace tokcask {

namespace {

namespace layout = lmdb::layout;
using Bytes = std::span<const std::byte>;
using rows::Tag;

// The intact record that `bytes` begin with. What is not aligned is no record of a store, but damage.
std::optional<record::Record> intact_record(Bytes bytes) {
  if (reinterpret_cast<std::uintptr_t>(bytes.data()) % alignof(record::Header) != 0) return std::nullopt;
  const char* reason = nullptr;
  const auto record = record::decode_prefix(bytes, &reason);
  return record && record::checksum_ok(*record) ? record : std::nullopt;
}

// A key of the metadata table, if `key` is one that ends with a number.
struct RowName {
  Tag tag;
  std::uint64_t number;
};
std::optional<RowName> row_name(Bytes key) {
  if (key.size() != 8) return std::nullopt;
  RowName name{static_cast<Tag>(key[0]), 0};
  for (const std::byte byte : key.subspan(1))
    name.number = name.number << 8 | static_cast<std::uint64_t>(byte);
  return name;
}

// The page size of a meta page, or else this machine's.
std::size_t page_bytes_of(Bytes file) {
  for (const auto& meta : lmdb::meta_pages(file)) {
    if (meta) return meta->free.pad;
  }
  return std::min(static_cast<std::size_t>(sysconf(_SC_PAGESIZE)), layout::kMaxPageBytes);
}

// Calls `take` with each node of a leaf page whose bounds are possible. The value is empty where it lies in
// overflow pages. The page may be damaged, or one that no tree reaches.
template <typename Take>
void scan_leaf(Bytes page, const Take& take) {
  const auto header = layout::load<layout::PageHeader>(page.data());
  const std::size_t end = std::min<std::size_t>(header.lower, page.size());
  for (std::size_t at = sizeof header; at + sizeof(std::uint16_t) <= end; at += sizeof(std::uint16_t)) {
    const std::size_t offset = layout::load<std::uint16_t>(page.data() + at);
    if (offset < sizeof header || offset > page.size() - sizeof(layout::NodeHeader)) continue;
    const auto node = layout::load<layout::NodeHeader>(page.data() + offset);
    const bool inside = node.flags == 0;
    if (node.key_bytes == 0 || (!inside && node.flags != layout::kNodeOverflow)) continue;
    const std::size_t value_bytes = inside ? node.value_bytes() : 0;
    const Bytes rest = page.subspan(offset + sizeof node);
    if (node.key_bytes > rest.size() || value_bytes > rest.size() - node.key_bytes) continue;
    take(rest.first(node.key_bytes), rest.subspan(node.key_bytes, value_bytes));
  }
}

class Search {
 public:
  explicit Search(Bytes file) : file_(file), page_bytes_(page_bytes_of(file)) {}

  Survivors run() {
    find_snapshot();
    scan();
    if (!survivors_.store && other_format_) return {};
    read_entry_rows();
    choose();
    return std::move(survivors_);
  }

 private:
  struct Found {
    record::Header header;
    Bytes bytes;
  };
  // What a walk came to.
  struct Snapshot {
    std::optional<rows::StoreRow> store;
    std::vector<Survivors::Row> rows;
    std::map<std::uint64_t, Bytes> entries;  // chunks, by number
    std::map<std::uint64_t, Bytes> stamps;
    std::vector<record::Header> records;
    bool intact = true;  // all records are
  };

  // ---- Snapshots ----

  // The newest that walks clean.
  void find_snapshot() {
    lmdb::MetaPages metas = lmdb::meta_pages(file_);
    if (metas[0] && metas[1] && metas[0]->txnid < metas[1]->txnid) std::swap(metas[0], metas[1]);
    for (const auto& meta : metas) {
      Snapshot found;
      if (!meta || !walks_clean(*meta, found) || !found.store) continue;
      snapshot_ = std::move(found);
      survivors_.store = snapshot_.store;
      survivors_.rows = std::move(snapshot_.rows);
      is_whole_ = is_whole(snapshot_);
      return;
    }
  }

  bool walks_clean(const layout::Meta& meta, Snapshot& found) {
    const auto take = [&](std::string_view table, Bytes key, Bytes value) {
      if (table == "records") {
        const auto record = intact_record(value);
        const bool right = record && record->header.key_hash == record::hash_key(record::unpadded(key));
        if (right) found.records.push_back(record->header);
        found.intact = found.intact && right;
        return;
      }
      found.rows.emplace_back(key, value);
      const auto name = row_name(key);
      if (!name) return;
      if (name->tag == Tag::kStore) found.store = store_row(value);
      if (name->tag == Tag::kEntries) found.entries.emplace(name->number, value);
      if (name->tag == Tag::kAccess) found.stamps.emplace(name->number, value);
    };
    return lmdb::walk_snapshot(file_, meta, take).ok;
  }

  // Whether a look-up would serve all that it has.
  static bool is_whole(const Snapshot& snapshot) {
    const auto is_known = [&](const record::Header& header) {
      const auto chunk = snapshot.entries.find(header.slot / rows::kEntriesPerChunk);
      return chunk != snapshot.entries.end() &&
             rows::is_current(chunk->second, header.slot, header.generation);
    };
    return snapshot.intact && snapshot.records.size() == snapshot.store->entry_count &&
           std::ranges::all_of(snapshot.records, is_known);
  }

  std::optional<rows::StoreRow> store_row(Bytes value) {
    const auto row = rows::read_row<rows::StoreRow>(value);
    if (!row || std::memcmp(row->magic, rows::kStoreMagic, sizeof rows::kStoreMagic) != 0)
      return std::nullopt;
    if (rows::is_known_format(row->format_version)) return row;
    other_format_ = true;
    return std::nullopt;
  }

  // ---- Scan ----

  void scan() {
    for (std::uint64_t page = layout::kMetaPages; page < file_.size() / page_bytes_;) {
      const Bytes rest = file_.subspan(page * page_bytes_);
      const auto header = layout::load<layout::PageHeader>(rest.data());
      std::uint64_t pages = 1;
      if (header.flags == layout::kLeafPage) {
        scan_leaf(rest.first(page_bytes_), [&](Bytes key, Bytes value) { take_node(key, value); });
      } else if (header.flags == layout::kOverflowPage) {
        pages = take_overflow(rest.subspan(sizeof header));
      }
      page += pages;
    }
  }

  void take_node(Bytes key, Bytes value) {
    // A short key of a record may look like that of a row, and the other way round.
    const std::string_view canonical = record::unpadded(key);
    names_.try_emplace(record::hash_key(canonical), canonical);
    if (take_record(value)) return;
    const auto name = row_name(key);
    if (!name) return;
    if (name->tag == Tag::kStore && !snapshot_.store) {
      const auto row = store_row(value);
      if (row && (!survivors_.store || row->commits > survivors_.store->commits)) survivors_.store = row;
    } else if (name->tag == Tag::kTokenizer) {
      tokenizers_[name->number].insert(rows::decode_text(value));
    } else if (name->tag == Tag::kLiteral) {
      const std::string_view section = rows::decode_text(value);
      sections_.emplace(record::hash_key(section), section);
    } else if (name->tag == Tag::kEntries) {
      entry_chunks_.push_back(value);
    }
  }

  // Returns how many pages the value takes. What looks like a page inside of a record is tokens.
  std::uint64_t take_overflow(Bytes value) {
    if (take_record(value)) return layout::overflow_pages(found_.back().bytes.size(), page_bytes_);
    if (value.size() >= sizeof(rows::EntryChunk))
      entry_chunks_.push_back(value.first(sizeof(rows::EntryChunk)));
    return 1;
  }

  bool take_record(Bytes bytes) {
    const auto record = intact_record(bytes);
    if (record) found_.push_back({record->header, bytes.first(record->bytes())});
    return record.has_value();
  }

  // Read when the whole file was seen, because the text of a key lies anywhere in it. A row that is damage,
  // or a value that is no chunk, gives a name that no record has.
  void read_entry_rows() {
    for (const Bytes bytes : entry_chunks_) {
      const auto chunk = rows::read_row<rows::EntryChunk>(bytes);
      if (!chunk) continue;
      for (const rows::EntryRow& row : *chunk) {
        const auto shas = tokenizers_.find(row.tokenizer);
        if (shas == tokenizers_.end()) continue;
        const bool literal = (row.payload & rows::EntryRow::kLiteral) != 0;
        const auto section = literal ? sections_.find(row.section) : sections_.end();
        if (literal && section == sections_.end()) continue;
        const std::string text = literal ? std::string(section->second) : rows::unpack_section(row.section);
        for (const std::string_view sha : shas->second) {
          std::string canonical = fmt::format("{}|{}|{}", text, sha, row.sequence_len);
          names_.try_emplace(record::hash_key(canonical), std::move(canonical));
        }
      }
    }
  }

  // ---- Choice ----

  void choose() {
    std::ranges::sort(
        found_, [](const Found& a, const Found& b) { return a.header.generation > b.header.generation; });
    std::unordered_set<std::uint64_t> live;
    for (const record::Header& header : snapshot_.records) live.insert(header.generation);
    std::unordered_set<std::uint64_t> seen;  // key hashes
    for (const Found& found : found_) {
      const std::uint64_t generation = found.header.generation;
      if (is_whole_ && generation < survivors_.store->next_generation && !live.contains(generation)) continue;
      if (!seen.insert(found.header.key_hash).second) continue;
      const auto name = names_.find(found.header.key_hash);
      if (name == names_.end() || !is_key(name->second)) continue;
      survivors_.entries.push_back(
          {std::move(name->second), found.header, found.bytes, stored_access(found.header.slot)});
    }
    survivors_.known = seen.size();
    // A number from a damaged row is not believed beyond what the file can hold.
    if (survivors_.store && survivors_.store->entry_count <= file_.size() / record::kHeaderBytes)
      survivors_.known = std::max(survivors_.entries.size(), survivors_.store->entry_count);
  }

  static bool is_key(const std::string& canonical) {
    try {
      return CacheKey::parse(canonical).canonical() == canonical;
    } catch (const Error&) {
      return false;
    }
  }

  [[nodiscard]] std::uint64_t stored_access(std::uint32_t slot) const {
    const auto found = snapshot_.stamps.find(slot / rows::kStampsPerChunk);
    if (found == snapshot_.stamps.end()) return 0;
    const auto chunk = rows::read_row<rows::StampChunk>(found->second);
    return chunk ? (*chunk)[slot % rows::kStampsPerChunk] : 0;
  }

  Bytes file_;
  std::size_t page_bytes_;
  Survivors survivors_;
  Snapshot snapshot_;
  bool is_whole_ = false;      // the snapshot is
  bool other_format_ = false;  // a store row of another version was seen
  std::vector<Found> found_;
  std::unordered_map<std::uint64_t, std::string> names_;                      // canonical keys, by hash
  std::unordered_map<std::uint64_t, std::set<std::string_view>> tokenizers_;  // shas, by number
  std::unordered_map<std::uint64_t, std::string_view> sections_;  // those that are no number, by hash
  std::vector<Bytes> entry_chunks_;
};

}  // namespace

Survivors find_survivors(Bytes file) { return Search(file).run(); }

}  // namespace tokcask
