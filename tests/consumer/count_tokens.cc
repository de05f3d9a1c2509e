// Forked workers that read one data set and train nothing but count tokens: the shape of a data-parallel
// trainer's input in C++.
//
// The data set is opened, and its keys are resolved, once. Each worker takes every n-th batch, pads it to
// int64 as a trainer would, and counts the ones of its attention mask. What the workers do with the store
// needs no coordination: a worker's first call opens the store for itself, and the table of keys is shared.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <numeric>
#include <vector>

#include <tokcask/cache.h>
#include <tokcask/collate.h>
#include <tokcask/dataset.h>

namespace {

constexpr std::size_t kWorkers = 4;
constexpr std::size_t kBatch = 64;

// Tokens of the batches number `worker`, `worker` + kWorkers, ...
std::uint64_t count(tokcask::TokenDataset& dataset, std::size_t worker) {
  std::uint64_t tokens = 0;
  std::vector<std::int64_t> input_ids;
  std::vector<std::int64_t> attention_mask;
  for (std::size_t from = worker * kBatch; from < dataset.size(); from += kWorkers * kBatch) {
    std::vector<std::size_t> indices(std::min(kBatch, dataset.size() - from));
    std::iota(indices.begin(), indices.end(), from);
    // The views own a share of the snapshot that they point into; the rows borrow from the views.
    const auto views = dataset.get_many(indices);
    std::vector<tokcask::Tokens> rows;
    for (const auto& view : views) {
      if (view) rows.push_back({.input_ids = view->input_ids()});
    }
    const tokcask::Padding padding{.token_id = 0, .multiple_of = 8};
    const std::size_t columns = tokcask::padded_columns(rows, padding);
    input_ids.resize(rows.size() * columns);
    attention_mask.resize(rows.size() * columns);
    tokcask::pad_rows(rows, padding, {.input_ids = input_ids, .attention_mask = attention_mask});
    tokens += static_cast<std::uint64_t>(std::accumulate(attention_mask.begin(), attention_mask.end(), 0LL));
  }
  return tokens;
}

// A store with sections of many lengths, made if it is not there.
std::vector<tokcask::CacheKey> fill(const char* root) {
  auto cache = tokcask::TokenizedCache::open(root);
  const std::string tokenizer = tokcask::sha256_hex("a tokenizer");
  std::vector<tokcask::CacheKey> keys;
  std::vector<std::int32_t> ids(2000);
  std::iota(ids.begin(), ids.end(), 0);
  for (std::size_t i = 0; i < 1000; ++i) {
    keys.emplace_back(tokcask::section_id(std::to_string(i)), tokenizer, 2048);
    cache.put(keys.back(), {.input_ids = std::span(ids).first(i * 7919 % ids.size())});
  }
  cache.close();
  return keys;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fputs("usage: count_tokens STORE\n", stderr);
    return 2;
  }
  try {
    auto dataset = tokcask::TokenDataset::open(argv[1], fill(argv[1]));
    const std::vector<std::uint32_t> lengths = dataset.lengths();
    const std::uint64_t expected = std::accumulate(lengths.begin(), lengths.end(), std::uint64_t{0});

    int results[2];
    if (pipe(results) != 0) return 1;
    for (std::size_t worker = 0; worker < kWorkers; ++worker) {
      const pid_t pid = fork();
      if (pid < 0) return 1;
      if (pid > 0) continue;
      int code = 1;
      try {
        const std::uint64_t tokens = count(dataset, worker);
        code = write(results[1], &tokens, sizeof tokens) == static_cast<ssize_t>(sizeof tokens) ? 0 : 1;
      } catch (const tokcask::Error& error) {
        std::fprintf(stderr, "count_tokens: worker %zu: %s\n", worker, error.what());
      }
      _exit(code);  // the parent's objects are the parent's to destroy
    }
    close(results[1]);
    std::uint64_t total = 0;
    std::uint64_t tokens = 0;
    while (read(results[0], &tokens, sizeof tokens) == static_cast<ssize_t>(sizeof tokens)) total += tokens;
    while (wait(nullptr) > 0) {
    }
    std::printf("  %zu workers counted %llu tokens in %zu sections; the lengths say %llu\n", kWorkers,
                static_cast<unsigned long long>(total), dataset.size(),
                static_cast<unsigned long long>(expected));
    return total == expected ? 0 : 1;
  } catch (const tokcask::Error& error) {
    std::fprintf(stderr, "count_tokens: %s\n", error.what());
    return 1;
  }
}
