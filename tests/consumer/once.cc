// The program of docs/guides/cpp.md: tells how many tokens files have, made once for each file.
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>
#include <string>
#include <vector>

#include <tokcask/cache.h>

// In the place of a tokenizer: one id per byte.
std::vector<std::int32_t> tokenize(const std::string& text, std::size_t max_length) {
  std::vector<std::int32_t> ids;
  for (const char c : text.substr(0, max_length)) ids.push_back(static_cast<unsigned char>(c));
  return ids;
}

// Whatever changes an id has to change this.
const std::string kTokenizer = tokcask::sha256_hex("one id per byte, version 1");

std::size_t count(tokcask::TokenizedCache& cache, const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(stream), {}};
  const tokcask::CacheKey key(tokcask::section_id(text), kTokenizer, 2048);
  if (const auto hit = cache.get(key)) return hit->input_ids().size();
  const std::vector<std::int32_t> ids = tokenize(text, 2048);
  cache.put(key, {.input_ids = ids});
  return ids.size();
}

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fputs("usage: once STORE FILE...\n", stderr);
    return 2;
  }
  try {
    auto cache = tokcask::TokenizedCache::open(argv[1], {.max_bytes = std::uint64_t{1} << 30});
    for (const char* file : std::span(argv, static_cast<std::size_t>(argc)).subspan(2)) {
      std::printf("%8zu  %s\n", count(cache, file), file);
    }
    const tokcask::RunFigures run = cache.stats().run;
    std::printf("%llu of them tokenized now\n", static_cast<unsigned long long>(run.misses));
    cache.close();  // commits; a destructor could only warn of what fails
  } catch (const tokcask::Error& error) {
    std::fprintf(stderr, "once: %s\n", error.what());
    return error.code() == tokcask::Errc::kBusy ? 75 : 1;
  }
  return 0;
}
