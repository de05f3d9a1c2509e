#include "script.h"

#include <tokcask/dataset.h>

#include <array>
#include <atomic>
#include <new>
#include <utility>

#include "calls.h"

namespace tokcask::test {

namespace {

using std::chrono::milliseconds;

// Of every kind: inside leaves, in one page of its own, in several, in none.
constexpr std::array<std::size_t, 11> kLengths = {3, 1, 7, 100, 470, 490, 600, 1100, 2500, 5000, 40};
constexpr std::uint64_t kCap = 640 * 1024;
constexpr int kSecondTokenizer = 24;  // the first key of it
constexpr int kLarge = 40;            // the first of those that do not fit together

std::size_t length_of(int number, int version) {
  if (number >= kLarge) return 3500;
  return kLengths[static_cast<std::size_t>(number + 3 * version) % kLengths.size()];
}

Ids ids_of(int number, int version) {
  return ids(static_cast<std::uint64_t>(number * 10 + version), length_of(number, version));
}

// Masks of some keys are not all ones.
Ids mask_of(int number, int version) {
  Ids mask;
  if (number % 5 != 2) return mask;
  mask.assign(length_of(number, version), 1);
  mask.front() = 0;
  return mask;
}

bool is_same(std::span<const std::int32_t> a, const Ids& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end());
}

// A sink that needs no memory: it is called while allocations fail.
MessageSink no_sink() {
  return [](Severity, std::string_view) {};
}

}  // namespace

CacheKey Script::key_of(int number) {
  const bool second = number >= kSecondTokenizer && number < kLarge;
  return key(static_cast<std::uint64_t>(number), second ? 1 : 0);
}

std::optional<int> Script::version_of(int number, const TokenView& view) {
  for (int version = 1; version < 5; ++version) {
    if (!is_same(view.input_ids(), ids_of(number, version))) continue;
    const Ids mask = mask_of(number, version);
    if (mask.empty() ? view.mask_is_all_ones() : is_same(view.attention_mask(), mask)) return version;
  }
  return std::nullopt;
}

// ---- One call ----

bool Script::attempt(const char* what, const std::function<void()>& act) {
  step_ = what;
  try {
    const Inside inside;
    act();
    return true;
  } catch (const Error&) {
    ++errors_;
  } catch (const std::bad_alloc&) {
    ++out_of_memory_;
  } catch (const std::exception& error) {
    violation(std::string("it threw something else: ") + error.what());
  }
  return false;
}

void Script::violation(const std::string& text) { violations_.push_back(std::string(step_) + ": " + text); }

void Script::tell_durable() const {
  if (durable_) durable_();
}

bool Script::ends(const char* step) {
  step_ = step;
  return stop_ && stop_();
}

void Script::open(Options options) {
  options.on_message = no_sink();
  options.lock_timeout = milliseconds(2000);
  options.batch_age = std::chrono::hours(1);
  writing_ = !options.read_only;
  if (options.max_bytes) {
    at_cap_ = true;
    all_may_go();
  }
  // Twice: what failed once is to succeed then.
  for (int i = 0; i < 2 && !cache_; ++i)
    attempt("open", [&] { cache_.emplace(TokenizedCache::open(root_, options)); });
  tell_durable();
}

void Script::close() {
  if (cache_) {
    if (!attempt("close", [&] { cache_->close(); })) {
      // What was pending may be lost.
      for (auto& [number, held] : held_) {
        if (std::exchange(held.unsure, false)) held.newest = kUnknown;
      }
    }
    if (disk_full_) {
      for (auto& [number, held] : held_) held.newest = kUnknown;
    }
    attempt("destroy", [&] { cache_.reset(); });
    tell_durable();
  }
  cache_.reset();
}

std::optional<std::string> Script::flush() {
  if (!cache_ || !writing_) return std::nullopt;
  if (at_cap_) all_may_go();
  std::optional<std::string> failure;
  const bool done = attempt("flush", [&] {
    try {
      cache_->flush();
    } catch (const std::exception& error) {
      failure = error.what();
      throw;
    }
  });
  if (!done) return failure.value_or("");
  for (auto& [number, held] : held_) {
    if (!std::exchange(held.unsure, false)) continue;
    if (disk_full_) {
      held.newest = kUnknown;
    } else {
      held.possible = {held.newest};
    }
  }
  if (at_cap_) all_may_go();
  tell_durable();
  return std::nullopt;
}

void Script::put(int number, int version) {
  if (!cache_) return;
  const CacheKey key = key_of(number);
  const Ids tokens = ids_of(number, version);
  const Ids mask = mask_of(number, version);
  if (!attempt("put", [&] { cache_->put(key, {.input_ids = tokens, .attention_mask = mask}); })) return;
  Held& held = held_[number];
  if (held.possible.empty()) held.possible = {0};
  held.newest = version;
  held.possible.insert(version);
  held.unsure = true;
}

