// Why a look-up finds nothing: Engine::explain(), and a run's misses in one line.
#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <ctime>
#include <iterator>
#include <utility>

#include "cache/engine.h"

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

Engine::Missing Engine::why_missing(const lmdb::ReadTransaction& transaction, const CacheKey& key,
                                    const std::vector<Relatives::Relative>& relatives) {
  const rows::StoreRow store = read_store_row(transaction);
  if (const auto past = history_.find(transaction, store, record::hash_key(key.canonical()));
      past && past->when_ns > store.cleared_ns) {
    return {reason_of(past->fate), {}, past->when_ns, past->run_id};
  }
  for (const Relatives::Relative& relative : relatives) {
    if (relative.key.tokenizer_sha() == key.tokenizer_sha()) return {MissReason::kOtherLength, {}, 0, 0};
  }
  if (!relatives.empty()) {
    return {MissReason::kOtherTokenizer, std::string(relatives.front().key.tokenizer_sha()), 0, 0};
  }
  if (store.cleared_entries > 0) return {MissReason::kCleared, {}, store.cleared_ns, 0};
  return {};
}

Explanation Engine::explain(const CacheKey& key, const Run& run) {
  Explanation explanation;
  // One of its own: a snapshot that is shared is used under a lock, and this may take a while.
  const lmdb::ReadTransaction transaction(*environment_);
  const rows::StoreRow store = read_store_row(transaction);
  std::vector<Found> found(1);
  Missing missing;
  TokenizerTraits traits;
  {
    const std::lock_guard lock(read_mutex_);
    Relatives relatives(transaction, declared_);
    traits = relatives.traits_of(key.tokenizer_sha());
    for (const Relatives::Relative& relative : relatives.of(key)) {
      const Found other = look_up(transaction, relative.value, relative.key);
      if (other.record) explanation.related.push_back(info_of(transaction, relative.key, *other.record));
    }
    found[0] = look_up(transaction,
                       transaction.get(Table::kRecords, record::PaddedKey(key.canonical()).bytes()), key);
    if (!found[0].record && found[0].damage == nullptr) {
      found[0] = derive(transaction, relatives, key, run.options, missing);
    }
  }
  check(found);
  const Found& f = found[0];
  if (f.record) {
    const CacheKey& holder = f.served ? f.served->first : key;
    EntryInfo info{holder};
    {
      const std::lock_guard lock(read_mutex_);
      info = info_of(transaction, holder, *f.record);
    }
    explanation.found = true;
    explanation.derived = f.served.has_value();
    explanation.when_ns = static_cast<std::int64_t>(info.created_ns);
    explanation.text =
        f.served ? fmt::format(
                       "not stored at this length; the first {} ids of the entry of "
                       "sequence length {} serve, which was stored on {}",
                       f.served->second, holder.sequence_len(), time_text(info.created_ns))
                 : fmt::format("stored on {}: {} tokens, last used on {}", time_text(info.created_ns),
                               info.tokens, time_text(info.last_access_ns));
    return explanation;
  }
  if (f.damage != nullptr) {
    explanation.reason = MissReason::kDamaged;
    explanation.text = fmt::format("the record of {} is damaged ({}); putting it again repairs it",
                                   (f.served ? f.served->first : key).canonical(), f.damage);
    return explanation;
  }
  explanation.reason = missing.reason;
  explanation.when_ns = static_cast<std::int64_t>(missing.when_ns);
  explanation.run_id = missing.run_id;
  explanation.text = missing_text(transaction, store, key, missing, explanation.related, traits);
  return explanation;
}

std::string Engine::missing_text(const lmdb::ReadTransaction& transaction, const rows::StoreRow& store,
                                 const CacheKey& key, const Missing& missing,
                                 const std::vector<EntryInfo>& related, const TokenizerTraits& traits) {
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

std::string Engine::miss_summary(const Run& run) {
  const auto counts = run.missed.counts();
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
    const auto one = run.missed.example(reason);
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
