#include <algorithm>
#include <cstring>

#include "record/record.h"
#include "target.h"

namespace tokcask::fuzz {
namespace {

using record::Header;
using record::Record;

std::string encoded(const std::vector<std::int32_t>& ids, const std::vector<std::int32_t>& mask,
                    PartList parts = {}) {
  const Tokens tokens{ids, mask, parts};
  std::string bytes(record::record_bytes(tokens), '\0');
  record::encode({.slot = 3, .generation = 77, .key_hash = record::hash_key("key"), .created_ns = 1}, tokens,
                 std::as_writable_bytes(std::span(bytes)));
  return bytes;
}

std::vector<std::string> seeds() {
  const std::vector<std::int32_t> many(600, 42);
  Parts few, all;
  few.integer("label", 1);
  all.spans("assistant", {{0, 3}, {3, 9}, {500, 600}}).spans("prompt", {{0, 1}}).real("margin", 0.25);
  all.integer("label", 7).array("weights", ElementType::kFloat16, std::as_bytes(std::span(many)).first(14));
  return {encoded({}, {}),
          encoded({1, 2, 3}, {}),
          encoded({1, 2, 3}, {1, 0, 1}),
          encoded(many, {}),
          encoded(many, many),
          encoded({1, 2, 3}, {1, 0, 1}, few.list()),
          encoded(many, {}, all.list())};
}

void use(const PartList& parts, std::size_t tokens, std::span<const std::byte> bytes) {
  const auto inside = [&](const void* begin, std::size_t size) {
    const auto* const at = static_cast<const std::byte*>(begin);
    return size == 0 || (at >= bytes.data() && at + size <= bytes.data() + bytes.size());
  };
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const Part part = parts[i];
    require(inside(part.name.data(), part.name.size()), "a name lies in the record");
    require(inside(part.spans.data(), part.spans.size_bytes()), "spans lie in the record");
    require(inside(part.array.bytes.data(), part.array.bytes.size()), "an array lies in the record");
    std::size_t end = 0;
    for (const Span& span : part.spans) {
      require(span.begin >= end && span.end > span.begin && span.end <= tokens, "spans are in order");
      end = span.end;
    }
  }
}

void use(const Record& record, std::span<const std::byte> bytes) {
  const auto inside = [&](std::span<const std::int32_t> tokens) {
    const auto* const begin = reinterpret_cast<const std::byte*>(tokens.data());
    return begin >= bytes.data() && begin + tokens.size_bytes() <= bytes.data() + bytes.size();
  };
  require(record.ids.size() == record.header.length, "a record has as many ids as it says");
  require(inside(record.ids), "the ids lie in the record");
  require(record.mask.empty() || (inside(record.mask) && record.mask.size() == record.ids.size()),
          "the mask lies in the record");
  use(record.parts, record.ids.size(), bytes);
  if (!checksum_ok(record)) return;
  std::vector<std::byte> again(record.bytes());
  record::encode(record.header, record.tokens(), again);
  const char* reason = nullptr;
  const auto read = record::decode(again, record.header.key_hash, &reason);
  require(read && checksum_ok(*read) && std::ranges::equal(read->ids, record.ids) &&
              std::ranges::equal(read->mask, record.mask) &&
              std::ranges::equal(read->parts.bytes(), record.parts.bytes()),
          "an intact record is encoded and back");
}

void run(std::string_view input) {
  const std::vector<std::byte> copy = exact_copy(input);
  const std::span<const std::byte> bytes(copy);
  Header header;
  if (bytes.size() >= sizeof header) std::memcpy(&header, bytes.data(), sizeof header);
  for (const std::uint64_t hash : {record::hash_key("key"), header.key_hash}) {
    const char* reason = nullptr;
    const auto record = record::decode(bytes, hash, &reason);
    require(record.has_value() == (reason == nullptr), "a record or a reason");
    if (record) use(*record, bytes);
  }
  const char* reason = nullptr;
  if (const auto record = record::decode_prefix(bytes, &reason)) use(*record, bytes);
  const auto key = record::unpadded(bytes);
  if (!key.empty() && key.size() <= CacheKey::kMaxCanonicalBytes) {
    require(record::unpadded(record::PaddedKey(key).bytes()) == key, "a key is padded and back");
  }
}

// Of what is checked first, most stays as it is.
void mutate(std::string& bytes, std::size_t most, Random& random) {
  if (bytes.size() < sizeof(Header)) return mutate_bytes(bytes, most, random);
  Header header;
  std::memcpy(&header, bytes.data(), sizeof header);
  switch (below(random, 4)) {
    case 0:
      header.length = static_cast<std::uint32_t>(header.length + below(random, 33) - 16);
      break;
    case 1:
      header.length = static_cast<std::uint32_t>(random() >> below(random, 64));
      break;
    case 2:
      header.flags ^= random() % 2 == 0 ? record::kFlagMask : record::kFlagParts;
      break;
    default:
      bytes.resize(std::min(most, below(random, 2 * bytes.size())));
      break;
  }
  std::memcpy(bytes.data(), &header, std::min(bytes.size(), sizeof header));
}

}  // namespace

const Target record_target{.name = "record", .seeds = seeds, .run = run, .mutate = mutate, .rounds = 50'000};

}  // namespace tokcask::fuzz
