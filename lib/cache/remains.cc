#include "cache/remains.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <string_view>
#include <tuple>
#include <unordered_map>

#include <tokcask/error.h>
#include <tokcask/key.h>

#include "lmdb/page_layout.h"
#include "lmdb/page_scan.h"
#include "lmdb/walker.h"
#include "os/clock.h"

namespace tokcask {

namespace {

using Bytes = std::span<const std::byte>;
using rows::Tag;

// Numbers above these are damage.
constexpr std::uint64_t kMostGenerations = std::uint64_t{1} << 56;
constexpr std::uint64_t kDayNs = 24ULL * 3600 * 1'000'000'000;

// The header that `bytes` begin with, if it is a record's. It may be damaged all the same.
std::optional<record::Header> header_of(Bytes bytes) {
  if (bytes.size() < record::kHeaderBytes) return std::nullopt;
  const auto header = lmdb::layout::load<record::Header>(bytes.data());
  if (header.magic != record::kMagic || header.version != record::kVersion) return std::nullopt;
  return header;
}

std::uint64_t bytes_of(const record::Header& header) {
  return record::record_bytes(header.length, (header.flags & record::kFlagMask) != 0);
}

// Whether a whole record lies there. `bytes` need not be aligned.
bool is_intact(const record::Header& header, Bytes bytes) {
  if (header.length > record::kMaxTokens || bytes_of(header) > bytes.size()) return false;
  Bytes whole = bytes.first(bytes_of(header));
  std::vector<std::byte> copy;
  if (reinterpret_cast<std::uintptr_t>(whole.data()) % alignof(record::Header) != 0) {
    copy.assign(whole.begin(), whole.end());
    whole = copy;
  }
  const char* reason = nullptr;
  const auto record = record::decode(whole, header.key_hash, &reason);
  return record && record::checksum_ok(*record);
}

// The tag and the number of a metadata key, if it is one of those that have both.
std::optional<std::pair<Tag, std::uint64_t>> meta_key_of(Bytes key) {
  if (key.size() != 8) return std::nullopt;
  std::uint64_t number = 0;
  for (std::size_t i = 1; i < 8; ++i) number = number << 8 | static_cast<std::uint64_t>(key[i]);
  return std::pair(static_cast<Tag>(key[0]), number);
}

class Search {
 public:
  explicit Search(Bytes file) : file_(file), page_bytes_(lmdb::guess_page_bytes(file)) {}

  Remains run() {
    find_snapshot();
    scan();
    if (!remains_.store && other_format_) {
      remains_.other_format = true;
      return std::move(remains_);
    }
    read_entry_rows();
    find_doubtful();
    choose();
    return std::move(remains_);
  }

 private:
  struct Candidate {
    std::uint64_t key_hash;
    std::uint64_t generation;
    std::uint64_t offset;
  };
  struct Key {
    std::string canonical;     // empty: not known
    std::uint64_t newest = 0;  // the highest generation that anything names
    bool has_record = false;   // intact or not
    bool doubtful = false;
    std::uint64_t first = 0;  // where the first intact record lies that was found; 0: none was
  };
  // Where a leaf says that the record of a key begins.
  struct Reference {
    std::uint64_t key_hash;
    std::uint64_t page;
  };

  // The newest snapshot that walks clean and has a store row of this format.
  void find_snapshot() {
    const lmdb::MetaPages metas = lmdb::meta_pages(file_);
    std::vector<const lmdb::layout::Meta*> by_age;
    for (std::size_t i = 0; i < metas.size(); ++i) {
      // LMDB takes the last transaction from the numbers, so one in the wrong place may be any other's.
      if (metas[i] && (metas[i]->txnid % metas.size() == i || metas[i]->txnid == 0))
        by_age.push_back(&*metas[i]);
    }
    if (by_age.size() == 2 && by_age[0]->txnid < by_age[1]->txnid) std::swap(by_age[0], by_age[1]);
    // Of two the first is the last that was committed. Of one nobody knows.
    const bool last_is_known = by_age.size() == 2 && by_age[0]->txnid - by_age[1]->txnid <= 1;
    if (last_is_known) find_certain(*by_age[0]);
    for (const lmdb::layout::Meta* meta : by_age) {
      if (!lmdb::walk_snapshot(file_, *meta).ok || !read_snapshot(*meta)) continue;
      remains_.has_snapshot = true;
      is_last_ = last_is_known && meta == by_age[0];
      return;
    }
  }

