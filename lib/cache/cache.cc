// TokenizedCache: checks arguments and hands each call to the engine.
#include <tokcask/cache.h>

#include <fmt/format.h>

#include <utility>

#include "cache/handle.h"

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
  if (tokens.input_ids.size() > record::kMaxTokens) {
    throw Error(Errc::kInvalidArgument,
                fmt::format("{}: {} tokens; an entry holds at most {}", key.canonical(),
                            tokens.input_ids.size(), record::kMaxTokens));
  }
}

}  // namespace

TokenizedCache TokenizedCache::open(const std::filesystem::path& root, Options options) {
  if (root.empty()) throw Error(Errc::kInvalidArgument, "the path of the store is empty");
  if (options.max_bytes < Options::kMinMaxBytes) {
    throw Error(Errc::kInvalidArgument, fmt::format("max_bytes is {}; it must be at least {}",
                                                    options.max_bytes, Options::kMinMaxBytes));
  }
  return TokenizedCache(std::make_unique<Impl>(root, std::move(options)));
}

TokenizedCache::TokenizedCache(std::unique_ptr<Impl> impl) noexcept : impl_(std::move(impl)) {}
TokenizedCache::TokenizedCache(TokenizedCache&&) noexcept = default;
TokenizedCache& TokenizedCache::operator=(TokenizedCache&&) noexcept = default;
TokenizedCache::~TokenizedCache() = default;

std::optional<TokenView> TokenizedCache::get(const CacheKey& key) {
  const auto lease = impl_->lease();
  return lease->get(key, *lease.run());
}

std::vector<std::optional<TokenView>> TokenizedCache::get_many(std::span<const CacheKey> keys) {
  const auto lease = impl_->lease();
  return lease->get_many(keys, *lease.run());
}

std::vector<bool> TokenizedCache::contains_many(std::span<const CacheKey> keys) {
  const auto lease = impl_->lease();
  return lease->contains_many(keys, *lease.run());
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
  lease->put(key, tokens, options, lease.run());
}

bool TokenizedCache::raise_last_access(const CacheKey& key, std::uint64_t last_access_ns) {
  const auto lease = impl_->writing_lease();
  return lease->raise_last_access(key, last_access_ns, *lease.run());
}

void TokenizedCache::put_many(std::span<const std::pair<CacheKey, Tokens>> entries) {
  for (const auto& [key, tokens] : entries) check_tokens(key, tokens);
  const auto lease = impl_->writing_lease();
  for (const auto& [key, tokens] : entries) lease->put(key, tokens, {}, lease.run());
}

void TokenizedCache::flush() {
  const auto lease = impl_->lease();
  if (!lease.run()->options.read_only) lease->flush();
}

void TokenizedCache::close() { impl_->close(); }

std::uint64_t TokenizedCache::prune(std::chrono::nanoseconds age) {
  return impl_->writing_lease()->prune(age);
}

std::uint64_t TokenizedCache::clear() { return impl_->writing_lease()->clear(); }

VerifyReport TokenizedCache::verify() { return impl_->lease()->verify(); }

void TokenizedCache::save_manifest(std::string_view tokenizer_sha) {
  if (tokenizer_sha.size() > sizeof(rows::StoreRow::tokenizer_sha)) {
    throw Error(Errc::kInvalidArgument,
                fmt::format("tokenizer_sha has {} characters; at most {} can be kept", tokenizer_sha.size(),
                            sizeof(rows::StoreRow::tokenizer_sha)));
  }
  impl_->writing_lease()->save_manifest(tokenizer_sha);
}

Stats TokenizedCache::stats() {
  const auto lease = impl_->lease();
  return lease->stats(*lease.run());
}

StoreSurvey TokenizedCache::survey() { return impl_->lease()->survey(); }

void TokenizedCache::add_tokenize_seconds(double seconds) {
  const auto lease = impl_->lease();
  lease.run()->tokenize_ns += static_cast<std::int64_t>(seconds * 1e9);
}

const std::filesystem::path& TokenizedCache::root() const noexcept { return impl_->root(); }

std::optional<SourceDirectory> TokenizedCache::source_directory(std::string_view path) {
  return impl_->lease()->source_directory(path);
}

void TokenizedCache::put_source_directory(std::string_view path, const SourceDirectory& files) {
  impl_->writing_lease()->put_source_directory(path, files);
}

std::optional<std::string> TokenizedCache::tokenizer_of_file(std::string_view path,
                                                             const FileIdentity& identity) {
  return impl_->lease()->tokenizer_of_file(path, identity);
}

void TokenizedCache::remember_tokenizer_file(std::string_view path, const FileIdentity& identity,
                                             std::string_view tokenizer_sha) {
  impl_->writing_lease()->put_tokenizer_file(path, identity, tokenizer_sha);
}

}  // namespace tokcask
