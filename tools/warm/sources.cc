#include "warm/sources.h"

#include <sys/stat.h>

#include <utility>

#include "corpus/utf8.h"

namespace tokcask::warm {
namespace {

constexpr std::string_view kHexDigits = "0123456789abcdef";

SourceState state_of(SourceKind kind) {
  switch (kind) {
    case SourceKind::kBinary:
      return SourceState::kBinary;
    case SourceKind::kNotUtf8:
      return SourceState::kNotUtf8;
    case SourceKind::kSection:
      break;
  }
  return SourceState::kSection;
}

SourceKind kind_of(SourceState state) {
  if (state == SourceState::kBinary) return SourceKind::kBinary;
  return state == SourceState::kNotUtf8 ? SourceKind::kNotUtf8 : SourceKind::kSection;
}

bool same(const SourceFile& a, const SourceFile& b) {
  return a.name == b.name && a.identity == b.identity && a.kind == b.kind && a.section == b.section;
}

bool same(const SourceDirectory& a, const SourceDirectory& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const SourceFile& x, const SourceFile& y) { return same(x, y); });
}

}  // namespace

std::string section_hex(const SectionBytes& section) {
  std::string hex;
  hex.reserve(section.size() * 2);
  for (const std::uint8_t byte : section) {
    hex += kHexDigits[byte >> 4];
    hex += kHexDigits[byte & 15];
  }
  return hex;
}

SectionBytes section_bytes(std::string_view hex) {
  SectionBytes section{};
  for (std::size_t i = 0; i < section.size() && 2 * i + 1 < hex.size(); ++i) {
    const std::size_t high = kHexDigits.find(hex[2 * i]);
    const std::size_t low = kHexDigits.find(hex[2 * i + 1]);
    section[i] = static_cast<std::uint8_t>(high << 4 | low);
  }
  return section;
}

Sources::Sources(corpus::Corpus corpus)
    : corpus_(std::move(corpus)),
      files_(corpus_.files.size()),
      order_(corpus_.files.size()),
      starts_(corpus_.directories.size() + 1),
      stale_(corpus_.directories.size(), true) {
  // A counting sort, which keeps the order of names within each directory.
  for (const corpus::CorpusFile& file : corpus_.files) ++starts_[file.directory + 1];
  for (std::size_t i = 1; i < starts_.size(); ++i) starts_[i] += starts_[i - 1];
  std::vector<std::uint32_t> next(starts_.begin(), starts_.end() - 1);
  for (std::uint32_t i = 0; i < corpus_.files.size(); ++i) {
    order_[next[corpus_.files[i].directory]++] = i;
  }
}

std::span<const std::uint32_t> Sources::files_in(std::uint32_t directory) const {
  return std::span(order_).subspan(starts_[directory], starts_[directory + 1] - starts_[directory]);
}

void Sources::recall(TokenizedCache& cache) {
  for (std::uint32_t i = 0; i < corpus_.directories.size(); ++i) {
    const auto remembered = cache.source_directory(corpus_.directories[i].path);
    if (remembered) recall_directory(i, *remembered);
    if (!remembered && files_in(i).empty()) stale_[i] = false;
  }
}

void Sources::recall_directory(std::uint32_t directory, const SourceDirectory& remembered) {
  bool stale = false;
  auto entry = remembered.begin();
  for (const std::uint32_t index : files_in(directory)) {
    const corpus::CorpusFile& found = corpus_.files[index];
    while (entry != remembered.end() && entry->name < found.name) {
      stale = true;
      ++entry;
    }
    if (entry == remembered.end() || entry->name != found.name) {
      stale = true;
      continue;
    }
    if (entry->identity == found.identity) {
      files_[index].section = entry->section;
      files_[index].state = state_of(entry->kind);
      files_[index].sound = true;
    } else {
      stale = true;
    }
    ++entry;
  }
  stale_[directory] = stale || entry != remembered.end();
}

std::string Sources::examine(std::uint32_t index, corpus::SettleBudget& budget) {
  File& file = files_[index];
  corpus::FileContent content = corpus::read_file(path_of(index), budget);
  file.read = true;
  const bool known = file.sound && content.sound && content.identity == corpus_.files[index].identity &&
                     file.state != SourceState::kUnknown;
  if (known) return std::move(content.text);

  corpus_.files[index].identity = content.identity;
  file.sound = content.sound;
  file.error = content.error;
  if (content.status != corpus::ReadStatus::kOk) {
    file.sound = false;
    file.state =
        content.status == corpus::ReadStatus::kTooLarge ? SourceState::kTooLarge : SourceState::kUnreadable;
    return {};
  }
  switch (corpus::classify(content.text)) {
    case corpus::TextKind::kBinary:
      file.state = SourceState::kBinary;
      break;
    case corpus::TextKind::kNotUtf8:
      file.state = SourceState::kNotUtf8;
      break;
    case corpus::TextKind::kText:
      file.state = SourceState::kSection;
      file.section = section_bytes(section_id(content.text, "file"));
      return std::move(content.text);
  }
  file.section = {};
  return {};
}

void Sources::remember(TokenizedCache& cache, std::uint32_t directory) {
  if (!stale_[directory]) return;
  const corpus::CorpusDirectory& place = corpus_.directories[directory];
  const SourceDirectory old = cache.source_directory(place.path).value_or(SourceDirectory());
  SourceDirectory now;
  auto entry = old.begin();
  const auto keep_until = [&](const std::string* name) {
    for (; entry != old.end() && (name == nullptr || entry->name < *name); ++entry) {
      if (place.filtered && still_exists(directory, entry->name)) now.push_back(*entry);
    }
    if (name != nullptr && entry != old.end() && entry->name == *name) ++entry;
  };
  for (const std::uint32_t index : files_in(directory)) {
    const corpus::CorpusFile& found = corpus_.files[index];
    const File& file = files_[index];
    keep_until(&found.name);
    if (file.sound && !file.pending) {
      now.push_back({found.name, found.identity, kind_of(file.state), file.section});
    }
  }
  keep_until(nullptr);
  if (!same(old, now)) cache.put_source_directory(place.path, now);
}

bool Sources::still_exists(std::uint32_t directory, const std::string& name) const {
  struct stat status;
  const std::string path = corpus_.path_of({directory, name, {}});
  return ::lstat(path.c_str(), &status) == 0;
}

}  // namespace tokcask::warm
