#include "cache.h"

namespace tokcask::python {

Handle::Handle(OpenArguments arguments) : arguments_(std::move(arguments)) {
  const LogAtEnd log(messages_);
  Options options = arguments_.options;
  options.on_message = [messages = messages_](Severity severity, std::string_view text) {
    messages->push(severity, text);
  };
  const nb::gil_scoped_release release;
  store_ = TokenizedCache::open(arguments_.path, std::move(options));
}

Handle::~Handle() {
  const LogAtEnd log(messages_);
  const nb::gil_scoped_release release;
  store_.reset();
}

void Handle::close() {
  if (closed_) return;
  const bool read_only = arguments_.options.read_only;
  Stats stats = without_gil([read_only](TokenizedCache& store) {
    // Only what is committed has its final figures.
    if (!read_only) store.flush();
    const Stats figures = store.stats();
    store.close();
    return figures;
  });
  closed_ = true;
  last_stats_ = std::move(stats);
}

Stats Handle::stats() {
  if (last_stats_) return *last_stats_;
  return with_gil([](TokenizedCache& store) { return store.stats(); });
}

}  // namespace tokcask::python