  // Of the last snapshot, damaged as it may be: records that its tree leads to and that their entry rows in
  // it know. That is all that a look-up goes by. And keys whose record is not where it leads: what the scan
  // finds of them elsewhere is older.
  void find_certain(const lmdb::layout::Meta& last) {
    std::vector<record::Header> records;
    static_cast<void>(lmdb::walk_snapshot(file_, last, [&](std::string_view table, Bytes key, Bytes value) {
      if (table == "records") {
        const std::uint64_t hash = record::hash_key(record::unpadded(key));
        const auto header = header_of(value);
        if (header && header->key_hash == hash) {
          records.push_back(*header);
        } else {
          displaced_.push_back(hash);
        }
        return;
      }
      const auto name = meta_key_of(key);
      if (!name || name->first != Tag::kEntries) return;
      if (const auto chunk = rows::read_row<rows::EntryChunk>(value)) chunks_.emplace(name->second, *chunk);
    }));
    for (const record::Header& header : records) {
      const rows::EntryRow* const row = last_row(header.slot);
      if (row != nullptr && row->tokenizer != 0 && row->generation == header.generation)
        certain_.emplace(header.key_hash, header.generation);
    }
  }

  // A slot's entry row in the last snapshot, if that leads to one.
  [[nodiscard]] const rows::EntryRow* last_row(std::uint32_t slot) const {
    const auto chunk = chunks_.find(slot / rows::kEntriesPerChunk);
    return chunk == chunks_.end() ? nullptr : &chunk->second[slot % rows::kEntriesPerChunk];
  }

  // Whether the last snapshot's entry rows show that the record had been removed: its slot is that of a later
  // put, or is free in a chunk that knows of later puts. What was under its key after it, and was removed
  // with all that names it, nobody can tell.
  [[nodiscard]] bool was_removed(const Candidate& candidate) const {
    const auto header = lmdb::layout::load<record::Header>(file_.data() + candidate.offset);
    const rows::EntryRow* const row = last_row(header.slot);
    if (row == nullptr) return false;
    if (row->tokenizer != 0)
      return row->generation > candidate.generation && row->generation < kMostGenerations;
    const rows::EntryChunk& chunk = chunks_.at(header.slot / rows::kEntriesPerChunk);
    return std::any_of(chunk.begin(), chunk.end(), [&](const rows::EntryRow& other) {
      return other.tokenizer != 0 && other.generation > candidate.generation &&
             other.generation < kMostGenerations;
    });
  }

  [[nodiscard]] bool is_certain(const Candidate& candidate) const {
    const auto found = certain_.find(candidate.key_hash);
    return found != certain_.end() && found->second == candidate.generation;
  }

  bool read_snapshot(const lmdb::layout::Meta& meta) {
    std::vector<Remains::Row> rows;
    std::unordered_map<std::uint64_t, std::uint64_t> live;
    std::optional<rows::StoreRow> store;
    static_cast<void>(lmdb::walk_snapshot(file_, meta, [&](std::string_view table, Bytes key, Bytes value) {
      if (table == "meta") {
        rows.emplace_back(key, value);
        if (static_cast<Tag>(key[0]) == Tag::kStore) store = store_row(value);
      } else if (table == "records") {
        if (const auto header = header_of(value)) live.emplace(header->key_hash, header->generation);
      }
    }));
    if (!store) return false;
    remains_.store = store;
    remains_.rows = std::move(rows);
    live_ = std::move(live);
    return true;
  }

  std::optional<rows::StoreRow> store_row(Bytes value) {
    const auto row = rows::read_row<rows::StoreRow>(value);
    if (!row || std::memcmp(row->magic, rows::kStoreMagic, sizeof rows::kStoreMagic) != 0)
      return std::nullopt;
    if (row->format_version != rows::kFormatVersion) {
      other_format_ = true;
      return std::nullopt;
    }
    return row;
  }

  // ---- Scan ----

  void scan() {
    covered_.resize(file_.size() / page_bytes_);
    lmdb::ScanSink sink;
    sink.node = [&](const lmdb::ScannedNode& node) { take_node(node); };
    sink.overflow = [&](std::uint64_t page, const lmdb::layout::PageHeader& header, Bytes rest) {
      return take_overflow(page, header, rest);
    };
    lmdb::scan_pages(file_, page_bytes_, sink);
  }

