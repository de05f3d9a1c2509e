// Where a message goes when there is one handle to tell: its sink, or standard error.
#pragma once

#include <string_view>

#include <tokcask/options.h>

namespace tokcask {

void deliver(const MessageSink& sink, Severity severity, std::string_view text);

}  // namespace tokcask
