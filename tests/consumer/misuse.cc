// What must not compile, because it would read tokens that are gone, and beside each what must.
#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include <tokcask/cache.h>
#include <tokcask/dataset.h>

namespace {

using tokcask::CacheKey;
using tokcask::FoundTokens;
using tokcask::TokenDataset;
using tokcask::TokenizedCache;
using tokcask::TokenView;

template <typename T>
concept HasIds = requires(T&& view) { std::forward<T>(view).input_ids(); };
template <typename T>
concept HasMask = requires(T&& view) { std::forward<T>(view).attention_mask(); };
template <typename T>
concept HasArrow = requires(T&& found) { std::forward<T>(found).operator->(); };
template <typename T>
concept HasParts = requires(T&& key) {
  std::forward<T>(key).section_id();
  std::forward<T>(key).tokenizer_sha();
};

// auto ids = cache.get(key)->input_ids();  for (auto id : dataset.get(i)->input_ids())
template <typename Cache>
concept GetsFromATemporary = requires(Cache& cache, const CacheKey& key) { cache.get(key)->input_ids(); };
template <typename Dataset>
concept ItemFromATemporary = requires(Dataset& dataset) { dataset.get(0)->input_ids(); };
template <typename Cache>
concept DereferencesATemporary = requires(Cache& cache, const CacheKey& key) {
  (*cache.get(key)).input_ids();
} || requires(Cache& cache, const CacheKey& key) { cache.get(key).value().input_ids(); };
static_assert(!GetsFromATemporary<TokenizedCache> && !ItemFromATemporary<TokenDataset>);
static_assert(!DereferencesATemporary<TokenizedCache>);
static_assert(!HasIds<TokenView> && !HasMask<TokenView> && !HasIds<const TokenView>);
static_assert(HasIds<TokenView&> && HasMask<TokenView&> && HasIds<const TokenView&>);
static_assert(!HasArrow<FoundTokens> && !HasArrow<const FoundTokens>);
static_assert(HasArrow<FoundTokens&> && HasArrow<const FoundTokens&>);

// std::string_view f() { return CacheKey(...).section_id(); }
static_assert(!HasParts<CacheKey> && !HasParts<const CacheKey>);
static_assert(HasParts<CacheKey&> && HasParts<const CacheKey&>);

std::size_t used = 0;
void use(std::span<const std::int32_t> ids) { used += ids.size(); }

// The uses of a look-up that must compile, and those of a std::optional.
bool right(TokenizedCache& cache, TokenDataset& dataset, const CacheKey& key) {
  if (const auto hit = cache.get(key)) use(hit->input_ids());
  if (auto hit = cache.get(key)) use((*hit).attention_mask());
  std::optional<TokenView> kept = cache.get(key);
  kept = cache.get(key);
  const TokenView view = cache.get(key).value();
  const TokenView other = *cache.get(key);
  use(view.input_ids());
  use(other.input_ids());
  FoundTokens item = dataset.get(0);
  if (!item.has_value() || item == std::nullopt) return false;
  use(item.value().input_ids());
  item.reset();
  std::vector<FoundTokens> several;
  several.push_back(cache.get(key));
  use(several.front()->input_ids());
  return cache.get(key) && !item && cache.get(key).value().size() > 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  auto cache = TokenizedCache::open(argv[1]);
  const CacheKey key(tokcask::section_id("a text"), tokcask::sha256_hex("a tokenizer"), 2048);
  const std::vector<std::int32_t> ids{1, 2, 3};
  cache.put(key, {.input_ids = ids});
  cache.flush();
  auto dataset = TokenDataset::open(argv[1], {&key, 1});
  return right(cache, dataset, key) && used == 6 * ids.size() ? 0 : 1;
}
