// What runs have done: RunTable's members that read and name it.
#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>

#include "shm/run_rows.h"
#include "shm/run_table.h"

namespace tokcask::shm {

namespace {

using Sha = std::array<std::uint64_t, kShaWords>;

Sha to_words(std::string_view sha) {
  Sha words{};
  std::memcpy(words.data(), sha.data(), std::min(sha.size(), sizeof words));
  return words;
}

std::uint64_t activity_of(const RunFigures& figures, std::uint64_t tokenize_ns) noexcept {
  const std::uint64_t done =
      figures.hits + figures.misses + figures.puts + figures.declined + figures.evicted + tokenize_ns;
  return done == 0 || figures.ended_ns == 0 ? done : done + 1;
}

}  // namespace

void Counters::add(const Counters& other) noexcept {
  constexpr auto kOrder = std::memory_order_relaxed;
  hits.fetch_add(load(other.hits), kOrder);
  misses.fetch_add(load(other.misses), kOrder);
  derived.fetch_add(load(other.derived), kOrder);
  puts.fetch_add(load(other.puts), kOrder);
  declined.fetch_add(load(other.declined), kOrder);
  evicted.fetch_add(load(other.evicted), kOrder);
  tokenize_ns.fetch_add(load(other.tokenize_ns), kOrder);
  const std::uint64_t active = load(other.last_active);
  std::uint64_t seen = load(last_active);
  while (seen < active && !last_active.compare_exchange_weak(seen, active, kOrder)) {
  }
}

void Counters::reset() noexcept {
  for (std::atomic<std::uint64_t>* const word :
       {&hits, &misses, &last_active, &derived, &puts, &declined, &evicted, &tokenize_ns}) {
    set(*word, 0);
  }
}

void Counters::copy_to(RunFigures& figures) const noexcept {
  figures.hits = load(hits);
  figures.misses = load(misses);
  figures.last_active_ns = static_cast<std::int64_t>(load(last_active));
  figures.derived = load(derived);
  figures.puts = load(puts);
  figures.declined = load(declined);
  figures.evicted = load(evicted);
  figures.tokenize_seconds = static_cast<double>(load(tokenize_ns)) / 1e9;
}

bool RunTable::identify(const RunRef& run, std::string_view tokenizer_sha,
                        std::uint32_t sequence_len) noexcept {
  RunRow* const row = find(run);
  if (row == nullptr) return true;
  const Sha words = to_words(tokenizer_sha);
  if ((row->flags.load(std::memory_order_acquire) & kNamed) == 0) {
    std::uint32_t none = 0;
    if (!row->sequence_len.compare_exchange_strong(none, sequence_len)) return false;
    for (std::size_t i = 0; i < kShaWords; ++i) set(row->tokenizer_sha[i], words[i]);
    row->flags.fetch_or(kNamed, std::memory_order_release);
    return true;
  }
  const bool same = row->sequence_len.load(std::memory_order_relaxed) == sequence_len &&
                    std::equal(words.begin(), words.end(), row->tokenizer_sha.begin(),
                               [](std::uint64_t a, const auto& b) { return a == load(b); });
  if (!same) row->flags.fetch_or(kSeveral);
  return true;
}

// Without the counters of its members.
RunTable::Entry RunTable::read(std::size_t at, Names names) const {
  const RunRow& row = runs_[at];
  Entry entry;
  entry.ref = ref_of(at);
  entry.saved = load(row.saved);
  entry.tokenize_ns = load(row.sums.tokenize_ns);
  RunFigures& figures = entry.figures;
  row.sums.copy_to(figures);
  figures.run_id = load(row.id);
  figures.started_ns = static_cast<std::int64_t>(load(row.started));
  figures.ended_ns = static_cast<std::int64_t>(load(row.ended));
  figures.bytes_after = load(row.bytes_after);
  const std::uint32_t flags = row.flags.load(std::memory_order_acquire);
  if (figures.ended_ns != 0) figures.state = (flags & kKilled) != 0 ? RunState::kKilled : RunState::kEnded;
  figures.several_tokenizers = (flags & kSeveral) != 0;
  if ((flags & kNamed) != 0 && names == Names::kYes) {
    Sha words;
    for (std::size_t i = 0; i < kShaWords; ++i) words[i] = load(row.tokenizer_sha[i]);
    const auto* const text = reinterpret_cast<const char*>(words.data());
    figures.tokenizer_sha.assign(text, strnlen(text, sizeof words));
    figures.sequence_len = row.sequence_len.load(std::memory_order_relaxed);
  }
  return entry;
}

void RunTable::add_members(std::span<Entry> entries) const {
  std::array<Entry*, kMaxRuns> by_row{};
  for (Entry& entry : entries) by_row[entry.ref.row] = &entry;
  for (std::size_t i = 0; i < kMaxMembers; ++i) {
    const MemberRow& member = members_[i];
    const auto run = run_of(member);
    Entry* const entry = run ? by_row[run->row] : nullptr;
    if (entry == nullptr || entry->ref != *run) continue;
    RunFigures& sum = entry->figures;
    RunFigures figures;
    member.counters.copy_to(figures);
    sum.hits += figures.hits;
    sum.misses += figures.misses;
    sum.derived += figures.derived;
    sum.puts += figures.puts;
    sum.declined += figures.declined;
    sum.evicted += figures.evicted;
    sum.last_active_ns = std::max(sum.last_active_ns, figures.last_active_ns);
    entry->tokenize_ns += load(member.counters.tokenize_ns);
    entry->own = entry->own || load(member.owner) == self_;
  }
  for (Entry& entry : entries) {
    entry.figures.tokenize_seconds = static_cast<double>(entry.tokenize_ns) / 1e9;
    entry.activity = activity_of(entry.figures, entry.tokenize_ns);
  }
}

std::vector<RunTable::Entry> RunTable::entries() const {
  std::vector<Entry> entries;
  for (std::size_t i = 0; i < kMaxRuns; ++i) {
    if (find(ref_of(i)) == nullptr) continue;
    entries.push_back(read(i, Names::kYes));
    if (find(entries.back().ref) == nullptr) entries.pop_back();  // freed while it was read
  }
  add_members(entries);
  return entries;
}

std::optional<RunTable::Entry> RunTable::entry(const RunRef& run) const { return entry(run, Names::kYes); }

std::optional<RunTable::Entry> RunTable::entry(const RunRef& run, Names names) const {
  if (find(run) == nullptr) return std::nullopt;
  Entry entry = read(run.row, names);
  if (entry.ref != run || find(run) == nullptr) return std::nullopt;
  add_members({&entry, 1});
  return entry;
}

std::uint64_t RunTable::id_of(const RunRef& run) const noexcept {
  const RunRow* const row = find(run);
  return row == nullptr ? 0 : row->id.load(std::memory_order_relaxed);
}

void RunTable::mark_saved(const RunRef& run, std::uint64_t activity, std::uint64_t id,
                          std::uint64_t bytes_after) noexcept {
  RunRow* const row = find(run);
  if (row == nullptr) return;
  row->id.store(id);
  set(row->bytes_after, bytes_after);
  set(row->saved, activity);
  release_if_done(run);
}

}  // namespace tokcask::shm
