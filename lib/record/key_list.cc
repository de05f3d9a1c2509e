#include "record/key_list.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>
#include <tuple>
#include <unordered_map>

#include <tokcask/error.h>

#include "record/record.h"
#include "record/rows.h"

namespace tokcask::record {

namespace {

constexpr std::uint32_t kListVersion = 1;
constexpr std::uint32_t kInText = 0x80000000;
constexpr std::uint32_t kShort = 0x40000000;  // a section of 16 digits in a wide list
constexpr std::uint32_t kSuffix = kShort - 1;
constexpr unsigned kLengthBits = 16;
constexpr std::size_t kDigitsPerWord = 16;

constexpr std::uint32_t kHasNumbers = 1;
constexpr std::uint32_t kWide = 2;

struct ListHeader {
  std::uint32_t version;
  std::uint32_t flags;
  std::uint64_t suffixes;
  std::uint64_t keys;
  std::uint64_t text_bytes;
};
static_assert(sizeof(ListHeader) == 32);

void append(std::vector<std::byte>& out, const void* data, std::size_t size) {
  if (size == 0) return;
  const std::size_t at = out.size();
  out.resize(round_up(at + size, 8));
  std::memcpy(out.data() + at, data, size);
}

// Whether it is 32 lower-case hex digits.
bool is_wide(std::string_view section) {
  return section.size() == 2 * kDigitsPerWord && rows::pack_section(section.substr(0, kDigitsPerWord)) &&
         rows::pack_section(section.substr(kDigitsPerWord));
}

// Takes `count` values off the front of `rest`, with what fills them up to a multiple of 8.
template <typename T>
std::optional<std::span<const T>> take(std::span<const std::byte>& rest, std::uint64_t count) {
  if (count > rest.size() / sizeof(T)) return std::nullopt;
  const std::size_t size = round_up(count * sizeof(T), 8);
  if (size > rest.size()) return std::nullopt;
  const std::span<const T> values{reinterpret_cast<const T*>(rest.data()), count};
  rest = rest.subspan(size);
  return values;
}

}  // namespace

std::vector<std::byte> pack_keys(std::span<const CacheKey> keys) {
  if (keys.size() > std::numeric_limits<std::uint32_t>::max()) {
    throw Error(Errc::kInvalidArgument, fmt::format("{} keys; a list holds at most 2^32 - 1", keys.size()));
  }
  const bool wide = std::ranges::any_of(keys, [](const CacheKey& key) { return is_wide(key.section_id()); });
  const std::size_t words = wide ? 2 : 1;
  std::vector<std::uint64_t> sections(words * keys.size());
  std::vector<std::uint32_t> numbers(keys.size());
  std::unordered_map<std::string_view, std::uint32_t> known;
  std::string text;
  std::string others;
  std::string_view last;  // most keys have the suffix of the one before
  std::uint32_t number = 0;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    const std::string_view section = keys[i].section_id();
    const std::string_view suffix = std::string_view(keys[i].canonical()).substr(section.size());
    if (i == 0 || suffix != last) {
      const auto [found, fresh] = known.try_emplace(suffix, static_cast<std::uint32_t>(known.size()));
      if (fresh) {
        const auto size = static_cast<std::uint32_t>(suffix.size());
        text.append(reinterpret_cast<const char*>(&size), sizeof size).append(suffix);
      }
      number = found->second;
      last = suffix;
    }
    numbers[i] = number;
    if (is_wide(section)) {
      sections[2 * i] = *rows::pack_section(section.substr(0, kDigitsPerWord));
      sections[2 * i + 1] = *rows::pack_section(section.substr(kDigitsPerWord));
    } else if (const auto packed = rows::pack_section(section)) {
      sections[words * i] = *packed;
      if (wide) numbers[i] |= kShort;
    } else {
      sections[words * i] = std::uint64_t{others.size()} << kLengthBits | section.size();
      others.append(section);
      numbers[i] |= kInText;
    }
  }
  // The sections come after the suffixes, whose length is known only now.
  for (std::size_t i = 0; i < keys.size(); ++i) {
    if ((numbers[i] & kInText) != 0) sections[words * i] += std::uint64_t{text.size()} << kLengthBits;
  }
  text.append(others);

  const bool plain = std::all_of(numbers.begin(), numbers.end(), [](std::uint32_t n) { return n == 0; });
  const std::uint32_t flags = (plain ? 0 : kHasNumbers) | (wide ? kWide : 0);
  const ListHeader header{kListVersion, flags, known.size(), keys.size(), text.size()};
  std::vector<std::byte> out;
  out.reserve(sizeof header + keys.size() * (8 * words + (plain ? 0 : 4)) + text.size() + 16);
  append(out, &header, sizeof header);
  append(out, sections.data(), sections.size() * sizeof sections[0]);
  if (!plain) append(out, numbers.data(), numbers.size() * sizeof numbers[0]);
  append(out, text.data(), text.size());
  return out;
}

