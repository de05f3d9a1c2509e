// Opening stores that must already be there: every verb but warm.
#pragma once

#include <string>

#include <tokcask/cache.h>

#include "cli/console.h"

namespace tokcask::cli {

// Never takes the write lock. Throws Error(kNotFound) when `path` holds no store.
[[nodiscard]] TokenizedCache open_to_read(const std::string& path, Console& console);

// To be changed. Throws Error(kNotFound) when `path` holds no store, and creates none.
[[nodiscard]] TokenizedCache open_to_change(const std::string& path, Console& console);

}  // namespace tokcask::cli
