// The engine's look-ups.
#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "engine/engine.h"
#include "os/clock.h"

namespace tokcask {

using lmdb::Table;
using rows::MetaKey;
using rows::Tag;

namespace {

constexpr std::size_t kMostDamageTold = 4096;

// What a look-up found in the tree: the record's bytes, or whether there are entries of the same section.
struct Sought {
  std::optional<lmdb::Bytes> value;
  bool related = false;
};

// A canonical key begins with the section id, so entries of one section are neighbours.
bool is_related(const std::optional<lmdb::Cursor::Entry>& entry, const CacheKey& key) {
  const std::size_t size = key.section_id().size() + 1;  // and the bar after it
  return entry && entry->key.size() >= size &&
         std::equal(entry->key.begin(), entry->key.begin() + static_cast<std::ptrdiff_t>(size),
                    std::as_bytes(std::span(key.canonical())).begin());
}

// One descent, whatever it finds.
Sought seek(const lmdb::Cursor& records, const CacheKey& key) {
  const record::PaddedKey padded(key.canonical());
  const auto entry = records.seek(padded.bytes());
  if (entry && std::ranges::equal(entry->key, padded.bytes())) return {entry->value, false};
  return {std::nullopt, is_related(entry, key) || is_related(records.previous(), key)};
}

}  // namespace

Reading Engine::read() { return readers_.begin(*this); }

Engine::Found Engine::look_up(const lmdb::ReadTransaction& transaction, std::optional<lmdb::Bytes> value,
                              const CacheKey& key, VerifyPolicy policy) const {
  Found found;
  if (!value) return found;
  found.record = record::decode(*value, record::hash_key(key.canonical()), &found.damage);
  if (!found.record) return found;
  const record::Header& header = found.record->header;
  if (checked_.knows(header) || (policy == VerifyPolicy::kOff && seen_.knows(header))) {
    found.checked = true;
    return found;
  }
  // An intact but older record of the same key would pass every check of its own.
  const auto chunk =
      transaction.get(Table::kMeta, MetaKey(Tag::kEntries, header.slot / rows::kEntriesPerChunk).bytes());
  if (!chunk || !rows::is_current(*chunk, header.slot, header.generation)) {
    found.record.reset();
    found.damage = kNotCurrent;
  }
  return found;
}

void Engine::check(Found& found, VerifyPolicy policy) noexcept {
  if (!found.record || (found.checked && policy != VerifyPolicy::kAlways)) return;
  // By default the one time in this process that a record is read as a whole.
  if (policy == VerifyPolicy::kOff) {
    seen_.remember(found.record->header);
  } else if (record::checksum_ok(*found.record)) {
    checked_.remember(found.record->header);
  } else {
    found.record.reset();
    found.damage = "its checksum is wrong";
  }
}

// The look-ups of one call. What it counted is added to the run at the end, and damage is told then, when the
// snapshot is let go: who is told may call the store.
class Engine::LookUp {
 public:
  LookUp(Engine& engine, Session& session, bool with_tokens) noexcept
      : engine_(&engine), session_(&session), with_tokens_(with_tokens) {}

  // What is pending needs no snapshot, and comes first: what is committed meanwhile is in one of the two.
  std::optional<TokenView> pending(const CacheKey& key) {
    auto view = engine_->committer_.find(key, !session_->options.observe);
    if (view) ++hits_;
    return view;
  }

  void begin() {
    reading_.emplace(engine_->read());
    stamp_ = engine_->access_stamp();
    session_->used(stamp_);
  }
  [[nodiscard]] Sought seek(const CacheKey& key) const { return tokcask::seek(reading_->records(), key); }

  // The view of what was sought, or nothing.
  std::optional<TokenView> settle(const CacheKey& key, const Sought& sought) {
    const VerifyPolicy policy = session_->options.verify;
    Found found = engine_->look_up(reading_->transaction(), sought.value, key, policy);
    if (!sought.value) {
      if (sought.related) found = derive(key);
      if (!found.record && found.damage == nullptr) {
        if (!sought.related) note_miss(MissReason::kNeverStored, key, {});
        return std::nullopt;
      }
    }
    // Who only asks what is there has the records read as well where one is known to be damaged.
    if (with_tokens_ || engine_->access_->damage_known()) engine_->check(found, policy);
    if (!found.record) {
      damage_.emplace_back((found.served ? found.served->first : key).canonical(), found.damage);
      note_miss(MissReason::kDamaged, key, {});
      return std::nullopt;
    }
    if (!session_->options.observe) engine_->access_->touch(found.record->header.slot, stamp_);
    ++hits_;
    if (found.served) ++derived_;
    return view_of(found, reading_->snapshot());
  }

  void fail(const Error& error) { error_ = error; }

  // Of `total` look-ups.
  void end(std::uint64_t total) {
    reading_.reset();
    if (hits_ > 0) session_->hits += hits_;
    if (derived_ > 0) session_->derived += derived_;
    if (hits_ < total) session_->misses += total - hits_;
    for (const auto& [key, reason] : damage_) engine_->report_damage(key, reason);
    if (error_) engine_->report_read_error(*error_);
    if (explain_) engine_->explain_misses(*session_);
  }

