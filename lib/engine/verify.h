// What a check of a store's file found, as a report.
#pragma once

#include <tokcask/stats.h>

#include "files/store_files.h"

namespace tokcask {

// Of a file that is not fit for LMDB.
[[nodiscard]] VerifyReport report_of(std::vector<std::string> findings);
[[nodiscard]] VerifyReport report_of(const files::Inspection& inspection);

}  // namespace tokcask
