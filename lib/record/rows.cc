#include "record/rows.h"

#include <xxhash.h>

#include <algorithm>
#include <array>

namespace tokcask::rows {

namespace {

constexpr char kDigits[] = "0123456789abcdef";

// The value of a lower-case hex digit, 16 of any other character.
constexpr std::array<std::uint8_t, 256> kDigitOf = [] {
  std::array<std::uint8_t, 256> digits{};
  digits.fill(16);
  for (std::size_t i = 0; i < 16; ++i)
    digits[static_cast<std::uint8_t>(kDigits[i])] = static_cast<std::uint8_t>(i);
  return digits;
}();

// Appends plain values and text to a row.
class Writer {
 public:
  template <typename T>
  void value(T v) {
    append(&v, sizeof v);
  }
  void text(std::string_view s) { append(s.data(), s.size()); }
  std::vector<std::byte> finish() {
    out_.resize((out_.size() + 7) / 8 * 8);
    return std::move(out_);
  }

 private:
  void append(const void* data, std::size_t size) {
    const std::size_t end = out_.size();
    out_.resize(end + size);
    if (size > 0) std::memcpy(out_.data() + end, data, size);
  }
  std::vector<std::byte> out_;
};

// Reads them back; after the first read past the end, ok() is false and every read gives zero.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : rest_(bytes) {}
  template <typename T>
  T value() {
    T v{};
    if (take(sizeof v)) std::memcpy(&v, taken_, sizeof v);
    return v;
  }
  std::string_view text(std::size_t size) {
    if (!take(size)) return {};
    return {reinterpret_cast<const char*>(taken_), size};
  }
  [[nodiscard]] bool ok() const { return ok_; }

 private:
  bool take(std::size_t size) {
    if (!ok_ || size > rest_.size()) {
      ok_ = false;
      return false;
    }
    taken_ = rest_.data();
    rest_ = rest_.subspan(size);
    return true;
  }
  std::span<const std::byte> rest_;
  const std::byte* taken_ = nullptr;
  bool ok_ = true;
};

void write_identity(Writer& out, const FileIdentity& id) {
  out.value(id.size);
  out.value(id.mtime_ns);
  out.value(id.ctime_ns);
  out.value(id.inode);
}

FileIdentity read_identity(Reader& in) {
  FileIdentity id;
  id.size = in.value<std::uint64_t>();
  id.mtime_ns = in.value<std::int64_t>();
  id.ctime_ns = in.value<std::int64_t>();
  id.inode = in.value<std::uint64_t>();
  return id;
}

constexpr std::uint64_t kCutsAtLength = 1;
constexpr std::uint64_t kCutsToPrefix = 2;
constexpr std::uint32_t kDirectoryVersion = 2;
constexpr std::size_t kFileBytes = 52;  // of one file in a directory row, before its name

}  // namespace

MetaKey::MetaKey(Tag tag, std::uint64_t number) noexcept {
  bytes_[0] = static_cast<std::byte>(tag);
  for (std::size_t i = 7; i >= 1; --i) {
    bytes_[i] = static_cast<std::byte>(number & 0xff);
    number >>= 8;
  }
}

MetaKey MetaKey::of_path(Tag tag, std::string_view path) noexcept {
  MetaKey key;
  XXH128_canonical_t hash;
  XXH128_canonicalFromHash(&hash, XXH3_128bits(path.data(), path.size()));
  key.bytes_[0] = static_cast<std::byte>(tag);
  std::memcpy(key.bytes_.data() + 1, hash.digest, 15);
  key.size_ = 16;
  return key;
}

std::optional<std::uint64_t> pack_section(std::string_view section_id) noexcept {
  if (section_id.size() != 16) return std::nullopt;
  // Digits of a hash are random: branches on them would be guessed wrong every other time.
  std::uint64_t packed = 0;
  std::uint8_t seen = 0;
  for (const char c : section_id) {
    const std::uint8_t digit = kDigitOf[static_cast<std::uint8_t>(c)];
    seen |= digit;
    packed = packed << 4 | (digit & 15U);
  }
  if (seen > 15) return std::nullopt;
  return packed;
}

bool is_current(std::span<const std::byte> chunk, std::uint32_t slot, std::uint64_t generation) noexcept {
  if (chunk.size() != sizeof(EntryChunk)) return false;
  EntryRow row;
  std::memcpy(&row, chunk.data() + slot % kEntriesPerChunk * sizeof row, sizeof row);
  return row.tokenizer != 0 && row.generation == generation;
}