  void take_node(const lmdb::ScannedNode& node) {
    if (const auto key = meta_key_of(node.key)) return take_row(key->first, key->second, node);
    const std::string_view canonical = record::unpadded(node.key);
    if (node.key.size() % 8 != 0 || canonical.size() + 8 <= node.key.size() ||
        std::count(canonical.begin(), canonical.end(), '|') != 2) {
      return;
    }
    const std::uint64_t hash = record::hash_key(canonical);
    Key& key = keys_[hash];
    if (key.canonical.empty()) key.canonical = canonical;
    if (node.overflow_page != 0) {
      references_.push_back({hash, node.overflow_page});
    } else if (const auto header = header_of(node.value)) {
      take_record(*header, node.value);
    }
  }

  // Chunks of rows are read when everything was seen: their pages may come later, or be another's by now.
  void take_row(Tag tag, std::uint64_t number, const lmdb::ScannedNode& node) {
    switch (tag) {
      case Tag::kStore:
        if (const auto row = store_row(node.value);
            row && !remains_.has_snapshot && (!remains_.store || row->commits > remains_.store->commits)) {
          remains_.store = row;
        }
        break;
      case Tag::kTokenizer:
        if (node.overflow_page == 0) {
          std::vector<std::string_view>& names = tokenizers_[number];
          const std::string_view name = rows::decode_text(node.value);
          if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
        }
        break;
      case Tag::kLiteral:
        if (node.overflow_page == 0) {
          const std::string_view section = rows::decode_text(node.value);
          literals_.emplace(record::hash_key(section), section);
        }
        break;
      case Tag::kEntries:
        if (node.overflow_page == 0) entry_chunks_.push_back(node.value);
        break;
      case Tag::kAccess:
        stamp_chunks_.push_back({number, node.overflow_page, node.value});
        break;
      default:
        break;
    }
  }

  std::uint64_t take_overflow(std::uint64_t page, const lmdb::layout::PageHeader& header, Bytes rest) {
    if (const auto record = header_of(rest)) {
      if (!take_record(*record, rest)) return 1;
      const std::uint64_t pages = lmdb::layout::overflow_pages(bytes_of(*record), page_bytes_);
      std::fill_n(covered_.begin() + static_cast<std::ptrdiff_t>(page),
                  std::min<std::uint64_t>(pages, covered_.size() - page), true);
      return pages;  // what looks like a page in there is tokens
    }
    if (header.overflow_pages() == lmdb::layout::overflow_pages(sizeof(rows::EntryChunk), page_bytes_) &&
        rest.size() >= sizeof(rows::EntryChunk)) {
      entry_chunks_.push_back(rest.first(sizeof(rows::EntryChunk)));
    }
    return 1;
  }

  bool take_record(const record::Header& header, Bytes bytes) {
    if (header.generation >= kMostGenerations) return false;
    const bool intact = is_intact(header, bytes);
    // The generation of a damaged record counts too: there may have been one.
    Key& key = keys_[header.key_hash];
    key.newest = std::max(key.newest, header.generation);
    key.has_record = true;
    if (intact) {
      note_replacement(key, header, bytes);
      // Both count puts, as long as each takes a slot of its own.
      reuses_slots_ = reuses_slots_ || header.generation != header.slot + std::uint64_t{1};
      candidates_.push_back(
          {header.key_hash, header.generation, static_cast<std::uint64_t>(bytes.data() - file_.data())});
    }
    return intact;
  }

  // Whether two records of one key have different tokens, so that keys of this store are not put once and for
  // all.
  void note_replacement(Key& key, const record::Header& header, Bytes bytes) {
    if (key.first == 0) {
      key.first = static_cast<std::uint64_t>(bytes.data() - file_.data());
      return;
    }
    const Bytes other = file_.subspan(key.first);
    const auto other_header = lmdb::layout::load<record::Header>(other.data());
    if (other_header.generation == header.generation) return;
    const std::size_t payload = bytes_of(header) - record::kHeaderBytes;
    replaces_ =
        replaces_ || other_header.length != header.length || other_header.flags != header.flags ||
        std::memcmp(other.data() + record::kHeaderBytes, bytes.data() + record::kHeaderBytes, payload) != 0;
  }

  // ---- Rows ----

