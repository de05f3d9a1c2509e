#include <algorithm>

#include <tokcask/error.h>
#include <tokcask/key.h>

#include "record/key_list.h"
#include "target.h"

namespace tokcask::fuzz {
namespace {

const std::string kSha(64, 'a');

std::string packed(const std::vector<CacheKey>& keys) {
  const std::vector<std::byte> bytes = record::pack_keys(keys);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::vector<std::string> seeds() {
  const CacheKey hex("0123456789abcdef", kSha, 2048);
  const CacheKey other("0123456789abcdef", std::string(64, 'b'), 1);
  const CacheKey text("a section by name", kSha, 2048);
  const CacheKey wide("0123456789abcdef0123456789abcdef", kSha, 2048);
  return {"0123456789abcdef|" + kSha + "|2048",
          "s|t|1",
          "s|t|2147483647",
          "s|t|-1",
          packed({}),
          packed({hex, hex}),
          packed({wide, wide}),
          packed({wide, hex, text, other}),
          packed({hex, other, text}),
          packed({text, hex, text, other, hex})};
}

// The key that `text` is, or nothing.
void parse(std::string_view text) {
  try {
    const CacheKey key = CacheKey::parse(text);
    require(key.canonical() == text, "a key is the text that it was parsed from");
    require(CacheKey(key.section_id(), key.tokenizer_sha(), key.sequence_len()) == key,
            "a key is made again of its parts");
    const std::vector<CacheKey> keys{key, CacheKey("x", key.tokenizer_sha(), 7), key};
    const std::vector<std::byte> list = record::pack_keys(keys);
    const auto read = record::KeyList::of(list);
    require(read && read->size() == keys.size(), "a packed list is one");
    for (std::size_t i = 0; i < keys.size(); ++i)
      require(read->key(i) == keys[i], "keys are packed and back");
  } catch (const Error& error) {
    require(error.code() == Errc::kInvalidArgument, "what is no key is an invalid argument");
  }
}

void read_list(std::string_view input) {
  const std::vector<std::byte> bytes = exact_copy(input);
  const auto list = record::KeyList::of(bytes);
  if (!list) return;
  std::string canonical;
  for (std::size_t i = 0; i < list->size(); ++i) {
    list->canonical(i, canonical);
    require(canonical.size() <= CacheKey::kMaxCanonicalBytes, "a key of a list has a key's size");
    try {
      require(list->key(i).canonical() == canonical, "a key of a list reads the same both ways");
    } catch (const Error& error) {
      require(error.code() == Errc::kInvalidArgument, "what is no key is an invalid argument");
    }
  }
  for (const std::size_t first : list->first_of_each_kind())
    require(first < list->size(), "an index of the list");
  std::vector<std::uint32_t> order = list->in_store_order();
  std::sort(order.begin(), order.end());
  require(order.size() == list->size(), "all keys are in the order");
  for (std::uint32_t i = 0; i < order.size(); ++i) require(order[i] == i, "each key is in the order once");
}

void run(std::string_view input) {
  parse(input);
  read_list(input);
}

}  // namespace

const Target keys_target{.name = "keys", .seeds = seeds, .run = run, .rounds = 30'000};

}  // namespace tokcask::fuzz