std::optional<KeyList> KeyList::of(std::span<const std::byte> bytes) {
  KeyList list;
  list.bytes_ = bytes;
  auto rest = bytes;
  const auto headers = take<ListHeader>(rest, 1);
  if (!headers) return std::nullopt;
  const ListHeader header = headers->front();
  if (header.version != kListVersion || (header.flags & ~(kHasNumbers | kWide)) != 0 ||
      header.keys > std::numeric_limits<std::uint32_t>::max()) {
    return std::nullopt;
  }
  list.words_ = (header.flags & kWide) != 0 ? 2 : 1;
  const auto sections = take<std::uint64_t>(rest, list.words_ * header.keys);
  if (!sections) return std::nullopt;
  list.sections_ = *sections;
  if ((header.flags & kHasNumbers) != 0) {
    const auto numbers = take<std::uint32_t>(rest, header.keys);
    if (!numbers) return std::nullopt;
    list.suffix_numbers_ = *numbers;
  }
  if (header.text_bytes > rest.size() || rest.size() != round_up(header.text_bytes, 8)) return std::nullopt;
  list.text_ = {reinterpret_cast<const char*>(rest.data()), header.text_bytes};

  std::string_view left = list.text_;
  for (std::uint64_t i = 0; i < header.suffixes; ++i) {
    std::uint32_t size = 0;
    if (left.size() < sizeof size) return std::nullopt;
    std::memcpy(&size, left.data(), sizeof size);
    left.remove_prefix(sizeof size);
    if (left.size() < size) return std::nullopt;
    list.suffixes_.push_back(left.substr(0, size));
    left.remove_prefix(size);
  }
  for (std::size_t i = 0; i < list.size(); ++i) {
    const std::uint32_t number = list.suffix_of(i);
    if ((number & kSuffix) >= header.suffixes) return std::nullopt;
    std::uint64_t size = list.digits_of(number);
    if ((number & kInText) != 0) {
      const std::uint64_t place = list.sections_[list.words_ * i];
      const std::uint64_t at = place >> kLengthBits;
      size = place & ((1U << kLengthBits) - 1);
      if (at > list.text_.size() || size > list.text_.size() - at) return std::nullopt;
    }
    if (size + list.suffixes_[number & kSuffix].size() > CacheKey::kMaxCanonicalBytes) return std::nullopt;
  }
  return list;
}

void KeyList::canonical(std::size_t index, std::string& key) const {
  key.clear();
  const std::uint32_t number = suffix_of(index);
  const std::uint64_t section = sections_[words_ * index];
  const std::size_t suffix = number & kSuffix;
  if (suffix >= suffixes_.size()) return;
  if ((number & kInText) == 0) {
    rows::append_section(section, key);
    if (digits_of(number) > kDigitsPerWord) rows::append_section(sections_[words_ * index + 1], key);
  } else {
    const std::uint64_t at = section >> kLengthBits;
    if (at > text_.size()) return;
    key = text_.substr(at, section & ((1U << kLengthBits) - 1));
  }
  key += suffixes_[suffix];
  if (key.size() > CacheKey::kMaxCanonicalBytes) key.clear();
}

std::size_t KeyList::digits_of(std::uint32_t number) const noexcept {
  return (number & kShort) != 0 ? kDigitsPerWord : words_ * kDigitsPerWord;
}

std::string KeyList::canonical(std::size_t index) const {
  std::string key;
  canonical(index, key);
  return key;
}

std::vector<std::size_t> KeyList::first_of_each_kind() const {
  std::vector<std::size_t> first;
  std::vector<bool> seen(suffixes_.size());
  for (std::size_t i = 0; i < size() && first.size() < seen.size(); ++i) {
    const std::uint32_t number = suffix_of(i) & kSuffix;
    if (number >= seen.size() || seen[number]) continue;
    seen[number] = true;
    first.push_back(i);
  }
  return first;
}

std::vector<std::uint32_t> KeyList::in_store_order() const {
  // Hex digits sort as the numbers they make. The sections in the text, rarely any, are left at the end.
  std::vector<std::uint32_t> order(size());
  std::iota(order.begin(), order.end(), 0U);
  const auto middle = std::partition(order.begin(), order.end(),
                                     [&](std::uint32_t i) { return (suffix_of(i) & kInText) == 0; });
  const auto place = [&](std::uint32_t i) {
    return std::tuple(sections_[words_ * i], sections_[words_ * i + words_ - 1], suffix_of(i));
  };
  std::sort(order.begin(), middle, [&](std::uint32_t a, std::uint32_t b) { return place(a) < place(b); });
  return order;
}

}  // namespace tokcask::record
