#include <filesystem>
#include <optional>
#include <utility>

#include <tokcask/cache.h>
#include <tokcask/error.h>

#include "engine/engine.h"
#include "engine/verify.h"
#include "files/salvage.h"
#include "tables/check.h"

namespace tokcask {

namespace {

// What is wrong with a store that cannot be opened; nothing when it can be.
std::optional<VerifyReport> unusable(const std::filesystem::path& root, Options options) {
  options.read_only = true;
  options.observe = true;
  try {
    static_cast<void>(TokenizedCache::open(root, options));
    return std::nullopt;
  } catch (const Error& error) {
    if (error.code() != Errc::kDamaged) throw;
    const files::Inspection inspection = files::inspect(root);
    return inspection.condition == files::Condition::kGood ? report_of({error.what()})
                                                           : report_of(inspection);
  }
}

}  // namespace

VerifyReport verify(const std::filesystem::path& root, const VerifyOptions& verify_options, Options options) {
  options.max_bytes.reset();
  options.read_only = options.observe = !verify_options.repair;
  std::optional<VerifyReport> report = unusable(root, options);
  if (!report) return TokenizedCache::open(root, options).verify(verify_options);
  if (!verify_options.repair) return *std::move(report);
  if (const auto recovery = Engine::recover_if_unusable(root, options)) add_to(*report, *recovery);
  report->repaired = is_clean(verify(root, {}, options));
  return *std::move(report);
}

}  // namespace tokcask
