#include "npz/manifest.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <optional>
#include <tuple>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <tokcask/error.h>

#include "corpus/file.h"

namespace tokcask::npz {
namespace {

using Json = nlohmann::json;

// One name within a directory: nothing that leads out of it.
bool is_component(std::string_view name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string_view::npos &&
         name.find('\0') == std::string_view::npos;
}

std::uint64_t nanoseconds(double seconds) {
  constexpr double kEnd = 9e9;  // in the year 2255; whatever is later is the future
  const double whole = std::floor(std::clamp(seconds, 0.0, kEnd));
  // Apart, so that the product does not round to multiples of 256.
  const double rest = std::clamp(seconds, 0.0, kEnd) - whole;
  return static_cast<std::uint64_t>(whole) * 1'000'000'000 + static_cast<std::uint64_t>(rest * 1e9);
}

std::string_view text_of(const Json& row, const char* name) {
  const auto found = row.find(name);
  if (found == row.end() || !found->is_string()) {
    throw Error(Errc::kInvalidArgument, fmt::format("its row has no {}", name));
  }
  return found->get_ref<const std::string&>();
}

// Throws Error(kInvalidArgument), which says why it is none.
ManifestRow to_row(const std::string& key, const Json& row) {
  CacheKey parsed = CacheKey::parse(key);
  if (!row.is_object()) throw Error(Errc::kInvalidArgument, "its row is no object");
  const std::string_view shard = text_of(row, "shard");
  const std::string_view filename = text_of(row, "filename");
  if (!is_component(shard) || !is_component(filename)) {
    throw Error(Errc::kInvalidArgument,
                fmt::format("its file '{}/{}' is not inside entries", shard, filename));
  }
  const auto accessed = row.find("last_access_ts");
  if (accessed == row.end() || !accessed->is_number()) {
    throw Error(Errc::kInvalidArgument, "its row has no last_access_ts");
  }
  return {std::move(parsed), nanoseconds(accessed->get<double>()), std::string(shard), std::string(filename)};
}

// Takes each row as the parser is done with it, so that the document is never in memory as a whole; and has
// everything dropped that no manifest has, so that what is in memory is in proportion to what is used.
class Collector {
 public:
  explicit Collector(Manifest& manifest) : manifest_(&manifest) {}

  bool operator()(int depth, Json::parse_event_t event, Json& value) {
    using Event = Json::parse_event_t;
    switch (event) {
      case Event::key:
        return key(depth, value.get_ref<const std::string&>());
      case Event::object_start:
        return depth == 0 || (in_entries_ && depth <= 2);
      case Event::array_start:
        if (depth == 2 && in_entries_) malformed("its row is no object");
        return depth == 1 && in_entries_;
      case Event::object_end:
      case Event::array_end:
      case Event::value:
        return depth != 2 || !in_entries_ || row(value);
    }
    return true;
  }

 private:
  bool key(int depth, const std::string& name) {
    if (depth == 1) {
      in_entries_ = name == "entries";
      return in_entries_ || name == "version" || name == "tokenizer_sha256";
    }
    if (depth == 2) key_ = name;
    return depth == 2 || name == "shard" || name == "filename" || name == "last_access_ts";
  }

  // Never kept by the parser.
  bool row(const Json& value) {
    try {
      manifest_->rows.push_back(to_row(key_, value));
    } catch (const Error& error) {
      malformed(error.what());
    }
    return false;
  }

  void malformed(std::string_view why) { manifest_->malformed.add(fmt::format("{}: {}", key_, why)); }

  Manifest* manifest_;
  bool in_entries_ = false;
  std::string key_;
};

auto place(const ManifestRow& row) { return std::tie(row.shard, row.filename, row.key); }

// As a Python dictionary does: of equal keys the last one counts.
void drop_repeated(std::vector<ManifestRow>& rows) {
  std::stable_sort(rows.begin(), rows.end(), [](const auto& a, const auto& b) { return a.key < b.key; });
  const auto first =
      std::unique(rows.rbegin(), rows.rend(), [](const auto& a, const auto& b) { return a.key == b.key; });
  rows.erase(rows.begin(), first.base());
}

}  // namespace

bool Manifest::knows(std::string_view shard, std::string_view filename) const {
  using Place = std::pair<std::string_view, std::string_view>;
  const Place wanted(shard, filename);
  const auto found = std::lower_bound(
      rows.begin(), rows.end(), wanted,
      [](const ManifestRow& row, const Place& place) { return Place(row.shard, row.filename) < place; });
  return found != rows.end() && Place(found->shard, found->filename) == wanted;
}

Manifest parse_manifest(std::string_view text, const std::string& path) {
  Manifest manifest;
  Json root;
  try {
    root = Json::parse(text.begin(), text.end(), Collector(manifest));
  } catch (const Json::parse_error& error) {
    throw Error(Errc::kDamaged, fmt::format("{}: it is no JSON: at byte {}", path, error.byte));
  } catch (const Json::out_of_range&) {
    throw Error(Errc::kDamaged, fmt::format("{}: it holds a number that is too large", path));
  }
  const auto version = root.is_object() ? root.find("version") : root.end();
  if (!root.is_object() || version == root.end()) {
    throw Error(Errc::kDamaged, fmt::format("{}: it has no version, so it is no manifest of a cache", path));
  }
  if (!version->is_number() || *version != 1) {
    throw Error(Errc::kDamaged,
                fmt::format("{}: it has version {}, and version 1 can be read", path, version->dump()));
  }
  if (const auto entries = root.find("entries"); entries != root.end() && !entries->is_object()) {
    throw Error(Errc::kDamaged, fmt::format("{}: its entries are no object", path));
  }
  if (const auto sha = root.find("tokenizer_sha256"); sha != root.end() && sha->is_string()) {
    manifest.tokenizer_sha = sha->get<std::string>();
  }
  drop_repeated(manifest.rows);
  std::sort(manifest.rows.begin(), manifest.rows.end(),
            [](const auto& a, const auto& b) { return place(a) < place(b); });
  return manifest;
}

Manifest read_manifest(const std::string& directory) {
  const std::string path = directory + "/manifest.json";
  const corpus::UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  struct stat status;
  if (!file.valid() || ::fstat(file.get(), &status) != 0) {
    const bool absent = errno == ENOENT || errno == ENOTDIR;
    throw Error(absent ? Errc::kNotFound : Errc::kIo, fmt::format("{}: {}", path, std::strerror(errno)));
  }
  if (!S_ISREG(status.st_mode)) throw Error(Errc::kDamaged, fmt::format("{}: it is no regular file", path));
  std::string text;
  const int error =
      corpus::read_all(file.get(), static_cast<std::uint64_t>(status.st_size), kMaxManifestBytes, text);
  if (error == EFBIG) throw Error(Errc::kDamaged, fmt::format("{}: it is too large to be a manifest", path));
  if (error != 0) throw Error(Errc::kIo, fmt::format("{}: {}", path, std::strerror(error)));
  return parse_manifest(text, path);
}

}  // namespace tokcask::npz
