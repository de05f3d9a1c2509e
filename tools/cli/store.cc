#include "cli/store.h"

#include <optional>

#include "cli/units.h"

namespace tokcask::cli {
namespace {

// A writer creates what is not there and sets aside what is damaged; a reader says so instead.
Options as_last_written(const std::string& path, Console& console) {
  Options options;
  TokenizedCache cache = open_to_read(path, console);
  if (const std::uint64_t last = cache.stats().last_max_bytes; last != 0) options.max_bytes = last;
  cache.close();
  return options;
}

}  // namespace

TokenizedCache open_to_read(const std::string& path, Console& console) {
  Options options;
  options.read_only = true;
  options.observe = true;
  options.on_message = console.sink();
  return TokenizedCache::open(path, std::move(options));
}

TokenizedCache open_to_change(const std::string& path, Console& console) {
  Options options = as_last_written(path, console);
  options.on_message = console.sink();
  return TokenizedCache::open(path, std::move(options));
}

TokenizedCache open_to_fill(const std::string& path, const std::string& max_bytes, Console& console) {
  Options options;
  if (!max_bytes.empty()) {
    options.max_bytes = parse_size(max_bytes);
  } else {
    try {
      options = as_last_written(path, console);
    } catch (const Error& error) {
      if (error.code() != Errc::kNotFound && error.code() != Errc::kDamaged) throw;
    }
  }
  options.on_message = console.sink();
  return TokenizedCache::open(path, std::move(options));
}

}  // namespace tokcask::cli
