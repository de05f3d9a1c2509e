#include "engine/message.h"

#include <fmt/format.h>

#include <cstdio>

namespace tokcask {

void deliver(const MessageSink& sink, Severity severity, std::string_view text) {
  if (sink) {
    sink(severity, text);
  } else {
    fmt::print(stderr, "tokcask: {}: {}\n", severity == Severity::kWarning ? "warning" : "note", text);
  }
}

}  // namespace tokcask
