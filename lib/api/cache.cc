// TokenizedCache: checks arguments and hands each call to the engine.
#include <tokcask/cache.h>

#include <fmt/format.h>

#include <utility>

#include "api/handle.h"
#include "tables/check.h"

namespace tokcask {

class TokenizedCache::Impl : public Handle {
 public:
  using Handle::Handle;
};

namespace {

void check_tokens(const CacheKey& key, const Tokens& tokens) {
  if (!tokens.attention_mask.empty() && tokens.attention_mask.size() != tokens.input_ids.size()) {
    throw Error(Errc::kInvalidArgument,
                fmt::format("{}: attention_mask has {} elements and input_ids {}; they must be equally many",
                            key.canonical(), tokens.attention_mask.size(), tokens.input_ids.size()));
  }
  if (tokens.input_ids.size() > static_cast<std::size_t>(key.sequence_len())) {
    throw Error(Errc::kInvalidArgument,
                fmt::format("{}: {} tokens for a key of sequence_len {}; cut them, or make the key with the "
                            "length that they were cut at",
                            key.canonical(), tokens.input_ids.size(), key.sequence_len()));
  }
  if (tokens.input_ids.size() > record::kMaxTokens) {
    throw Error(Errc::kInvalidArgument,
                fmt::format("{}: {} tokens; an entry holds at most {}", key.canonical(),
                            tokens.input_ids.size(), record::kMaxTokens));
  }
  if (const std::size_t least = tokens.parts.least_tokens(); least > tokens.input_ids.size()) {
    throw Error(Errc::kInvalidArgument, fmt::format("{}: a span of its parts ends at {}, beyond its {} ids",
                                                    key.canonical(), least, tokens.input_ids.size()));
  }
}

void check_prune(const PruneOptions& options) {
  if (!options.older_than && !options.tokenizer_sha && !options.sequence_len && !options.keep_last_runs) {
    throw Error(Errc::kInvalidArgument,
                "nothing says which entries to remove; give an age, a tokenizer, a sequence length or "
                "the number of runs to keep");
  }
  if (options.sequence_len && *options.sequence_len < 1) {
    throw Error(Errc::kInvalidArgument,
                fmt::format("sequence_len is {}; it must be at least 1", *options.sequence_len));
  }
  if (options.keep_last_runs && *options.keep_last_runs == 0) {
    throw Error(Errc::kInvalidArgument,
                "keep_last_runs is 0; it must be at least 1, and clear() removes every entry");
  }
}

}  // namespace

TokenizedCache TokenizedCache::open(const std::filesystem::path& root, Options options) {
  if (root.empty()) throw Error(Errc::kInvalidArgument, "the path of the store is empty");
  if (options.max_bytes && *options.max_bytes < Options::kMinMaxBytes) {
    throw Error(Errc::kInvalidArgument, fmt::format("max_bytes is {}; it must be at least {}",
                                                    *options.max_bytes, Options::kMinMaxBytes));
  }
  if (options.max_bytes && *options.max_bytes > Options::kMaxMaxBytes) {
    throw Error(
        Errc::kInvalidArgument,
        fmt::format("max_bytes is {}; it must be at most {} (1 TiB), which is what can be mapped. Was it "
                    "counted in an int? 10 GiB are std::uint64_t{{10}} << 30",
                    *options.max_bytes, Options::kMaxMaxBytes));
  }
  if (options.observe) options.read_only = true;
  return TokenizedCache(std::make_unique<Impl>(root, std::move(options)));
}

TokenizedCache::TokenizedCache(std::unique_ptr<Impl> impl) noexcept : impl_(std::move(impl)) {}
TokenizedCache::TokenizedCache(TokenizedCache&&) noexcept = default;
TokenizedCache& TokenizedCache::operator=(TokenizedCache&&) noexcept = default;
TokenizedCache::~TokenizedCache() = default;

FoundTokens TokenizedCache::get(const CacheKey& key) {
  const auto lease = impl_->lease();
  return lease->get(key, *lease.session());
}

std::vector<std::optional<TokenView>> TokenizedCache::get_many(std::span<const CacheKey> keys) {
  const auto lease = impl_->lease();
  return lease->get_many(keys, *lease.session());
}

std::vector<bool> TokenizedCache::contains_many(std::span<const CacheKey> keys) {
  const auto lease = impl_->lease();
  return lease->contains_many(keys, *lease.session());
}

std::vector<CacheKey> TokenizedCache::keys(std::optional<std::string_view> tokenizer_sha,
                                           std::optional<std::int32_t> sequence_len) {
  return impl_->lease()->keys(tokenizer_sha, sequence_len);
}

EntryChunk TokenizedCache::entries(EntryPosition& position, const ChunkLimits& limits) {
  return impl_->lease()->entries(position, limits);
}

std::vector<std::optional<Entry>> TokenizedCache::peek_many(std::span<const CacheKey> keys) {
  return impl_->lease()->peek_many(keys);
}

void TokenizedCache::put(const CacheKey& key, const Tokens& tokens, const PutOptions& options) {
  check_tokens(key, tokens);
  const auto lease = impl_->writing_lease();
  lease->committer().put(key, tokens, options, lease.session(), Committer::Room::kWait);
}

bool TokenizedCache::try_put(const CacheKey& key, const Tokens& tokens) {
  check_tokens(key, tokens);
  const auto lease = impl_->writing_lease();
  Committer& committer = lease->committer();
  // Asked before the tokens are copied.
  if (committer.has_room(tokens, impl_->options()) &&
      committer.put(key, tokens, {}, lease.session(), Committer::Room::kNow)) {
    return true;
  }
  lease.session()->not_taken.fetch_add(1, std::memory_order_relaxed);
  return false;
}

bool TokenizedCache::raise_last_access(const CacheKey& key, std::uint64_t last_access_ns) {
  return impl_->writing_lease()->raise_last_access(key, last_access_ns);
}

void TokenizedCache::put_many(std::span<const std::pair<CacheKey, Tokens>> entries) {
  for (const auto& [key, tokens] : entries) check_tokens(key, tokens);
  const auto lease = impl_->writing_lease();
  for (const auto& [key, tokens] : entries)
    lease->committer().put(key, tokens, {}, lease.session(), Committer::Room::kWait);
}

void TokenizedCache::flush() {
  if (impl_->options().read_only) {
    static_cast<void>(impl_->lease());  // closed?
    return;
  }
  impl_->writing_lease()->committer().flush();
}

void TokenizedCache::close() {
  if (impl_) impl_->close();
}

void TokenizedCache::declare_tokenizer(std::string_view tokenizer_sha, const TokenizerTraits& traits) {
  const CacheKey rules("-", tokenizer_sha, 1);  // a sha's are those of a key's
  impl_->lease()->declare_tokenizer(rules.tokenizer_sha(), traits, impl_->options().read_only);
}

Explanation TokenizedCache::explain(const CacheKey& key) {
  const auto lease = impl_->lease();
  return lease->explain(key, *lease.session());
}

std::array<std::uint64_t, kMissReasons> TokenizedCache::miss_reasons() {
  const auto lease = impl_->lease();
  return lease->miss_reasons(*lease.session());
}

std::string TokenizedCache::miss_summary() {
  const auto lease = impl_->lease();
  return lease->miss_summary(*lease.session());
}

PruneReport TokenizedCache::prune(const PruneOptions& options) {
  check_prune(options);
  PruneReport report;
  if (options.dry_run) {
    impl_->lease()->committer().prune(options, report);
    return report;
  }
  impl_->writing_lease()->committer().prune(options, report);
  return report;
}

std::uint64_t TokenizedCache::prune(std::chrono::nanoseconds age) {
  return prune(PruneOptions{.older_than = age}).removed;
}

std::uint64_t TokenizedCache::clear() {
  const std::uint64_t removed = impl_->writing_lease()->committer().clear();
  try {
    impl_->alone("compacted", [&](Engine& engine) { engine.committer().compact(); });
  } catch (const Error& error) {
    // Others have it open, or there is no room: the file keeps its size.
    if (error.code() != Errc::kBusy && error.code() != Errc::kIo) throw;
  }
  return removed;
}

CompactReport TokenizedCache::compact() {
  CompactReport report;
  impl_->alone("compacted", [&](Engine& engine) { report = engine.committer().compact(); });
  return report;
}

CopyReport TokenizedCache::copy(const std::filesystem::path& to) {
  if (to.empty()) throw Error(Errc::kInvalidArgument, "the path of the copy is empty");
  const auto lease = impl_->lease();
  if (!impl_->options().read_only) lease->committer().flush();
  return lease->copy(to, impl_->options());
}

std::vector<std::string> TokenizedCache::tokenizers() { return impl_->lease()->tokenizers(); }

VerifyReport TokenizedCache::verify(const VerifyOptions& options) {
  VerifyReport report = impl_->lease()->verify();
  impl_->lease()->access().note_damage(report.damaged != 0);
  if (!options.repair || is_clean(report)) return report;
  impl_->alone("repaired", [&](Engine& engine) { engine.committer().repair(report); });
  report.repaired = is_clean(impl_->lease()->verify());
  return report;
}

void TokenizedCache::save_manifest(std::string_view tokenizer_sha) {
  if (tokenizer_sha.size() > sizeof(rows::StoreRow::tokenizer_sha)) {
    throw Error(Errc::kInvalidArgument,
                fmt::format("tokenizer_sha has {} characters; at most {} can be kept", tokenizer_sha.size(),
                            sizeof(rows::StoreRow::tokenizer_sha)));
  }
  const auto lease = impl_->writing_lease();
  if (!tokenizer_sha.empty()) lease->committer().put_tokenizer_sha(tokenizer_sha);
  lease->committer().flush();
}

Stats TokenizedCache::stats() {
  const auto lease = impl_->lease();
  return lease->stats(*lease.session());
}

std::vector<RunFigures> TokenizedCache::runs() { return impl_->lease()->runs(); }

std::uint64_t TokenizedCache::run_id() { return impl_->lease().session()->run_id(); }
StoreSurvey TokenizedCache::survey() { return impl_->lease()->survey(); }

void TokenizedCache::add_tokenize_seconds(double seconds) {
  const auto lease = impl_->lease();
  if (seconds > 0) lease.session()->tokenize_ns += static_cast<std::uint64_t>(seconds * 1e9);
}

const std::filesystem::path& TokenizedCache::root() const { return impl_->root(); }

std::optional<SourceDirectory> TokenizedCache::source_directory(std::string_view path) {
  return impl_->lease()->source_directory(path);
}

std::vector<std::string> TokenizedCache::source_directories() { return impl_->lease()->source_directories(); }

void TokenizedCache::put_source_directory(std::string_view path, const SourceDirectory& files) {
  impl_->writing_lease()->committer().put_source_directory(path, files);
}

std::optional<std::string> TokenizedCache::tokenizer_of_file(std::string_view path,
                                                             const FileIdentity& identity) {
  return impl_->lease()->tokenizer_of_file(path, identity);
}

void TokenizedCache::remember_tokenizer_file(std::string_view path, const FileIdentity& identity,
                                             std::string_view tokenizer_sha) {
  impl_->writing_lease()->committer().put_tokenizer_file(path, identity, tokenizer_sha);
}

}  // namespace tokcask
