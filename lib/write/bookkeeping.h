// What a commit writes beside entries: figures of runs, access times, the history of declined puts, and what
// is remembered of directories, tokenizer files and tokenizers. Prepared once per batch, applied to the
// transaction that has room for it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "record/rows.h"
#include "shm/access_table.h"
#include "tables/commit.h"
#include "write/pending.h"
#include "write/room.h"

namespace tokcask {

// Access times that were taken out of shared memory and are in no commit yet. They outlive a batch, because a
// commit may fail.
using TakenStamps = std::map<std::uint64_t, std::array<std::uint64_t, rows::kStampsPerChunk>>;

class Bookkeeping {
 public:
  // With `fold`, access times of now are taken as well. `notes` and `stamps` are emptied by committed().
  Bookkeeping(const Batch& batch, shm::AccessTable& access, std::uint64_t max_bytes,
              std::uint64_t stored_hint_bytes, bool fold, std::vector<rows::HistoryRow>& notes,
              TakenStamps& stamps);

  // Whether there is anything that no commit has written yet.
  [[nodiscard]] bool wanted() const;
  [[nodiscard]] bool has_hints() const noexcept { return !hints_.empty(); }
  // Whether the remembered rows pass their share of the budget, together with those that are stored.
  [[nodiscard]] bool passes_share() const noexcept {
    return has_hints() && stored_hint_bytes_ + hint_bytes_ > room::hint_share(max_bytes_);
  }
  [[nodiscard]] room::Work work(std::uint64_t page_bytes, bool with_hints) const;
  // Remembered rows that pass their share of the budget are left out: whoever asks looks at the source again.
  void apply(Commit& commit, bool with_hints);
  // After the commit that it was applied to.
  void committed();

 private:
  struct Saved {
    shm::RunRef run;
    std::uint64_t activity;
    std::uint64_t id;
    std::uint64_t bytes_after;
  };
  using Hint = std::pair<rows::MetaKey, std::vector<std::byte>>;

  void add_hint(const rows::MetaKey& key, std::vector<std::byte> value);
  [[nodiscard]] std::vector<shm::RunTable::Entry> unsaved_runs() const;
  static std::uint64_t id_of(Commit& commit, const RunFigures& run);
  void save(Commit& commit, const shm::RunTable::Entry& entry);

  const Batch* batch_;
  shm::AccessTable* access_;
  std::uint64_t max_bytes_;
  std::uint64_t stored_hint_bytes_;
  std::vector<rows::HistoryRow>* notes_;
  TakenStamps* stamps_;
  std::vector<shm::RunRef> runs_;
  std::vector<Hint> hints_;
  std::uint64_t hint_bytes_ = 0;
  std::vector<Saved> saved_;
  bool done_ = false;
};

}  // namespace tokcask
