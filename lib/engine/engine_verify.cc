#include <fmt/format.h>

#include <chrono>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <tokcask/error.h>

#include "engine/engine.h"
#include "engine/verify.h"
#include "lmdb/walker.h"
#include "os/mapped_file.h"
#include "tables/check.h"

namespace tokcask {

VerifyReport report_of(std::vector<std::string> findings) {
  VerifyReport report;
  report.structure_ok = false;
  for (std::string& finding : findings) report.findings.push_back({{}, std::move(finding)});
  return report;
}

VerifyReport report_of(const files::Inspection& inspection) {
  if (!inspection.findings.empty()) return report_of(inspection.findings);
  const bool absent = inspection.condition == files::Condition::kAbsent;
  return report_of({fmt::format("data.mdb {}", absent ? "is gone" : inspection.why)});
}

namespace {

// Meta pages are overwritten while others commit, so what is wrong has to stay wrong.
std::vector<std::string> lasting_meta_findings(lmdb::Bytes file) {
  constexpr int kLooks = 8;
  constexpr std::chrono::milliseconds kPause{2};
  std::vector<std::string> findings = lmdb::meta_findings(file);
  for (int looks = 1; !findings.empty() && looks < kLooks; ++looks) {
    std::this_thread::sleep_for(kPause);
    findings = lmdb::meta_findings(file);
  }
  return findings;
}

}  // namespace

VerifyReport Engine::verify() {
  // First the pages, without LMDB, which would trust them: those of a snapshot that is held, so that nobody
  // writes to them meanwhile. Its meta page may be overwritten as soon as two commits have followed.
  constexpr int kMostAttempts = 16;
  try {
    for (int attempt = 0; attempt < kMostAttempts; ++attempt) {
      const lmdb::ReadTransaction transaction(*environment_);
      const std::byte* const map = environment_->map();
      const std::optional<MappedFile> mapped =
          map == nullptr ? std::optional<MappedFile>(root_ / "data.mdb") : std::nullopt;
      const lmdb::Bytes file = mapped ? mapped->bytes() : lmdb::Bytes(map, environment_->file_bytes());
      const auto meta = lmdb::meta_pages(file)[transaction.id() % lmdb::layout::kMetaPages];
      if (!meta || meta->txnid != transaction.id()) continue;
      std::vector<std::string> findings = lasting_meta_findings(file);
      if (!findings.empty()) return report_of(std::move(findings));
      lmdb::WalkReport walked = lmdb::walk_snapshot(file, *meta);
      if (!walked.ok) return report_of(std::move(walked.findings));
      return verify_tables(transaction);
    }
  } catch (const Error& error) {
    // The store row is gone, or the file was cut off.
    if (error.code() != Errc::kDamaged) throw;
    return report_of({fmt::format("data.mdb: {}", error.what())});
  }
  // No meta page is that of the transaction which LMDB takes for the last.
  return report_of(files::inspect(root_));
}

}  // namespace tokcask