  // What names an entry row's key is the text of its tokenizer. A number had the same text all the time, so
  // several are there only when one is damaged.
  void read_entry_rows() {
    for (const Bytes bytes : entry_chunks_) {
      const auto chunk = rows::read_row<rows::EntryChunk>(bytes);
      if (!chunk) continue;
      for (const rows::EntryRow& row : *chunk) {
        if (row.tokenizer == 0 || row.generation >= kMostGenerations) continue;
        const auto names = tokenizers_.find(row.tokenizer);
        if (names == tokenizers_.end()) continue;
        for (const std::string_view name : names->second) take_entry_row(row, name);
      }
    }
  }

  void take_entry_row(const rows::EntryRow& row, std::string_view sha) {
    std::string section;
    if ((row.payload & rows::EntryRow::kLiteral) == 0) {
      section = rows::unpack_section(row.section);
    } else if (const auto literal = literals_.find(row.section); literal != literals_.end()) {
      section = literal->second;
    } else {
      return;
    }
    std::string canonical = fmt::format("{}|{}|{}", section, sha, row.sequence_len);
    const auto key = keys_.find(record::hash_key(canonical));
    if (key == keys_.end()) return;
    key->second.newest = std::max(key->second.newest, row.generation);
    if (key->second.canonical.empty()) key->second.canonical = std::move(canonical);
  }

  // By slot, and within what was possible, because these rows have no checksum.
  std::unordered_map<std::uint64_t, std::uint64_t> read_stamps() const {
    std::unordered_map<std::uint64_t, std::uint64_t> stamps;
    const std::uint64_t latest = os::now_ns();
    for (const StampChunk& found : stamp_chunks_) {
      if (found.page != 0) {
        if (found.value.empty()) continue;
        const auto header = lmdb::layout::load<lmdb::layout::PageHeader>(found.value.data() -
                                                                         sizeof(lmdb::layout::PageHeader));
        if (header.number != found.page || header.flags != lmdb::layout::kOverflowPage) continue;
      }
      const auto chunk = rows::read_row<rows::StampChunk>(found.value);
      if (!chunk) continue;
      for (std::size_t i = 0; i < chunk->size(); ++i) {
        const std::uint64_t stamp = (*chunk)[i];
        if (stamp == 0 || stamp > latest + kDayNs) continue;
        std::uint64_t& known = stamps[found.number * rows::kStampsPerChunk + i];
        known = std::max(known, stamp);
      }
    }
    return stamps;
  }

  // ---- Choice ----

  void find_doubtful() {
    if (is_last_) return;  // its tree says which records are current
    for (const std::uint64_t hash : displaced_) {
      if (const auto key = keys_.find(hash); key != keys_.end()) key->second.doubtful = true;
    }
    for (const Reference& reference : references_) {
      if (!is_lost(reference.page)) continue;
      if (const auto key = keys_.find(reference.key_hash); key != keys_.end()) key->second.doubtful = true;
    }
  }

  // Whether what was in a page is not there any more: it was cut off, made zeros, or has another page in its
  // place. A page that was freed and used again for the inside of a value looks like none of these.
  [[nodiscard]] bool is_lost(std::uint64_t page) const {
    if (page >= covered_.size()) return true;
    if (covered_[page]) return false;
    const auto header = lmdb::layout::load<lmdb::layout::PageHeader>(file_.data() + page * page_bytes_);
    const bool zeros = header.number == 0 && header.flags == 0 && header.lower == 0 && header.upper == 0;
    const bool is_page = header.flags == lmdb::layout::kBranchPage ||
                         header.flags == lmdb::layout::kLeafPage ||
                         header.flags == lmdb::layout::kOverflowPage;
    return zeros || (is_page && header.number != page && header.number < covered_.size());
  }

  // Whether so much of the file is missing at its end, by the meta pages, or where there is none by the
  // leaves, that what is left need not show whether keys were put again: half of it, or an eighth if slots
  // were used again, of which an older commit has one record each. (LMDB may leave out some pages at the
  // end.)
  [[nodiscard]] bool too_much_is_gone() const {
    std::uint64_t pages = 0;
    for (const auto& meta : lmdb::meta_pages(file_)) {
      if (meta) pages = std::max(pages, meta->last_page + 1);
    }
    if (pages == 0) {
      for (const Reference& reference : references_) pages = std::max(pages, reference.page + 1);
    }
    return covered_.size() < (reuses_slots_ ? pages - pages / 8 : pages / 2);
  }

