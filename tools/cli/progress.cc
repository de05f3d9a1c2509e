#include "cli/progress.h"

#include <algorithm>

#include <fmt/format.h>

#include "cli/interrupt.h"
#include "cli/units.h"

namespace tokcask::cli {
namespace {

constexpr std::chrono::milliseconds kBetweenDraws{100};

}  // namespace

std::string progress_line(std::string_view phase, std::uint64_t done, std::uint64_t total, unsigned width) {
  if (width < 2) return {};
  const std::size_t columns = width - 1;  // the last column would wrap the cursor on some terminals
  if (total == 0) return fmt::format("{} ...", phase).substr(0, columns);
  done = std::min(done, total);
  const std::string figures =
      fmt::format(" {:3} %  {} of {}",
                  static_cast<unsigned>(static_cast<double>(done) * 100.0 / static_cast<double>(total)),
                  format_count(done), format_count(total));
  const std::string text = fmt::format("{} {}", phase, figures);
  constexpr std::size_t kShortestBar = 5;
  constexpr std::size_t kLongestBar = 40;
  if (text.size() + kShortestBar + 2 > columns) return text.substr(0, columns);
  const std::size_t bar = std::min(columns - text.size() - 2, kLongestBar);
  return fmt::format("{} {}{}", phase, format_bar(done, total, bar), figures);
}

void Progress::begin(std::string_view phase, std::uint64_t total) {
  phase_ = phase;
  total_ = total;
  next_draw_ = {};
  advance(0);
}

void Progress::advance(std::uint64_t done) {
  if (!shown_) return;
  const auto now = std::chrono::steady_clock::now();
  if (now < next_draw_) return;
  next_draw_ = now + kBetweenDraws;
  console_.progress(progress_line(phase_, done, total_, Console::width()));
}

bool Progress::stopped() { return InterruptGuard::requested(); }

void Progress::finish() {
  if (shown_) console_.progress({});
}

}  // namespace tokcask::cli
