#include "record/record.h"

#include <xxhash.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>

#include "record/hash_avx2.h"
#include "record/parts.h"

namespace tokcask {

namespace record {

namespace {

std::uint64_t hash(std::span<const std::byte> bytes, std::uint64_t seed) noexcept {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) return hash_avx2(bytes.data(), bytes.size(), seed);
#endif
  return XXH3_64bits_withSeed(bytes.data(), bytes.size(), seed);
}

std::uint64_t checksum_of(Header header, std::span<const std::byte> payload) noexcept {
  header.checksum = 0;
  return hash(payload, XXH3_64bits(&header, sizeof header));
}

Header header_of(std::span<const std::byte> bytes) noexcept {
  Header header;
  std::memcpy(&header, bytes.data(), sizeof header);
  return header;
}

}  // namespace

std::uint64_t hash_key(std::string_view canonical) noexcept {
  return XXH3_64bits(canonical.data(), canonical.size());
}

PaddedKey::PaddedKey(std::string_view canonical) noexcept : size_(round_up(canonical.size(), 8)) {
  std::memcpy(bytes_.data(), canonical.data(), canonical.size());
  std::memset(bytes_.data() + canonical.size(), 0, size_ - canonical.size());
}

std::string_view unpadded(std::span<const std::byte> key) noexcept {
  std::string_view text(reinterpret_cast<const char*>(key.data()), key.size());
  return text.substr(0, text.find('\0'));
}

void write_payload(const Tokens& tokens, std::span<std::byte> out) noexcept {
  std::size_t end = 0;
  const auto append = [&](std::size_t at, std::span<const std::byte> bytes) {
    if (bytes.empty()) return;
    std::memset(out.data() + end, 0, at - end);
    std::memcpy(out.data() + at, bytes.data(), bytes.size());
    end = at + bytes.size();
  };
  append(0, std::as_bytes(tokens.input_ids));
  append(mask_offset(tokens.input_ids.size()), std::as_bytes(tokens.attention_mask));
  append(round_up(end, 8), tokens.parts.bytes());
}

Tokens payload_at(const Tokens& tokens, const std::byte* payload) noexcept {
  const std::size_t length = tokens.input_ids.size();
  const auto ids_at = [&](std::size_t at) {
    return std::span(reinterpret_cast<const std::int32_t*>(payload + at), length);
  };
  Tokens there{ids_at(0)};
  if (!tokens.attention_mask.empty()) there.attention_mask = ids_at(mask_offset(length));
  const std::size_t at = round_up(token_bytes(length, !tokens.attention_mask.empty()), 8);
  const char* reason = nullptr;
  there.parts =
      PartList::read({payload + at, tokens.parts.bytes().size()}, length, &reason).value_or(PartList());
  return there;
}

void encode(Header header, const Tokens& tokens, std::span<std::byte> out) noexcept {
  header.magic = kMagic;
  header.version = kVersion;
  header.flags = static_cast<std::uint16_t>((tokens.attention_mask.empty() ? 0 : kFlagMask) |
                                            (tokens.parts.empty() ? 0 : kFlagParts));
  header.length = static_cast<std::uint32_t>(tokens.input_ids.size());
  const std::span<std::byte> payload = out.subspan(kHeaderBytes, payload_bytes(tokens));
  write_payload(tokens, payload);
  const std::size_t end = kHeaderBytes + payload.size();
  std::memset(out.data() + end, 0, out.size() - end);
  header.checksum = checksum_of(header, payload);
  std::memcpy(out.data(), &header, sizeof header);
}

std::optional<Record> decode_prefix(std::span<const std::byte> bytes, const char** reason) noexcept {
  const auto fail = [&](const char* why) {
    *reason = why;
    return std::nullopt;
  };
  if (bytes.size() < kHeaderBytes) return fail("it is shorter than a record header");
  const Header header = header_of(bytes);
  if (header.magic != kMagic) return fail("it does not start with a record's magic number");
  if (header.version != kVersion) return fail("its record version is not known");
  if ((header.flags & ~(kFlagMask | kFlagParts)) != 0) return fail("its flags are not known");
  const bool has_mask = (header.flags & kFlagMask) != 0;
  constexpr const char* kWrongLength = "its length does not fit its size";
  if (header.length > kMaxTokens || record_bytes(header.length, has_mask) > bytes.size())
    return fail(kWrongLength);
  Record record = assume(header, bytes.data());
  if ((header.flags & kFlagParts) == 0) return record;
  const std::size_t at = kHeaderBytes + round_up(token_bytes(header.length, has_mask), 8);
  PartsHeader parts;
  if (bytes.size() - at < sizeof parts) return fail(kWrongLength);
  std::memcpy(&parts, bytes.data() + at, sizeof parts);
  if (parts.bytes == 0 || parts.bytes > bytes.size() - at) return fail(kWrongLength);
  const auto list = PartList::read(bytes.subspan(at, parts.bytes), header.length, reason);
  if (!list) return std::nullopt;
  record.parts = *list;
  return record;
}

std::optional<Record> decode(std::span<const std::byte> bytes, std::uint64_t key_hash,
                             const char** reason) noexcept {
  auto record = decode_prefix(bytes, reason);
  if (!record) return record;
  const auto fail = [&](const char* why) {
    *reason = why;
    return std::nullopt;
  };
  if (record->header.key_hash != key_hash) return fail("it belongs to another key");
  if (record->bytes() != bytes.size()) return fail("its length does not fit its size");
  return record;
}

Record assume(const Header& header, const std::byte* bytes) noexcept {
  const std::byte* const payload = bytes + kHeaderBytes;
  Record record{header, {}, {}, {}};
  record.ids = {reinterpret_cast<const std::int32_t*>(payload), header.length};
  if ((header.flags & kFlagMask) != 0) {
    record.mask = {reinterpret_cast<const std::int32_t*>(payload + mask_offset(header.length)),
                   header.length};
  }
  return record;
}

bool checksum_ok(const Record& record) noexcept {
  const auto* const payload = reinterpret_cast<const std::byte*>(record.ids.data());
  const std::size_t size = payload_bytes(record.tokens());
  return checksum_of(record.header, {payload, size}) == record.header.checksum;
}

}  // namespace record

namespace {

// Grown by replacement; every array ever handed out stays, so that a span of it never dangles. The sizes
// double, so all together they are less than twice the largest.
struct Ones {
  std::size_t count = 0;
  const std::int32_t* data = nullptr;
  const Ones* smaller = nullptr;
};

}  // namespace

std::span<const std::int32_t> all_ones(std::size_t count) {
  static std::atomic<const Ones*> current{nullptr};
  static std::mutex growing;
  const Ones* ones = current.load(std::memory_order_acquire);
  if (ones == nullptr || ones->count < count) {
    const std::lock_guard lock(growing);
    ones = current.load(std::memory_order_acquire);
    if (ones == nullptr || ones->count < count) {
      const std::size_t size = std::bit_ceil(std::max<std::size_t>(count, std::size_t{1} << 14));
      auto* const data =
          static_cast<std::int32_t*>(::operator new(size * sizeof(std::int32_t), std::align_val_t{64}));
      std::uninitialized_fill_n(data, size, 1);
      ones = new Ones{size, data, ones};
      current.store(ones, std::memory_order_release);
    }
  }
  return {ones->data, count};
}

TokenView view_of(const Tokens& tokens, std::shared_ptr<const void> owner) {
  const bool ones = tokens.attention_mask.empty();
  return {tokens.input_ids, ones ? all_ones(tokens.input_ids.size()) : tokens.attention_mask, ones,
          std::move(owner), tokens.parts};
}

}  // namespace tokcask
