#include "write/bookkeeping.h"

#include <algorithm>

#include "tables/history.h"

namespace tokcask {

using rows::MetaKey;
using rows::Tag;

namespace {

// Runs that may have begun since the newest in the store; an id further ahead is damage.
constexpr std::uint64_t kMostAhead = std::uint64_t{1} << 16;

rows::RunRow row_of(const RunFigures& run, std::uint64_t id, std::uint64_t bytes_after) {
  rows::RunRow row;
  row.run_id = id;
  row.started_ns = run.started_ns;
  row.ended_ns = run.ended_ns;
  row.hits = run.hits;
  row.misses = run.misses;
  row.puts = run.puts;
  row.declined = run.declined;
  row.evicted = run.evicted;
  row.tokenize_seconds = run.tokenize_seconds;
  row.bytes_after = bytes_after;
  row.derived = run.derived;
  row.last_active_ns = run.last_active_ns;
  row.sequence_len = run.sequence_len;
  row.flags = (run.state == RunState::kKilled ? rows::RunRow::kKilled : 0) |
              (run.several_tokenizers ? rows::RunRow::kSeveralTokenizers : 0);
  run.tokenizer_sha.copy(row.tokenizer_sha, sizeof row.tokenizer_sha);
  return row;
}

}  // namespace

Bookkeeping::Bookkeeping(const Batch& batch, shm::AccessTable& access, std::uint64_t max_bytes,
                         std::uint64_t stored_hint_bytes, bool fold, std::vector<rows::HistoryRow>& notes,
                         TakenStamps& stamps)
    : batch_(&batch),
      access_(&access),
      max_bytes_(max_bytes),
      stored_hint_bytes_(stored_hint_bytes),
      notes_(&notes),
      stamps_(&stamps) {
  // How many rows it takes has to be known before: those that have changed, and those that this batch may
  // change.
  for (const shm::RunTable::Entry& entry : access.runs().entries()) {
    if (entry.unsaved() || entry.own) runs_.push_back(entry.ref);
  }
  if (fold) {
    access.take_dirty([&](std::uint64_t chunk, std::span<const std::uint64_t> taken) {
      std::copy(taken.begin(), taken.end(), stamps[chunk].begin());
    });
  }
  for (const auto& [sha, traits] : batch.traits)
    add_hint(MetaKey::of_path(Tag::kTraits, sha), rows::encode_traits(sha, traits));
  for (const auto& [path, file] : batch.tokenizer_files) {
    add_hint(MetaKey::of_path(Tag::kTokenizerFile, path),
             rows::encode_tokenizer_file(path, file.identity, file.sha));
  }
  for (const auto& [path, files] : batch.directories)
    add_hint(MetaKey::of_path(Tag::kDirectory, path), rows::encode_directory(path, files));
}

void Bookkeeping::add_hint(const MetaKey& key, std::vector<std::byte> value) {
  if (hint_bytes_ + value.size() > room::hint_share(max_bytes_)) return;
  hint_bytes_ += value.size();
  hints_.emplace_back(key, std::move(value));
}

bool Bookkeeping::wanted() const {
  return !done_ && (has_hints() || !notes_->empty() || batch_->tokenizer_sha || !stamps_->empty() ||
                    !unsaved_runs().empty());
}

room::Work Bookkeeping::work(std::uint64_t page_bytes, bool with_hints) const {
  room::Work work;
  for (std::size_t i = 0; i < runs_.size(); ++i)
    work.row(MetaKey(Tag::kRun, 0).bytes().size(), sizeof(rows::RunRow), page_bytes);
  work.erased_rows = runs_.size();  // of runs that are too old to be kept
  work.folded = stamps_->size();
  work.notes = notes_->size();
  if (!with_hints) return work;
  for (const auto& [key, value] : hints_) work.row(key.bytes().size(), value.size(), page_bytes);
  return work;
}

void Bookkeeping::apply(Commit& commit, bool with_hints) {
  rows::StoreRow& store = commit.store();
  saved_.clear();
  for (const shm::RunTable::Entry& run : unsaved_runs()) save(commit, run);
  for (const auto& [chunk, stamps] : *stamps_) commit.fold(chunk, stamps);
  store.max_bytes = max_bytes_;
  store.clock_ns = access_->next_stamp();
  if (const auto& sha = batch_->tokenizer_sha) {
    std::fill(std::begin(store.tokenizer_sha), std::end(store.tokenizer_sha), '\0');
    sha->copy(store.tokenizer_sha, sizeof store.tokenizer_sha);
  }
  for (const rows::HistoryRow& note : *notes_) commit.note(note, history_ring(max_bytes_));
  if (!with_hints) return;
  for (const auto& [key, value] : hints_) {
    if (store.hint_bytes + value.size() <= room::hint_share(max_bytes_)) commit.put_hint(key, value);
  }
}

void Bookkeeping::committed() {
  for (const Saved& saved : saved_)
    access_->runs().mark_saved(saved.run, saved.activity, saved.id, saved.bytes_after);
  notes_->clear();
  stamps_->clear();
  done_ = true;
}

std::vector<shm::RunTable::Entry> Bookkeeping::unsaved_runs() const {
  std::vector<shm::RunTable::Entry> unsaved;
  for (const shm::RunRef& run : runs_) {
    auto entry = access_->runs().entry(run);
    if (entry && entry->unsaved()) unsaved.push_back(*std::move(entry));
  }
  return unsaved;
}

// The id of a run, or the next one if it cannot have it: the access table was lost, and another run has been
// given the same.
std::uint64_t Bookkeeping::id_of(Commit& commit, const RunFigures& run) {
  const rows::StoreRow& store = commit.store();
  if (run.run_id <= store.last_run_id + kMostAhead) {
    const auto stored = commit.row<rows::RunRow>(MetaKey(Tag::kRun, run.run_id));
    if (!stored || stored->started_ns == run.started_ns) return run.run_id;
  }
  return store.last_run_id + 1;
}

void Bookkeeping::save(Commit& commit, const shm::RunTable::Entry& entry) {
  rows::StoreRow& store = commit.store();
  const std::uint64_t id = id_of(commit, entry.figures);
  saved_.push_back({entry.ref, entry.activity, id, store.total_bytes});
  const std::uint64_t before = store.last_run_id;
  store.last_run_id = std::max(before, id);
  for (std::uint64_t old = room::minus(before, rows::kRunsKept) + 1;
       old <= std::min(before, room::minus(store.last_run_id, rows::kRunsKept)); ++old) {
    commit.erase_row(MetaKey(Tag::kRun, old));
  }
  if (id + rows::kRunsKept <= store.last_run_id) return;  // older than those that are kept
  commit.put_row(MetaKey(Tag::kRun, id), rows::bytes_of(row_of(entry.figures, id, store.total_bytes)));
}

}  // namespace tokcask