void append_section(std::uint64_t packed, std::string& out) {
  out.resize(out.size() + 16);
  for (std::size_t i = out.size(), end = i - 16; i-- > end; packed >>= 4) out[i] = kDigits[packed & 15];
}

std::string unpack_section(std::uint64_t packed) {
  std::string out;
  append_section(packed, out);
  return out;
}

std::vector<std::byte> encode_text(std::string_view text) {
  Writer out;
  out.text(text);
  return out.finish();
}

std::string_view decode_text(std::span<const std::byte> value) noexcept {
  std::string_view text(reinterpret_cast<const char*>(value.data()), value.size());
  while (!text.empty() && text.back() == '\0') text.remove_suffix(1);
  return text;
}

std::vector<std::byte> encode_directory(std::string_view path, const SourceDirectory& files) {
  const auto fits = [](const SourceFile& f) { return f.name.size() <= 0xffff; };
  Writer out;
  out.value(kDirectoryVersion);
  out.value(static_cast<std::uint32_t>(std::count_if(files.begin(), files.end(), fits)));
  out.value(static_cast<std::uint32_t>(path.size()));
  out.value(std::uint32_t{0});
  out.text(path);
  for (const SourceFile& file : files) {
    if (!fits(file)) continue;
    write_identity(out, file.identity);
    out.value(file.section);
    out.value(static_cast<std::uint8_t>(file.kind));
    out.value(std::uint8_t{0});
    out.value(static_cast<std::uint16_t>(file.name.size()));
    out.text(file.name);
  }
  return out.finish();
}

std::optional<SourceDirectory> decode_directory(std::string_view path, std::span<const std::byte> value) {
  Reader in(value);
  const auto version = in.value<std::uint32_t>();
  const auto count = in.value<std::uint32_t>();
  const auto path_bytes = in.value<std::uint32_t>();
  in.value<std::uint32_t>();
  if (!in.ok() || version != kDirectoryVersion || in.text(path_bytes) != path) return std::nullopt;
  if (count > value.size() / kFileBytes) return std::nullopt;
  SourceDirectory files(count);
  for (SourceFile& file : files) {
    file.identity = read_identity(in);
    file.section = in.value<decltype(file.section)>();
    const auto kind = in.value<std::uint8_t>();
    in.value<std::uint8_t>();
    file.name = in.text(in.value<std::uint16_t>());
    if (!in.ok() || kind > static_cast<std::uint8_t>(SourceKind::kNotUtf8)) return std::nullopt;
    file.kind = static_cast<SourceKind>(kind);
  }
  return files;
}

std::optional<std::string> path_of_directory(std::span<const std::byte> value) {
  Reader in(value);
  const auto version = in.value<std::uint32_t>();
  in.value<std::uint32_t>();
  const auto path_bytes = in.value<std::uint32_t>();
  in.value<std::uint32_t>();
  const std::string_view path = in.text(path_bytes);
  if (!in.ok() || version != kDirectoryVersion) return std::nullopt;
  return std::string(path);
}

std::vector<std::byte> encode_tokenizer_file(std::string_view path, const FileIdentity& identity,
                                             std::string_view sha) {
  Writer out;
  write_identity(out, identity);
  out.value(static_cast<std::uint32_t>(sha.size()));
  out.value(static_cast<std::uint32_t>(path.size()));
  out.text(sha);
  out.text(path);
  return out.finish();
}

std::optional<std::string> decode_tokenizer_file(std::string_view path, const FileIdentity& identity,
                                                 std::span<const std::byte> value) {
  Reader in(value);
  const FileIdentity stored = read_identity(in);
  const auto sha_bytes = in.value<std::uint32_t>();
  const auto path_bytes = in.value<std::uint32_t>();
  const std::string_view sha = in.text(sha_bytes);
  const std::string_view stored_path = in.text(path_bytes);
  if (!in.ok() || stored != identity || stored_path != path) return std::nullopt;
  return std::string(sha);
}

std::vector<std::byte> encode_traits(std::string_view sha, const TokenizerTraits& traits) {
  Writer out;
  out.value((traits.cuts_at_length ? kCutsAtLength : 0) | (traits.cuts_to_prefix ? kCutsToPrefix : 0));
  out.text(sha);
  return out.finish();
}

TokenizerTraits decode_traits(std::string_view sha, std::span<const std::byte> value) noexcept {
  Reader in(value);
  const auto flags = in.value<std::uint64_t>();
  if (!in.ok() || decode_text(value.subspan(sizeof flags)) != sha) return {};
  return {.cuts_at_length = (flags & kCutsAtLength) != 0, .cuts_to_prefix = (flags & kCutsToPrefix) != 0};
}

}  // namespace tokcask::rows
