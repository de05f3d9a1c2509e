#include "cli/store.h"

#include "cli/units.h"

namespace tokcask::cli {

TokenizedCache open_to_read(const std::string& path, Console& console) {
  Options options;
  options.read_only = true;
  options.observe = true;
  options.on_message = console.sink();
  return TokenizedCache::open(path, std::move(options));
}

TokenizedCache open_to_change(const std::string& path, Console& console) {
  // A writer creates what is not there and sets aside what is damaged; a reader says so instead.
  open_to_read(path, console).close();
  Options options;
  options.on_message = console.sink();
  return TokenizedCache::open(path, std::move(options));
}

TokenizedCache open_to_fill(const std::string& path, const Budget& budget, Console& console) {
  Options options;
  if (!budget.max_bytes.empty()) options.max_bytes = parse_size(budget.max_bytes);
  options.shrink = budget.shrink;
  options.on_message = console.sink();
  return TokenizedCache::open(path, std::move(options));
}

}  // namespace tokcask::cli
