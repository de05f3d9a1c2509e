// The smallest honest use of the installed library: one store, one entry, read back from the map.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <vector>

#include <tokcask/cache.h>

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fputs("usage: consumer STORE\n", stderr);
    return 2;
  }
  try {
    const tokcask::CacheKey key(tokcask::section_id("a text"), tokcask::sha256_hex("a tokenizer"), 2048);
    const std::vector<std::int32_t> ids{1, 2, 3, 5, 8};
    {
      auto cache = tokcask::TokenizedCache::open(argv[1]);
      cache.put(key, {.input_ids = ids});
      cache.close();
    }
    auto cache = tokcask::TokenizedCache::open(argv[1], {.read_only = true});
    const auto hit = cache.get(key);
    if (!hit || !std::equal(ids.begin(), ids.end(), hit->input_ids().begin(), hit->input_ids().end())) {
      std::fputs("consumer: the entry did not come back\n", stderr);
      return 1;
    }
    std::printf("  %s holds %zu tokens, the last is %d\n", key.canonical().c_str(), hit->size(),
                hit->input_ids().back());
  } catch (const tokcask::Error& error) {
    std::fprintf(stderr, "consumer: %s\n", error.what());
    return 1;
  }
  return 0;
}
