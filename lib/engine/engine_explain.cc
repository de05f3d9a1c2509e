// Why a look-up finds nothing: Engine::explain(), and a run's misses in one line.
#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <ctime>
#include <iterator>
#include <utility>

#include "engine/engine.h"
#include "tables/history.h"

namespace tokcask {

using lmdb::Table;
using rows::Fate;
using rows::MetaKey;
using rows::Tag;

namespace {

constexpr std::array<std::string_view, kMissReasons> kReasonNames = {
    "never stored", "other tokenizer", "other length", "evicted", "pruned", "declined", "cleared", "damaged"};

// What nobody did on purpose to this store.
constexpr std::array kUnexpected = {MissReason::kOtherTokenizer, MissReason::kOtherLength,
                                    MissReason::kEvicted, MissReason::kDeclined, MissReason::kDamaged};

std::string time_text(std::uint64_t ns) {
  if (ns == 0) return "an unknown time";
  return fmt::format("{:%Y-%m-%d %H:%M:%S} UTC", fmt::gmtime(static_cast<std::time_t>(ns / 1'000'000'000)));
}

std::string short_sha(std::string_view sha) {
  constexpr std::size_t kShown = 12;
  return sha.size() <= kShown + 1 ? std::string(sha) : fmt::format("{}…", sha.substr(0, kShown));
}

std::string by_run(std::uint64_t run_id) { return run_id == 0 ? "" : fmt::format(" by run {}", run_id); }

MissReason reason_of(Fate fate) {
  switch (fate) {
    case Fate::kPruned:
      return MissReason::kPruned;
    case Fate::kDeclined:
      return MissReason::kDeclined;
    case Fate::kEvicted:
    case Fate::kLowered:
    case Fate::kNone:
      break;
  }
  return MissReason::kEvicted;
}

// What a store has of one tokenizer.
struct TokenizerFigures {
  std::uint64_t entries = 0;
  std::uint64_t since_ns = 0;  // when the oldest of them was stored; 0: not known
};

TokenizerFigures figures_of(const lmdb::ReadTransaction& transaction, std::string_view sha) {
  const rows::StoreRow store = read_store_row(transaction);
  TokenizerNames names;
  names.refresh(transaction, store.tokenizer_count);
  const std::uint32_t number = names.number(sha);
  TokenizerFigures figures;
  if (number == 0) return figures;
  rows::EntryRow oldest;
  std::uint32_t oldest_slot = 0;
  for_each_entry(transaction, store, [&](std::uint32_t slot, const rows::EntryRow& row) {
    if (row.tokenizer != number) return;
    ++figures.entries;
    if (oldest.tokenizer != 0 && oldest.generation < row.generation) return;
    oldest = row;
    oldest_slot = slot;
  });
  if (oldest.tokenizer != 0) figures.since_ns = created_ns(transaction, oldest_slot, oldest, sha);
  return figures;
}

std::string tokenizer_text(const lmdb::ReadTransaction& transaction, std::string_view sha) {
  const TokenizerFigures figures = figures_of(transaction, sha);
  return fmt::format("tokenizer {} ({} {}, the first of {})", short_sha(sha), figures.entries,
                     figures.entries == 1 ? "entry" : "entries", time_text(figures.since_ns));
}

std::string lengths_text(const std::vector<EntryInfo>& related, std::string_view sha) {
  std::string text;
  for (const EntryInfo& info : related) {
    if (info.key.tokenizer_sha() != sha) continue;
    const bool may_be_cut = info.tokens >= static_cast<std::uint32_t>(info.key.sequence_len());
    fmt::format_to(std::back_inserter(text), "{}{} ({} tokens{})", text.empty() ? "" : ", ",
                   info.key.sequence_len(), info.tokens, may_be_cut ? ", cut or of just that length" : "");
  }
  return text;
}

}  // namespace

std::string_view to_string(MissReason reason) noexcept {
  const auto index = static_cast<std::size_t>(reason);
  return index < kReasonNames.size() ? kReasonNames[index] : "unknown";
}

namespace {

// What is known of a key that is not there.
struct Missing {
  MissReason reason = MissReason::kNeverStored;
  std::string other_tokenizer;  // kOtherTokenizer: one that the section is stored under
  std::uint64_t when_ns = 0;
  std::uint64_t run_id = 0;
};

Missing why_missing(const lmdb::ReadTransaction& transaction, const rows::StoreRow& store,
                    const CacheKey& key, const std::vector<SectionEntries::Entry>& others) {
  if (const auto past = History().find(transaction, store, record::hash_key(key.canonical()));
      past && past->when_ns > store.cleared_ns) {
    return {reason_of(past->fate), {}, past->when_ns, past->run_id};
  }
  for (const SectionEntries::Entry& other : others) {
    if (other.key.tokenizer_sha() == key.tokenizer_sha()) return {MissReason::kOtherLength, {}, 0, 0};
  }
  if (!others.empty()) {
    return {MissReason::kOtherTokenizer, std::string(others.front().key.tokenizer_sha()), 0, 0};
  }
  if (store.cleared_entries > 0) return {MissReason::kCleared, {}, store.cleared_ns, 0};
  return {};
}

std::string missing_text(const lmdb::ReadTransaction& transaction, const rows::StoreRow& store,
                         const CacheKey& key, const Missing& missing, const std::vector<EntryInfo>& related,
                         const TokenizerTraits& traits) {
  switch (missing.reason) {
    case MissReason::kOtherTokenizer:
      return fmt::format("not stored under tokenizer {}; the section is stored under {}",
                         short_sha(key.tokenizer_sha()),
                         tokenizer_text(transaction, missing.other_tokenizer));
    case MissReason::kOtherLength:
      return fmt::format("not stored at sequence length {}; it is at {}{}", key.sequence_len(),
                         lengths_text(related, key.tokenizer_sha()),
                         traits == TokenizerTraits{}
                             ? ", which cannot serve because it is not known how this tokenizer cuts"
                             : ", which cannot serve");
    case MissReason::kEvicted:
      return fmt::format("evicted on {}{}, to keep the file within its budget", time_text(missing.when_ns),
                         by_run(missing.run_id));
    case MissReason::kPruned:
      return fmt::format("pruned on {}{}", time_text(missing.when_ns), by_run(missing.run_id));
    case MissReason::kDeclined:
      return fmt::format(
          "its put on {} was declined{}: the budget of {} bytes was full of entries that were "
          "used as lately; raise max_bytes to keep more",
          time_text(missing.when_ns), missing.run_id == 0 ? "" : fmt::format(" in run {}", missing.run_id),
          store.max_bytes);
    case MissReason::kCleared:
      return fmt::format("not stored since the store was cleared on {} ({} entries then)",
                         time_text(missing.when_ns), store.cleared_entries);
    case MissReason::kDamaged:
    case MissReason::kNeverStored:
      break;
  }
  return "never stored, as far as the history of this store tells";
}

std::string found_text(const EntryInfo& info, std::optional<std::size_t> served) {
  if (!served) {
    return fmt::format("stored on {}: {} tokens, last used on {}", time_text(info.created_ns), info.tokens,
                       time_text(info.last_access_ns));
  }
  return fmt::format(
      "not stored at this length; the first {} ids of the entry of sequence length {} serve, which was "
      "stored "
      "on {}",
      *served, info.key.sequence_len(), time_text(info.created_ns));
}

}  // namespace

Explanation Engine::explain(const CacheKey& key, const Session& session) {
  Explanation explanation;
  // One of its own: this takes a while, and other calls of this thread's place shall not wait.
  const lmdb::ReadTransaction transaction(*environment_);
  const rows::StoreRow store = read_store_row(transaction);
  SectionEntries section(transaction, declared());
  const std::vector<SectionEntries::Entry> others = section.of(key);
  for (const SectionEntries::Entry& other : others) {
    const Found there = look_up(transaction, other.value, other.key);
    if (there.record) explanation.related.push_back(info_of(transaction, other.key, *there.record));
  }
  Found found =
      look_up(transaction, transaction.get(Table::kRecords, record::PaddedKey(key.canonical()).bytes()), key);
  if (!found.record && found.damage == nullptr && session.options.derive_lengths) {
    if (const auto server = section.server_of(key, others)) {
      found = look_up(transaction, server->value, server->key);
      found.served.emplace(server->key, server->length);
    }
  }
  check(found);
  const CacheKey& holder = found.served ? found.served->first : key;
  if (found.record) {
    const EntryInfo info = info_of(transaction, holder, *found.record);
    explanation.found = true;
    explanation.derived = found.served.has_value();
    explanation.when_ns = static_cast<std::int64_t>(info.created_ns);
    explanation.text = found_text(info, found.served ? std::optional(found.served->second) : std::nullopt);
  } else if (found.damage != nullptr) {
    explanation.reason = MissReason::kDamaged;
    explanation.text = fmt::format("the record of {} is damaged ({}); putting it again repairs it",
                                   holder.canonical(), found.damage);
  } else {
    const Missing missing = why_missing(transaction, store, key, others);
    explanation.reason = missing.reason;
    explanation.when_ns = static_cast<std::int64_t>(missing.when_ns);
    explanation.run_id = missing.run_id;
    explanation.text = missing_text(transaction, store, key, missing, explanation.related,
                                    section.traits_of(key.tokenizer_sha()));
  }
  return explanation;
}

void Engine::explain_misses(Session& session) {
  const lmdb::ReadTransaction transaction(*environment_);
  const rows::StoreRow store = read_store_row(transaction);
  History history;
  session.missed.settle([&](const Miss& miss) {
    if (miss.reason == MissReason::kDamaged) return miss.reason;
    const auto past =
        store.history > 0 ? history.find(transaction, store, miss.key_hash, miss.when_ns) : std::nullopt;
    if (past && (past->when_ns > store.cleared_ns || store.cleared_ns > miss.when_ns))
      return reason_of(past->fate);
    const bool cleared = store.cleared_entries > 0 && store.cleared_ns <= miss.when_ns;
    return cleared && miss.reason == MissReason::kNeverStored ? MissReason::kCleared : miss.reason;
  });
}

std::array<std::uint64_t, kMissReasons> Engine::miss_reasons(Session& session) {
  explain_misses(session);
  return session.missed.counts();
}

std::string Engine::miss_summary(Session& session) {
  const auto counts = miss_reasons(session);
  std::uint64_t total = 0;
  for (const std::uint64_t count : counts) total += count;
  const bool unexpected = std::any_of(kUnexpected.begin(), kUnexpected.end(), [&](MissReason reason) {
    return counts[static_cast<std::size_t>(reason)] > 0;
  });
  if (!unexpected) return {};
  std::string text = fmt::format("{}: of {} misses", root_.string(), total);
  const char* separator = ", ";
  std::optional<Missed::Example> example;
  for (std::size_t i = 1; i < kMissReasons; ++i) {
    const auto reason = static_cast<MissReason>(i);
    if (counts[i] == 0) continue;
    const auto one = session.missed.example(reason);
    if (!example) example = one;
    switch (reason) {
      case MissReason::kOtherTokenizer:
        if (one) {
          fmt::format_to(std::back_inserter(text), "{}{} are stored under {}, not under {}", separator,
                         counts[i],
                         tokenizer_text(lmdb::ReadTransaction(*environment_), one->other_tokenizer),
                         short_sha(one->key.tokenizer_sha()));
        }
        break;
      case MissReason::kOtherLength:
        fmt::format_to(std::back_inserter(text),
                       "{}{} are stored at another sequence length that cannot serve", separator, counts[i]);
        break;
      default:
        fmt::format_to(std::back_inserter(text), "{}{} were {}", separator, counts[i], to_string(reason));
        break;
    }
  }
  if (example) fmt::format_to(std::back_inserter(text), "; e.g. {}", example->key.canonical());
  return text;
}

}  // namespace tokcask