  [[nodiscard]] bool is_current(const Candidate& candidate, const Key& key) const {
    if (candidate.generation != key.newest || key.doubtful) return false;
    if (!remains_.has_snapshot) return true;
    const auto live = live_.find(candidate.key_hash);
    if (live != live_.end() && live->second == candidate.generation) return true;
    return !is_last_ && candidate.generation >= remains_.store->next_generation;
  }

  void choose() {
    std::sort(candidates_.begin(), candidates_.end(), [](const Candidate& a, const Candidate& b) {
      return std::tie(b.generation, b.key_hash, a.offset) < std::tie(a.generation, a.key_hash, b.offset);
    });
    const auto stamps = read_stamps();
    // What is lost may have had a newer record of any key, with all that names it. That matters where keys
    // are put again with other tokens, and what is left of most files tells whether they are.
    const bool nothing_else_is_sure = !is_last_ && (replaces_ || too_much_is_gone());
    for (const Candidate& candidate : candidates_) {
      remains_.next_generation = std::max(remains_.next_generation, candidate.generation + 1);
      const auto found = keys_.find(candidate.key_hash);
      if ((nothing_else_is_sure && !is_certain(candidate)) || found == keys_.end() ||
          found->second.canonical.empty() || !is_current(candidate, found->second) ||
          was_removed(candidate)) {
        continue;
      }
      if (!is_key(found->second.canonical)) continue;
      Remains::Entry& entry = remains_.entries.emplace_back();
      entry.canonical = std::move(found->second.canonical);
      found->second.canonical.clear();  // copies of the same record follow
      entry.header = lmdb::layout::load<record::Header>(file_.data() + candidate.offset);
      entry.offset = candidate.offset;
      const auto stamp = stamps.find(entry.header.slot);
      if (stamp != stamps.end() && stamp->second >= entry.header.created_ns)
        entry.last_access = stamp->second;
    }
    remains_.known = remains_.entries.size();
    if (remains_.store) {
      if (remains_.store->next_generation < kMostGenerations)
        remains_.next_generation = std::max(remains_.next_generation, remains_.store->next_generation);
      // A number from a damaged row is not believed beyond what the file can hold.
      const std::uint64_t most = file_.size() / record::kHeaderBytes;
      if (remains_.store->entry_count <= most)
        remains_.known = std::max(remains_.known, remains_.store->entry_count);
    } else {
      const auto records =
          std::count_if(keys_.begin(), keys_.end(), [](const auto& key) { return key.second.has_record; });
      remains_.known = std::max(remains_.known, static_cast<std::uint64_t>(records));
    }
  }

  static bool is_key(const std::string& canonical) {
    try {
      return CacheKey::parse(canonical).canonical() == canonical;
    } catch (const Error&) {
      return false;
    }
  }

  struct StampChunk {
    std::uint64_t number;
    std::uint64_t page;  // 0: inside a leaf
    Bytes value;
  };

  Bytes file_;
  std::size_t page_bytes_;
  Remains remains_;
  bool other_format_ = false;
  bool is_last_ = false;                                        // the snapshot is the last that was committed
  bool replaces_ = false;                                       // see note_replacement()
  bool reuses_slots_ = false;                                   // see too_much_is_gone()
  std::unordered_map<std::uint64_t, rows::EntryChunk> chunks_;  // of the last snapshot, by number
  std::unordered_map<std::uint64_t, std::uint64_t> certain_;  // generations, by key hash; see find_certain()
  std::vector<std::uint64_t> displaced_;                      // key hashes; see find_certain()
  std::unordered_map<std::uint64_t, std::uint64_t> live_;     // generations in the snapshot, by key hash
  std::unordered_map<std::uint64_t, Key> keys_;               // by key hash
  std::vector<Candidate> candidates_;                         // intact
  std::vector<Reference> references_;
  std::vector<bool> covered_;                                                    // pages of intact records
  std::unordered_map<std::uint64_t, std::vector<std::string_view>> tokenizers_;  // texts, by number
  std::unordered_map<std::uint64_t, std::string_view> literals_;                 // by hash
  std::vector<Bytes> entry_chunks_;
  std::vector<StampChunk> stamp_chunks_;
};

}  // namespace

Remains find_remains(Bytes file) { return Search(file).run(); }

}  // namespace tokcask
