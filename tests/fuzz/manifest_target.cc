#include <tokcask/error.h>

#include "npz/manifest.h"
#include "target.h"

namespace tokcask::fuzz {
namespace {

std::vector<std::string> seeds() {
  const std::string row =
      R"({"size":9,"last_access_ts":1.5e9,"shard":"aa","filename":"b.npz","tokenizer_sha":"t"})";
  return {R"({"version":1,"entries":{}})",
          R"({"version":1,"tokenizer_sha256":"t","total_bytes":9,"entries":{"s|t|1":)" + row + "}}",
          R"({"entries":{"s|t|1":)" + row + R"(,"s|t|2":)" + row + R"(,"s|t|1":[1]},"version":1})",
          R"({"version":2})",
          R"({"version":[[[[]]]],"entries":[]})",
          R"({"version":1,"entries":{"s|t|1":{"last_access_ts":1e400,"shard":"..","filename":"\u0000"}}})"};
}

void run(std::string_view input) {
  try {
    const npz::Manifest manifest = npz::parse_manifest(input, "manifest.json");
    for (const npz::ManifestRow& row : manifest.rows) {
      for (const std::string& name : {row.shard, row.filename}) {
        require(!name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos,
                "a row's file is inside entries");
      }
      require(manifest.knows(row.shard, row.filename), "a manifest knows its files");
    }
  } catch (const Error& error) {
    require(error.code() == Errc::kDamaged, "what is no manifest is damaged");
  }
}

// JSON's own characters, repeated too: nesting is what parsers die of.
void mutate(std::string& bytes, std::size_t most, Random& random) {
  constexpr std::string_view kSpecial = "[]{}\",:\\e-09u ";
  for (std::size_t changes = 1 + below(random, 3); changes > 0; --changes) {
    const std::size_t count = below(random, 64) == 0 ? below(random, 100'000) : 1;
    bytes.insert(below(random, bytes.size() + 1), count, kSpecial[below(random, kSpecial.size())]);
    if (below(random, 2) == 0) bytes.erase(below(random, bytes.size()), 1);
  }
  if (bytes.size() > most) bytes.resize(most);
}

}  // namespace

const Target manifest_target{
    .name = "manifest", .seeds = seeds, .run = run, .mutate = mutate, .rounds = 10'000};

}  // namespace tokcask::fuzz
