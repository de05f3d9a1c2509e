// merge(): written against the public headers alone.
#include <tokcask/merge.h>

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>
#include <queue>
#include <system_error>
#include <utility>

namespace tokcask {

namespace {

constexpr std::size_t kKeysAtOnce = 1024;
constexpr std::size_t kPayloadAtOnce = std::size_t{16} << 20;

// The entries of one input, in key order.
class Source {
 public:
  Source(TokenizedCache& cache, std::size_t number) : cache_(&cache), number_(number) { fill(); }

  [[nodiscard]] bool at_end() const { return next_ == chunk_.entries.size(); }
  [[nodiscard]] const CacheKey& key() const { return chunk_.entries[next_].info.key; }
  [[nodiscard]] std::size_t number() const { return number_; }
  [[nodiscard]] std::uint64_t damaged() const { return damaged_; }

  // The entry at hand; the next one is then.
  Entry take() {
    Entry entry = std::move(chunk_.entries[next_++]);
    if (at_end()) fill();
    return entry;
  }

 private:
  void fill() {
    while (at_end() && !chunk_.end) {
      chunk_ = {};  // its snapshot goes before the next one is taken
      next_ = 0;
      chunk_ = cache_->entries(position_);
      damaged_ += chunk_.damaged;
    }
  }

  TokenizedCache* cache_;
  std::size_t number_;
  EntryPosition position_;
  EntryChunk chunk_;
  std::size_t next_ = 0;
  std::uint64_t damaged_ = 0;
};

// What the inputs have under one key, in the order in which they were named.
struct Candidate {
  CacheKey key;
  std::vector<Entry> versions;
};

bool same_tokens(const TokenView& a, const TokenView& b) {
  return std::ranges::equal(a.input_ids(), b.input_ids()) && a.mask_is_all_ones() == b.mask_is_all_ones() &&
         (a.mask_is_all_ones() || std::ranges::equal(a.attention_mask(), b.attention_mask())) &&
         std::ranges::equal(a.parts().bytes(), b.parts().bytes());
}

class Merge {
 public:
  Merge(TokenizedCache& out, std::span<TokenizedCache> inputs, const MergeOptions& options)
      : out_(&out), options_(&options) {
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      total_ += inputs[i].stats().entry_count;
      sources_.push_back(std::make_unique<Source>(inputs[i], i));
      if (!sources_.back()->at_end()) queue_.push(sources_.back().get());
    }
  }

  MergeReport run() {
    // What this process has pending would not be seen.
    out_->flush();
    declined_before_ = out_->stats().run.declined;
    while (!queue_.empty()) {
      if (options_->on_progress && !options_->on_progress(report_.entries, total_)) {
        report_.stopped = true;
        break;
      }
      settle(next_candidates());
    }
    out_->flush();
    const Stats stats = out_->stats();
    report_.declined = std::min(stats.run.declined - declined_before_, report_.merged);
    report_.merged -= report_.declined;
    for (const auto& source : sources_) report_.damaged += source->damaged();
    report_.bytes_after = stats.total_bytes;
    return std::move(report_);
  }

 private:
  // The smallest key first, and of equal ones the input that was named first.
  struct Later {
    bool operator()(const Source* a, const Source* b) const {
      const auto order = a->key() <=> b->key();
      return order != 0 ? order > 0 : a->number() > b->number();
    }
  };

  std::vector<Candidate> next_candidates() {
    std::vector<Candidate> candidates;
    std::size_t payload = 0;
    while (!queue_.empty()) {
      Source* const source = queue_.top();
      const bool same = !candidates.empty() && candidates.back().key == source->key();
      if (!same && (candidates.size() == kKeysAtOnce || payload >= kPayloadAtOnce)) break;
      queue_.pop();
      Entry entry = source->take();
      if (!source->at_end()) queue_.push(source);
      ++report_.entries;
      // Of before put() refused it.
      if (entry.view.size() > static_cast<std::size_t>(entry.info.key.sequence_len())) {
        ++report_.damaged;
        continue;
      }
      payload += entry.view.size() * sizeof(std::int32_t);
      if (!same) candidates.push_back({entry.info.key, {}});
      candidates.back().versions.push_back(std::move(entry));
    }
    return candidates;
  }

  void settle(const std::vector<Candidate>& candidates) {
    std::vector<CacheKey> keys;
    keys.reserve(candidates.size());
    for (const Candidate& candidate : candidates) keys.push_back(candidate.key);
    const std::vector<std::optional<Entry>> there = out_->peek_many(keys);
    for (std::size_t i = 0; i < candidates.size(); ++i) settle(candidates[i], there[i]);
  }

  void settle(const Candidate& candidate, const std::optional<Entry>& there) {
    const Entry& kept = there ? *there : candidate.versions.front();
    std::uint64_t last_access = kept.info.last_access_ns;
    for (const Entry& version : candidate.versions) {
      if (&version == &kept) continue;
      if (!same_tokens(version.view, kept.view)) {
        conflict(candidate.key);
        continue;
      }
      ++report_.already_there;
      if (version.info.last_access_ns > last_access) {
        ++report_.newer_access;
        last_access = version.info.last_access_ns;
      }
    }
    if (there &&
        (last_access == kept.info.last_access_ns || out_->raise_last_access(candidate.key, last_access))) {
      return;
    }
    if (there) {
      // It has just been evicted or removed by somebody: one of those that were the same takes its place.
      --report_.already_there;
    }
    ++report_.merged;
    out_->put(candidate.key, kept.view.tokens(),
              {.created_ns = kept.info.created_ns, .last_access_ns = last_access});
  }

  void conflict(const CacheKey& key) {
    ++report_.conflicts;
    std::vector<std::string>& named = report_.conflicting;
    if (named.size() == MergeReport::kMostNamed || (!named.empty() && named.back() == key.canonical()))
      return;
    named.push_back(key.canonical());
  }

  TokenizedCache* out_;
  const MergeOptions* options_;
  std::uint64_t total_ = 0;
  std::uint64_t declined_before_ = 0;
  std::vector<std::unique_ptr<Source>> sources_;
  std::priority_queue<Source*, std::vector<Source*>, Later> queue_;
  MergeReport report_;
};

void refuse_itself(const TokenizedCache& out, std::span<const TokenizedCache> inputs) {
  for (const TokenizedCache& input : inputs) {
    std::error_code error;
    if (std::filesystem::equivalent(out.root() / "data.mdb", input.root() / "data.mdb", error) && !error) {
      throw Error(
          Errc::kInvalidArgument,
          fmt::format("{} is the store to merge into, and cannot be an input too", input.root().string()));
    }
  }
}

}  // namespace

MergeReport merge(TokenizedCache& out, std::span<TokenizedCache> inputs, const MergeOptions& options) {
  refuse_itself(out, inputs);
  return Merge(out, inputs, options).run();
}

}  // namespace tokcask
