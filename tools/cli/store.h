// Opening stores.
#pragma once

#include <string>

#include <tokcask/cache.h>

#include "cli/console.h"
#include "cli/verbs.h"

namespace tokcask::cli {

// Never takes the write lock, and leaves no trace: it is no run, and counts nothing. Throws Error(kNotFound)
// when `path` holds no store.
[[nodiscard]] TokenizedCache open_to_read(const std::string& path, Console& console);

// To be changed, with the budget that it was last given. Throws Error(kNotFound) when `path` holds no
// store, and creates none.
[[nodiscard]] TokenizedCache open_to_change(const std::string& path, Console& console);

// To be filled, and made if it is not there.
[[nodiscard]] TokenizedCache open_to_fill(const std::string& path, const Budget& budget, Console& console);

}  // namespace tokcask::cli