void Script::put_range(int from, int to, int version) {
  for (int number = from; number < to; ++number) put(number, version);
}

void Script::all_may_go() {
  for (auto& [number, held] : held_) held.possible.insert(0);
}

// ---- Reading ----

void Script::look_at(int number, const std::optional<TokenView>& view) {
  if (!view) return;
  const auto found = version_of(number, *view);
  if (!found) {
    violation("wrong tokens under key " + std::to_string(number));
    return;
  }
  const auto held = held_.find(number);
  const bool right =
      held != held_.end() && (held->second.newest == kUnknown ? held->second.possible.contains(*found)
                                                              : held->second.newest == *found);
  if (!right) {
    violation("old tokens under key " + std::to_string(number) + ", of version " + std::to_string(*found));
  }
}

void Script::read_all() {
  if (!cache_) return;
  std::vector<CacheKey> keys;
  for (int number = 0; number < kKeys; ++number) keys.push_back(key_of(number));
  std::vector<std::optional<TokenView>> views;
  attempt("get", [&] {
    for (int number = 0; number < 4; ++number)
      look_at(number, cache_->get(keys[static_cast<std::size_t>(number)]));
  });
  attempt("get_many", [&] { views = cache_->get_many(keys); });
  for (std::size_t i = 0; i < views.size(); ++i) look_at(static_cast<int>(i), views[i]);
}

// What reads, once each.
void Script::use_everything() {
  if (!cache_) return;
  std::vector<CacheKey> keys;
  for (int number = 0; number < kKeys; ++number) keys.push_back(key_of(number));
  attempt("contains_many", [&] { static_cast<void>(cache_->contains_many(keys)); });
  attempt("entries", [&] {
    for (EntryPosition at;;) {
      if (cache_->entries(at, {.entries = 10}).end) break;
    }
  });
  attempt("peek_many", [&] { static_cast<void>(cache_->peek_many(keys)); });
  attempt("keys", [&] { static_cast<void>(cache_->keys()); });
  attempt("tokenizers", [&] { static_cast<void>(cache_->tokenizers()); });
  attempt("explain", [&] { static_cast<void>(cache_->explain(keys.back())); });
  attempt("miss_summary", [&] { static_cast<void>(cache_->miss_summary()); });
  attempt("stats", [&] { static_cast<void>(cache_->stats()); });
  attempt("runs", [&] { static_cast<void>(cache_->runs()); });
  attempt("survey", [&] { static_cast<void>(cache_->survey()); });
  attempt("source_directory", [&] { static_cast<void>(cache_->source_directory("/corpus")); });
  // Fewer records than there are would be told as damage of the structure.
  attempt("verify", [&] { static_cast<void>(cache_->verify()); });
}

void Script::use_dataset() {
  std::vector<CacheKey> keys;
  for (int number = 0; number < kSecondTokenizer; ++number) keys.push_back(key_of(number));
  std::optional<TokenDataset> dataset;
  attempt("open a data set", [&] {
    dataset.emplace(
        TokenDataset::open(root_, keys, {.missing = MissingKeys::kKeep, .on_message = no_sink()}));
  });
  if (!dataset) return;
  std::vector<std::optional<TokenView>> views(keys.size());
  attempt("get an item", [&] {
    for (std::size_t i = 0; i < keys.size(); ++i) views[i] = dataset->get(i);
  });
  for (std::size_t i = 0; i < views.size(); ++i) {
    // Puts that are pending are another handle's.
    if (views[i] && !version_of(static_cast<int>(i), *views[i]))
      violation("wrong tokens in item " + std::to_string(i));
  }
  attempt("destroy a data set", [&] { dataset.reset(); });
}

// ---- Removing ----

void Script::prune_second_tokenizer() {
  if (!cache_) return;
  const PruneOptions options{.tokenizer_sha = sha(1)};
  for (int number = kSecondTokenizer; number < kLarge; ++number) {
    if (held_.contains(number)) held_[number].possible.insert(0);
  }
  if (!attempt("prune", [&] { static_cast<void>(cache_->prune(options)); })) return;
  for (auto& [number, held] : held_) {
    if (number >= kSecondTokenizer && number < kLarge) {
      held = Held{0, {0}, false};
    } else if (std::exchange(held.unsure, false) && !disk_full_) {
      held.possible = {held.newest};  // it flushes first
    }
  }
  if (at_cap_) all_may_go();
  tell_durable();
}

void Script::clear() {
  if (!cache_) return;
  all_may_go();
  if (!attempt("clear", [&] { static_cast<void>(cache_->clear()); })) return;
  for (auto& [number, held] : held_) held = Held{0, {0}, false};
  tell_durable();
}