 private:
  // An entry of another sequence length, or why there is none.
  Found derive(const CacheKey& key) {
    const lmdb::ReadTransaction& transaction = reading_->transaction();
    SectionEntries section(transaction, engine_->declared());
    const std::vector<SectionEntries::Entry> others = section.of(key);
    if (const auto server =
            session_->options.derive_lengths ? section.server_of(key, others) : std::nullopt) {
      Found found = engine_->look_up(transaction, server->value, server->key, session_->options.verify);
      found.served.emplace(server->key, server->length);
      return found;
    }
    const auto is_same = [&](const SectionEntries::Entry& other) {
      return other.key.tokenizer_sha() == key.tokenizer_sha();
    };
    if (others.empty()) {
      note_miss(MissReason::kNeverStored, key, {});
    } else if (std::any_of(others.begin(), others.end(), is_same)) {
      note_miss(MissReason::kOtherLength, key, {});
    } else {
      note_miss(MissReason::kOtherTokenizer, key, others.front().key.tokenizer_sha());
    }
    return {};
  }
  void note_miss(MissReason reason, const CacheKey& key, std::string_view other_tokenizer) {
    if (session_->missed.add(reason, key, stamp_, other_tokenizer)) explain_ = true;
  }

  Engine* engine_;
  Session* session_;
  bool with_tokens_;
  std::optional<Reading> reading_;
  std::uint64_t stamp_ = 0;
  std::uint64_t hits_ = 0;
  std::uint64_t derived_ = 0;
  bool explain_ = false;  // the misses
  std::vector<std::pair<std::string, const char*>> damage_;
  std::optional<Error> error_;
};

TokenView Engine::view_of(const Found& found, const std::shared_ptr<const void>& owner) {
  Tokens tokens = found.record->tokens();
  if (found.served) {
    tokens.input_ids = tokens.input_ids.first(found.served->second);
    if (!tokens.attention_mask.empty())
      tokens.attention_mask = tokens.attention_mask.first(found.served->second);
  }
  return tokcask::view_of(tokens, owner);
}

std::uint64_t Engine::access_stamp() noexcept {
  const std::uint64_t now = os::now_ns();
  return now > access_->newest_stamp() ? now : access_->next_stamp();
}

std::optional<TokenView> Engine::get(const CacheKey& key, Session& session) {
  session.note(key);
  LookUp look_up(*this, session, true);
  std::optional<TokenView> view = look_up.pending(key);
  if (!view) {
    try {
      look_up.begin();
      view = look_up.settle(key, look_up.seek(key));
    } catch (const Error& error) {
      look_up.fail(error);
    }
  }
  look_up.end(1);
  return view;
}

std::vector<std::optional<TokenView>> Engine::get_many(std::span<const CacheKey> keys, Session& session) {
  std::vector<std::optional<TokenView>> views(keys.size());
  look_up_many(keys, true, session, [&](std::size_t i, TokenView view) { views[i] = std::move(view); });
  return views;
}

std::vector<bool> Engine::contains_many(std::span<const CacheKey> keys, Session& session) {
  std::vector<bool> found(keys.size());
  look_up_many(keys, false, session, [&](std::size_t i, const TokenView&) { found[i] = true; });
  return found;
}

void Engine::look_up_many(std::span<const CacheKey> keys, bool with_tokens, Session& session,
                          const Hit& hit) {
  LookUp look_up(*this, session, with_tokens);
  std::vector<std::size_t> order;
  order.reserve(keys.size());
  for (std::size_t i = 0; i < keys.size(); ++i) {
    session.note(keys[i]);
    if (auto view = look_up.pending(keys[i])) {
      hit(i, *std::move(view));
    } else {
      order.push_back(i);
    }
  }
  if (!order.empty()) {
    // In key order, neighbours share pages.
    std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return keys[a] < keys[b]; });
    try {
      look_up.begin();
      // All descents first: the waits for the records' first lines overlap.
      std::vector<Sought> sought(order.size());
      for (std::size_t i = 0; i < order.size(); ++i) {
        sought[i] = look_up.seek(keys[order[i]]);
        if (sought[i].value) __builtin_prefetch(sought[i].value->data());
      }
      for (std::size_t i = 0; i < order.size(); ++i) {
        if (auto view = look_up.settle(keys[order[i]], sought[i])) hit(order[i], *std::move(view));
      }
    } catch (const Error& error) {
      look_up.fail(error);
    }
  }
  look_up.end(keys.size());
}

bool Engine::raise_last_access(const CacheKey& key, std::uint64_t last_access_ns) {
  const Reading reading = read();
  const Found found = look_up(reading.transaction(), seek(reading.records(), key).value, key);
  if (!found.record) return false;
  access_->touch(found.record->header.slot, std::min(last_access_ns, access_->next_stamp()));
  committer_.note_raised();
  return true;
}

// ---- Messages ----

void Engine::report_damage(std::string_view key, const char* reason) {
  access_->note_damage(true);
  {
    const std::lock_guard lock(told_mutex_);
    if (damage_told_.size() >= kMostDamageTold || !damage_told_.insert(record::hash_key(key)).second) return;
  }
  message(Severity::kWarning,
          fmt::format("{}: the record of {} is damaged ({}); it counts as a miss, and putting it "
                      "again repairs it",
                      root_.string(), key, reason));
}

void Engine::report_read_error(const Error& error) {
  if (read_error_told_.exchange(true)) return;
  message(Severity::kWarning, fmt::format("{}; what cannot be read counts as a miss", error.what()));
}

}  // namespace tokcask
