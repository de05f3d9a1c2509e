// Engine::survey(): one pass over entry rows and stamps. Of the records only the first and the last of each
// group are looked at, for when they were made.
#include <algorithm>
#include <bit>
#include <tuple>
#include <unordered_map>
#include <utility>

#include "engine/engine.h"
#include "os/clock.h"
#include "write/victims.h"

namespace tokcask {

namespace {

constexpr std::uint64_t kMinute = 60;
constexpr std::uint64_t kHour = 60 * kMinute;
constexpr std::uint64_t kDay = 24 * kHour;
constexpr std::uint64_t kAges[] = {kMinute, kHour, kDay, 7 * kDay, 30 * kDay, AgeBin::kNoLimit};

// An entry of the table, and where it is.
struct Placed {
  std::uint32_t slot = 0;
  rows::EntryRow row;
};

struct Group {
  SurveyGroup figures;
  Placed first;
  Placed last;
};

// Sums entries up, one after the other.
class Counts {
 public:
  explicit Counts(std::uint64_t now) {
    survey_.taken_ns = now;
    for (const std::uint64_t age : kAges) survey_.last_access.push_back({.under_seconds = age});
  }

  void add(const Placed& entry, std::uint64_t stamp) {
    const std::uint64_t tokens = (entry.row.payload & ~rows::EntryRow::kLiteral) / sizeof(std::int32_t);
    Group& group = group_of(entry);
    ++group.figures.entries;
    group.figures.tokens += tokens;
    group.figures.bytes += entry.row.occupied;
    if (entry.row.generation < group.first.row.generation) group.first = entry;
    if (entry.row.generation > group.last.row.generation) group.last = entry;
    add_to(length_bin(tokens), entry.row);
    add_to(age_bin(stamp), entry.row);
  }

  std::unordered_map<std::uint64_t, Group>& groups() { return groups_; }
  StoreSurvey finish() {
    for (auto& [id, group] : groups_) survey_.groups.push_back(std::move(group.figures));
    std::sort(survey_.groups.begin(), survey_.groups.end(), [](const SurveyGroup& a, const SurveyGroup& b) {
      return std::tie(b.bytes, a.tokenizer_sha, a.sequence_len) <
             std::tie(a.bytes, b.tokenizer_sha, b.sequence_len);
    });
    return std::move(survey_);
  }

 private:
  Group& group_of(const Placed& entry) {
    const std::uint64_t id = std::uint64_t{entry.row.tokenizer} << 32 | entry.row.sequence_len;
    // Neighbours in the table were put together, and so are mostly of one group.
    if (recent_ != nullptr && id == recent_id_) return *recent_;
    const auto [at, is_new] = groups_.try_emplace(id);
    if (is_new) at->second.first = at->second.last = entry;
    recent_ = &at->second;
    recent_id_ = id;
    return *recent_;
  }
  LengthBin& length_bin(std::uint64_t tokens) {
    const auto number = static_cast<std::size_t>(tokens <= 1 ? 0 : std::bit_width(tokens - 1));
    while (survey_.lengths.size() <= number)
      survey_.lengths.push_back({.up_to = std::uint64_t{1} << survey_.lengths.size()});
    return survey_.lengths[number];
  }
  AgeBin& age_bin(std::uint64_t stamp) {
    if (stamp == 0) return survey_.last_access_unknown;
    const std::uint64_t age = stamp >= survey_.taken_ns ? 0 : (survey_.taken_ns - stamp) / 1'000'000'000;
    return *std::find_if(survey_.last_access.begin(), survey_.last_access.end(),
                         [&](const AgeBin& bin) { return age < bin.under_seconds; });
  }
  template <typename Bin>
  static void add_to(Bin& bin, const rows::EntryRow& row) {
    ++bin.entries;
    bin.bytes += row.occupied;
  }

  StoreSurvey survey_;
  std::unordered_map<std::uint64_t, Group> groups_;  // by tokenizer number and sequence length
  Group* recent_ = nullptr;
  std::uint64_t recent_id_ = 0;
};

}  // namespace

StoreSurvey Engine::survey() {
  const lmdb::ReadTransaction transaction(*environment_);
  const rows::StoreRow store = read_store_row(transaction);
  Counts counts(os::now_ns());
  Stamps stamps(transaction, *access_);
  for_each_entry(transaction, store, [&](std::uint32_t slot, const rows::EntryRow& row) {
    counts.add({slot, row}, stamps.of(slot));
  });
  TokenizerNames names;
  names.refresh(transaction, store.tokenizer_count);
  for (auto& [id, group] : counts.groups()) {
    const std::string_view sha = names.name(group.first.row.tokenizer);
    group.figures.tokenizer_sha = sha;
    group.figures.sequence_len = static_cast<std::int32_t>(group.first.row.sequence_len);
    // Those of one commit are put in key order, so that the first may have been made after the last.
    std::tie(group.figures.first_stored_ns, group.figures.last_stored_ns) =
        std::minmax({created_ns(transaction, group.first.slot, group.first.row, sha),
                     created_ns(transaction, group.last.slot, group.last.row, sha)});
  }
  return counts.finish();
}

}  // namespace tokcask