// ---- The steps ----

void Script::run(const std::function<bool()>& stop) {
  stop_ = stop;
  open({});
  if (ends("opened")) return;

  if (cache_) {
    attempt("declare_tokenizer", [&] { cache_->declare_tokenizer(sha(0), {}); });
    const SourceDirectory files{{.name = "a file", .identity = {1, 2, 3, 4}}};
    attempt("put_source_directory", [&] { cache_->put_source_directory("/corpus", files); });
    attempt("remember_tokenizer_file",
            [&] { cache_->remember_tokenizer_file("/tokenizer.json", {5, 6, 7, 8}, sha(0)); });
  }
  put_range(0, 16, 1);
  flush();
  if (ends("filled")) return;
  put_range(16, kLarge, 1);
  read_all();
  flush();
  read_all();
  if (ends("filled more")) return;
  put_range(0, 8, 2);
  put_range(30, 33, 2);
  flush();
  read_all();
  if (ends("replaced")) return;
  if (cache_) attempt("save_manifest", [&] { cache_->save_manifest(sha(0)); });
  use_everything();
  use_dataset();
  if (ends("read")) return;
  prune_second_tokenizer();
  read_all();
  if (ends("pruned")) return;
  put(8, 3);
  flush();
  if (cache_) attempt("compact", [&] { static_cast<void>(cache_->compact()); });
  read_all();
  if (ends("compacted")) return;
  put_range(kLarge, kLarge + 30, 1);
  flush();
  close();
  if (ends("closed")) return;

  // Larger than its cap: it is made smaller.
  open({.max_bytes = kCap, .shrink = true});
  read_all();
  if (ends("lowered")) return;
  put_range(kLarge + 30, kKeys, 1);
  flush();
  close();
  open({.max_bytes = kCap});
  if (ends("opened again")) return;
  // What was used before this run has to go.
  put_range(kLarge, kLarge + 20, 2);
  flush();
  put_range(0, 12, 4);
  flush();
  read_all();
  if (ends("evicted")) return;
  close();
  open({.read_only = true});
  read_all();
  close();
  if (ends("read only")) return;

  open({.max_bytes = kCap});
  clear();
  put_range(0, 4, 3);
  flush();
  read_all();
  if (ends("cleared")) return;
  close();
  static_cast<void>(ends("ended"));
}

// ---- Afterwards ----

Script::Content Script::content() {
  Content content;
  auto cache = TokenizedCache::open(root_, {.observe = true, .on_message = no_sink()});
  std::vector<CacheKey> keys;
  for (int number = 0; number < kKeys; ++number) keys.push_back(key_of(number));
  const auto entries = cache.peek_many(keys);
  for (std::size_t i = 0; i < entries.size(); ++i) {
    if (entries[i])
      content[static_cast<int>(i)] = version_of(static_cast<int>(i), entries[i]->view).value_or(-1);
  }
  return content;
}

void Script::check_store() {
  step_ = "afterwards";
  Messages messages;
  try {
    {
      auto cache = TokenizedCache::open(root_, {.on_message = messages.sink()});
      const VerifyReport report = cache.verify();
      for (const Damage& damage : report.findings) violation("verify: " + damage.key + ": " + damage.reason);
      if (report.damaged != 0 || !report.structure_ok) violation("verify finds damage");
      if (report.records != cache.stats().entry_count) violation("records and entry_count differ");
      for (int number = 0; number < kKeys; ++number) {
        const auto view = cache.get(key_of(number));
        const auto found = view ? version_of(number, *view) : std::optional(0);
        const auto held = held_.find(number);
        const bool right =
            found && (held == held_.end() ? *found == 0 : held->second.possible.contains(*found));
        if (right) continue;
        violation(!found ? "wrong tokens under key " + std::to_string(number)
                  : *found == 0
                      ? "key " + std::to_string(number) + " is lost"
                      : "version " + std::to_string(*found) + " under key " + std::to_string(number));
      }
      const Ids tokens = ids_of(1000, 1);
      cache.put(key(1000), {.input_ids = tokens});
      cache.flush();
      const auto view = cache.get(key(1000));
      // At the cap, what another handle uses may leave no room.
      if (cache.stats().run.declined == 0 && (!view || !is_same(view->input_ids(), tokens)))
        violation("nothing can be put any more");
    }
    for (const char* text : {"set-aside", "damaged", "cannot"}) {
      if (messages.count(text) > 0) violation("it says: " + messages.all().front());
    }
  } catch (const std::exception& error) {
    violation(std::string("it threw: ") + error.what());
  }
}

}  // namespace tokcask::test
