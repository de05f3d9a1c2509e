#include "cli/console.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cctype>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include <fmt/format.h>

#include <tokcask/error.h>

#include "corpus/utf8.h"

namespace tokcask::cli {
namespace {

constexpr std::string_view kRed = "\x1b[31m";
constexpr std::string_view kGreen = "\x1b[32m";
constexpr std::string_view kYellow = "\x1b[33m";
constexpr std::string_view kReset = "\x1b[0m";
constexpr std::string_view kEraseLine = "\r\x1b[K";

bool environment_has(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0';
}

bool is_capable_terminal(int fd) {
  const char* term = std::getenv("TERM");
  return ::isatty(fd) == 1 && (term == nullptr || std::string_view(term) != "dumb");
}

unsigned columns_of(int fd) {
  constexpr unsigned kUsual = 80;
  struct winsize size = {};
  const bool known = ::ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col != 0;
  return known ? size.ws_col : kUsual;
}

// Whether the user's locale writes UTF-8, by the variable that POSIX says decides. Nothing that is told: yes.
bool is_utf8_locale() {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    if (!environment_has(name)) continue;
    std::string value;
    for (const char c : std::string_view(std::getenv(name)))
      if (c != '-') value += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    return value.find("utf8") != std::string::npos;
  }
  return true;
}

// The length of the UTF-8 sequence at the start of `text`, or 0 if there is none.
std::size_t sequence_length(std::string_view text) {
  for (std::size_t length = 1; length <= 4 && length <= text.size(); ++length) {
    if (corpus::is_utf8(text.substr(0, length))) return length;
  }
  return 0;
}

bool is_control(std::string_view sequence) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(sequence[i]); };
  if (sequence.size() == 1) return byte(0) < 0x20 || byte(0) == 0x7F;
  return sequence.size() == 2 && byte(0) == 0xC2 && byte(1) < 0xA0;  // U+0080 to U+009F
}

}  // namespace

int write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t count = ::write(fd, text.data(), text.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno;
    text.remove_prefix(static_cast<std::size_t>(count));
  }
  return 0;
}

std::string printable(std::string_view text) {
  std::string safe;
  safe.reserve(text.size());
  while (!text.empty()) {
    const std::size_t length = sequence_length(text);
    const std::string_view sequence = text.substr(0, length == 0 ? 1 : length);
    if (length != 0 && !is_control(sequence)) {
      safe += sequence;
    } else {
      for (const char byte : sequence) safe += fmt::format("\\x{:02x}", static_cast<unsigned char>(byte));
    }
    text.remove_prefix(sequence.size());
  }
  return safe;
}

Console::Console()
    : terminal_(is_capable_terminal(STDERR_FILENO)),
      color_(terminal_ && !environment_has("NO_COLOR")),
      data_terminal_(is_capable_terminal(STDOUT_FILENO)),
      data_color_(data_terminal_ && !environment_has("NO_COLOR")) {}

std::string Console::colored(std::string_view text, Color color) const {
  if (!data_color_) return std::string(text);
  return fmt::format("{}{}{}", color == Color::kRed ? kRed : kGreen, text, kReset);
}

void Console::data(std::string_view text) {
  const std::lock_guard lock(mutex_);
  erase_progress();
  const int error = write_all(STDOUT_FILENO, text);
  if (error != 0 && error != EPIPE) {
    throw Error(Errc::kIo, fmt::format("standard output: {}", std::strerror(error)));
  }
}

void Console::note(std::string_view text) { line("", "", text); }
void Console::warning(std::string_view text) { line("warning: ", kYellow, text); }
void Console::error(std::string_view text) { line("error: ", kRed, text); }

void Console::progress(std::string_view text) {
  if (!terminal_) return;
  const std::lock_guard lock(mutex_);
  if (text.empty()) return erase_progress();
  write_all(STDERR_FILENO, fmt::format("{}{}", kEraseLine, text));
  progress_shown_ = true;
}

MessageSink Console::sink() {
  return [this](Severity severity, std::string_view text) {
    severity == Severity::kWarning ? warning(printable(text)) : note(printable(text));
  };
}

unsigned Console::width() { return columns_of(STDERR_FILENO); }

Look Console::data_look() {
  if (!is_capable_terminal(STDOUT_FILENO)) return {};
  return {.columns = columns_of(STDOUT_FILENO),
          .color = !environment_has("NO_COLOR"),
          .blocks = is_utf8_locale()};
}

void Console::line(std::string_view label, std::string_view color, std::string_view text) {
  const std::lock_guard lock(mutex_);
  erase_progress();
  const bool colored = color_ && !label.empty();
  write_all(STDERR_FILENO, fmt::format("{}{}{}{}{}\n", label.empty() ? "" : "tokcask: ", colored ? color : "",
                                       label, colored ? kReset : "", text));
}

void Console::erase_progress() {
  if (!progress_shown_) return;
  write_all(STDERR_FILENO, kEraseLine);
  progress_shown_ = false;
}

}  // namespace tokcask::cli
