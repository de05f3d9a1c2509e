// `export` and `import`: what they ask of the formats, and what they make of the answer. The formats are
// Python's; tests/python/test_export.py has them.
#include <doctest/doctest.h>

#include <csignal>
#include <string>
#include <vector>

#include <tokcask/error.h>

#include "support.h"

using namespace tokcask;
using test::Outcome;

namespace {

constexpr const char* kExported =
    R"({"records": 2, "tokens": 5000, "dtype": "uint16", "bytes": 2048, "files": ["/o.bin", "/o.idx"],
        "damaged": 0, "gone": 0, "empty": 0, "masks_dropped": 0})";

std::vector<std::string> export_command(const std::vector<std::string>& more = {}) {
  std::vector<std::string> args = {"export", "store", "out", "--format", "megatron"};
  args.insert(args.end(), more.begin(), more.end());
  return args;
}

// Answers with `answer`, and keeps what it was asked.
struct Formats {
  std::string answer = kExported;
  std::string verb;
  nlohmann::json request;

  Outcome run(const std::vector<std::string>& args) {
    return test::run(args, test::no_loader(),
                     [this](const std::string& asked, const std::string& with, cli::FormatMonitor& monitor) {
                       verb = asked;
                       request = nlohmann::json::parse(with);
                       monitor.warning("a warning");
                       return monitor.advance("exporting", 1, 2) ? answer : std::string();
                     });
  }
};

}  // namespace

TEST_CASE("exchange: a program without formats says where they are") {
  for (const std::vector<std::string>& args :
       {export_command({"--json"}), {"import", "in", "store", "--format", "parquet", "--json"}}) {
    const Outcome outcome = test::run(args);
    CHECK(outcome.code == cli::kExitUsage);
    CHECK(outcome.err.find("install the Python package tokcask") != std::string::npos);
    CHECK(outcome.json()["error"]["exit_code"] == cli::kExitUsage);
  }
}

TEST_CASE("exchange: what is asked, and the figures as text and JSON") {
  Formats formats;
  const Outcome text = formats.run(export_command());
  CHECK(text.code == cli::kExitOk);
  CHECK(text.out.find("5,000 as uint16") != std::string::npos);
  CHECK(text.out.find("/o.idx") != std::string::npos);
  CHECK(text.err.find("warning: a warning") != std::string::npos);
  CHECK(formats.verb == "export");
  CHECK(formats.request == nlohmann::json::parse(R"({"store": "store", "out": "out", "format": "megatron",
      "order": "key", "seed": 0, "drop_masks": false, "overwrite": false})"));
  const Outcome json = formats.run(
      export_command({"--json", "--eod", "7", "--tokenizer", "ab", "--seq-len", "9", "--order", "shuffle",
                      "--seed", "18446744073709551615", "--dtype", "int32", "--force", "--drop-masks"}));
  CHECK(json.json()["schema_version"] == 1);
  CHECK(json.json()["command"] == "export");
  CHECK(json.json()["files"].size() == 2);
  CHECK(formats.request == nlohmann::json::parse(R"({"store": "store", "out": "out", "format": "megatron",
      "order": "shuffle", "seed": 18446744073709551615, "dtype": "int32", "eod": 7, "tokenizer": "ab",
      "sequence_len": 9, "drop_masks": true, "overwrite": true})"));
}

TEST_CASE("exchange: exit codes") {
  Formats formats;
  for (const char* field : {"damaged", "gone"}) {
    nlohmann::json answer = nlohmann::json::parse(kExported);
    answer[field] = 1;
    formats.answer = answer.dump();
    CHECK(formats.run(export_command()).code == cli::kExitFinding);
  }
  formats.answer.clear();
  CHECK(formats.run(export_command()).code == cli::kExitInterrupted);
  CHECK(test::run(export_command(), test::no_loader(),
                  [](const std::string&, const std::string&, cli::FormatMonitor&) -> std::string {
                    throw Error(Errc::kDamaged, "damaged");
                  })
            .code == cli::kExitDamaged);
  formats.answer =
      R"({"records": 3, "tokens": 9, "imported": 1, "already_there": 1, "replaced": 0, "conflicts": 1,
          "conflicting_keys": ["a|b|1"], "declined": 0, "evicted": 0})";
  const Outcome outcome =
      formats.run({"import", "in", "store", "--format", "parquet", "--max-bytes", "1M", "--replace"});
  CHECK(outcome.code == cli::kExitFinding);
  CHECK(outcome.err.find("a|b|1") != std::string::npos);
  CHECK(formats.request == nlohmann::json::parse(R"({"source": "in", "store": "store", "format": "parquet",
      "section": "content", "max_bytes": 1048576, "replace": true})"));
}

TEST_CASE("exchange: mistakes never reach the formats") {
  Formats formats;
  for (const std::vector<std::string>& more : {std::vector<std::string>{"--order", "random"},
                                               {"--eod", "-1"},
                                               {"--dtype", "int64"},
                                               {"--seq-len", "0"}}) {
    CHECK(formats.run(export_command(more)).code == cli::kExitUsage);
  }
  CHECK(formats.run({"export", "store", "\xff", "--format", "mds"}).code == cli::kExitUsage);
  CHECK(formats.run({"import", "in", "store", "--format", "mds"}).code == cli::kExitUsage);
  CHECK(formats.verb.empty());
}
