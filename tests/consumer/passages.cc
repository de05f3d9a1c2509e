// What docs/guides/cpp.md and the README show besides whole programs, run and checked. STORE is made anew.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <tokcask/cache.h>
#include <tokcask/dataset.h>

namespace {

void expect(bool held, const char* what) {
  if (held) return;
  std::fprintf(stderr, "passages: %s\n", what);
  std::exit(1);
}

std::vector<std::int32_t> tokenize(const std::string& text) { return {text.begin(), text.end()}; }

std::size_t used = 0;
void use(std::span<const std::int32_t> ids) { used += ids.size(); }

void first_use(const std::string& root, const std::string& text, const std::string& tokenizer_sha) {
  auto cache = tokcask::TokenizedCache::open(root);
  const tokcask::CacheKey key(tokcask::section_id(text), tokenizer_sha, 2048);
  if (const auto hit = cache.get(key)) {
    use(hit->input_ids());  // std::span<const std::int32_t> into the map
  } else {
    const std::vector<std::int32_t> ids = tokenize(text);
    cache.put(key, {.input_ids = ids});
    use(ids);
  }
}

void views_outlive_the_cache(const std::string& root, const tokcask::CacheKey& key) {
  std::optional<tokcask::TokenView> view;
  {
    auto cache = tokcask::TokenizedCache::open(root);
    view = cache.get(key);
    cache.clear();
  }
  expect(view && view->size() == 6, "the view did not outlive the cache");
}

void parts_of_an_entry(const std::string& root, const tokcask::CacheKey& key) {
  auto cache = tokcask::TokenizedCache::open(root);
  const std::vector<std::int32_t> ids{1, 2, 3, 4, 5, 6};
  const std::size_t before = used;
  tokcask::Parts parts;
  parts.spans("assistant", {{1, 3}, {4, 6}}).integer("label", 1);
  cache.put(key, {.input_ids = ids, .parts = parts.list()});
  const auto hit = cache.get(key);
  const auto spans = hit->parts().spans("assistant");
  for (const tokcask::Span& span : *spans) use(hit->ids_of(span));
  expect(used == before + 4 && hit->parts().integer("label") == 1, "parts");
}

void one_handle_for_all_threads(const std::string& root, const std::vector<tokcask::CacheKey>& keys) {
  const auto work = [&](tokcask::TokenizedCache& cache, std::size_t from) {
    for (std::size_t i = from; i < keys.size(); i += 4) {
      const std::vector<std::int32_t> ids = tokenize(keys[i].canonical());
      if (!cache.get(keys[i])) cache.put(keys[i], {.input_ids = ids});
    }
  };
  auto cache = tokcask::TokenizedCache::open(root);
  {
    std::vector<std::jthread> threads;
    for (std::size_t thread = 0; thread < 4; ++thread) {
      threads.emplace_back([&, thread] { work(cache, thread); });
    }
  }
  cache.flush();
  expect(cache.stats().entry_count == keys.size(), "not all that threads put is there");
}

void messages(const std::string& root) {
  std::vector<std::string> warnings;
  tokcask::Options options;
  options.max_bytes = std::uint64_t{100} << 20;
  options.on_message = [&](tokcask::Severity severity, std::string_view line) {
    if (severity == tokcask::Severity::kWarning) warnings.emplace_back(line);
  };
  auto cache = tokcask::TokenizedCache::open(root, options);
  expect(warnings.empty(), "a whole store gives no warning");
}

void errors(const std::string& root) {
  bool caught = false;
  try {
    auto cache = tokcask::TokenizedCache::open(root + "-absent", {.read_only = true});
  } catch (const tokcask::Error& error) {
    if (error.code() != tokcask::Errc::kNotFound) throw;
    std::fprintf(stderr, "  %s\n", error.what());
    caught = true;
  }
  expect(caught, "an absent store was opened");
}

void items_by_index(const std::string& root, const std::vector<tokcask::CacheKey>& keys) {
  std::uint64_t tokens = 0;
  auto dataset = tokcask::TokenDataset::open(root, keys);
  for (std::size_t i = 0; i < dataset.size(); ++i) {
    if (const auto item = dataset.get(i)) tokens += item->size();
  }
  expect(tokens > 0, "the data set has no tokens");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fputs("usage: passages STORE\n", stderr);
    return 2;
  }
  try {
    const std::string root = argv[1];
    const std::string tokenizer_sha = tokcask::sha256_hex("one id per byte, version 1");
    first_use(root, "a text", tokenizer_sha);
    first_use(root, "a text", tokenizer_sha);
    expect(used == 12, "the first use");
    views_outlive_the_cache(root, tokcask::CacheKey(tokcask::section_id("a text"), tokenizer_sha, 2048));
    std::vector<tokcask::CacheKey> keys;
    for (int i = 0; i < 100; ++i) {
      keys.emplace_back(tokcask::section_id(std::to_string(i)), tokenizer_sha, 2048);
    }
    one_handle_for_all_threads(root, keys);
    messages(root);
    errors(root);
    items_by_index(root, keys);
    parts_of_an_entry(root, tokcask::CacheKey(tokcask::section_id("parts"), tokenizer_sha, 2048));
  } catch (const tokcask::Error& error) {
    std::fprintf(stderr, "passages: %s\n", error.what());
    return 1;
  }
  return 0;
}
