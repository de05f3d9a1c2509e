// TokenizedCache: a handle. Finds the engine, counts for a run, and reopens both in a forked child.
#include <tokcask/cache.h>

#include <fmt/format.h>

#include <atomic>
#include <mutex>
#include <shared_mutex>
#include <utility>

#include "cache/engine.h"
#include "cache/fork.h"
#include "cache/say.h"

namespace tokcask {

class TokenizedCache::Impl {
 public:
  // What a process has open. Calls hold the mutex shared, close() holds it alone.
  struct Open {
    std::shared_mutex mutex;
    unsigned generation = fork_generation();
    std::shared_ptr<Engine> engine;  // empty once closed
    std::shared_ptr<Run> run;
  };

  // An open engine that close() waits for.
  struct Lease {
    std::shared_lock<std::shared_mutex> lock;
    Open* open;
    Engine* operator->() const { return open->engine.get(); }
    [[nodiscard]] const std::shared_ptr<Run>& run() const { return open->run; }
  };

  Impl(std::filesystem::path root, Options options) : root_(std::move(root)), options_(std::move(options)) {
    open_ = start().release();
  }
  ~Impl() {
    Open* const open = open_;
    // A parent's: its mutex may be held by a thread that this process does not have.
    if (open->generation != fork_generation()) return;
    try {
      close();
    } catch (const Error& error) {
      say(options_.on_message, Severity::kWarning, error.what());
    }
    delete open;
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  Lease lease() {
    Open* open = open_.load(std::memory_order_acquire);
    if (open->generation != fork_generation()) open = reopen(open);
    Lease lease{std::shared_lock(open->mutex), open};
    if (!open->engine) throw Error(Errc::kClosed, fmt::format("{}: the cache is closed", root_.string()));
    return lease;
  }
  Lease writing_lease() {
    if (options_.read_only) {
      throw Error(Errc::kReadOnly, fmt::format("{}: opened read-only", root_.string()));
    }
    return lease();
  }

  void close() {
    Open* const open = open_.load(std::memory_order_acquire);
    if (open->generation != fork_generation()) {
      // In a child that has not used it: nothing here is the child's to close.
      auto closed = std::make_unique<Open>();
      Open* expected = open;
      if (open_.compare_exchange_strong(expected, closed.get())) static_cast<void>(closed.release());
      return;
    }
    std::shared_ptr<Engine> engine;
    std::shared_ptr<Run> run;
    {
      const std::unique_lock lock(open->mutex);
      engine = std::move(open->engine);
      run = std::move(open->run);
    }
    if (engine) engine->end_run(run);
  }

  [[nodiscard]] const std::filesystem::path& root() const noexcept { return root_; }

 private:
  std::unique_ptr<Open> start() const {
    auto open = std::make_unique<Open>();
    open->engine = Engine::open(root_, options_);
    open->run = open->engine->begin_run(options_);
    return open;
  }
  // In the child, by the first of its threads to come here. What the parent had open is left alone for ever.
  Open* reopen(Open* inherited) {
    auto fresh = start();
    Open* expected = inherited;
    if (open_.compare_exchange_strong(expected, fresh.get())) return fresh.release();
    fresh->engine->end_run(fresh->run);
    return expected;
  }

  const std::filesystem::path root_;
  const Options options_;
  std::atomic<Open*> open_{nullptr};
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

void TokenizedCache::put(const CacheKey& key, const Tokens& tokens) {
  check_tokens(key, tokens);
  const auto lease = impl_->writing_lease();
  lease->put(key, tokens, lease.run());
}

void TokenizedCache::put_many(std::span<const std::pair<CacheKey, Tokens>> entries) {
  for (const auto& [key, tokens] : entries) check_tokens(key, tokens);
  const auto lease = impl_->writing_lease();
  for (const auto& [key, tokens] : entries) lease->put(key, tokens, lease.run());
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
