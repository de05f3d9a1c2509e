// Checks of a store's tables; see TokenizedCache::verify() for that of a whole store.
#pragma once

#include <tokcask/stats.h>

#include "lmdb/environment.h"

namespace tokcask {

// Every record, every total and every row of a snapshot, against each other. The pages are to be good.
[[nodiscard]] VerifyReport verify_tables(const lmdb::ReadTransaction& transaction);

[[nodiscard]] inline bool is_clean(const VerifyReport& report) noexcept {
  return report.damaged == 0 && report.structure_ok;
}

}  // namespace tokcask
