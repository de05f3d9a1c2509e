#include "cache.h"

namespace tokcask::python {

Handle::Handle(OpenArguments arguments)
    : Logged([&](MessageSink sink) {
        Options options = arguments.options;
        options.on_message = std::move(sink);
        return TokenizedCache::open(arguments.path, std::move(options));
      }),
      arguments_(std::move(arguments)) {}

void Handle::close() {
  if (closed_) return;
  const bool read_only = arguments_.options.read_only;
  std::optional<Stats> stats = without_gil([read_only](TokenizedCache& store) -> std::optional<Stats> {
    try {
      // Only what is committed has its final figures.
      if (!read_only) store.flush();
      const Stats figures = store.stats();
      store.close();
      return figures;
    } catch (const Error& error) {
      if (error.code() != Errc::kClosed) throw;
      return std::nullopt;  // another thread is closing it, and has the figures
    }
  });
  closed_ = true;
  if (stats) last_stats_ = std::move(stats);
}

Stats Handle::stats() {
  if (last_stats_) return *last_stats_;
  return with_gil([](TokenizedCache& store) { return store.stats(); });
}

std::uint64_t Handle::run_id() {
  if (last_stats_) return last_stats_->run.run_id;
  // In a forked child it opens the store.
  return without_gil([](TokenizedCache& store) { return store.run_id(); });
}

}  // namespace tokcask::python
