// Where a command's words go: data to standard output, everything else to standard error.
//
// Thread-safe: the store's commit thread sends warnings while the main thread draws progress.
#pragma once

#include <mutex>
#include <string>
#include <string_view>

#include <tokcask/options.h>

#include "cli/plot.h"

namespace tokcask::cli {

// `text` with control bytes and bytes that are not UTF-8 written as \xNN, so that a file's name can neither
// steer a terminal nor break a line.
[[nodiscard]] std::string printable(std::string_view text);

// Writes all of `text` to a descriptor. Returns 0, or errno.
int write_all(int fd, std::string_view text);

enum class Color { kRed, kGreen };

class Console {
 public:
  Console();

  // Writes all of `text` to standard output. A reader that has gone away is not an error: the rest is
  // dropped. Throws Error(kIo) for anything else that keeps it from being written.
  void data(std::string_view text);

  // One line each on standard error, with a label where that helps. Failures to write are ignored.
  void note(std::string_view line);
  void warning(std::string_view line);
  void error(std::string_view line);

  // Replaces the one progress line; empty removes it. Only for a terminal.
  void progress(std::string_view line);

  // Sends the store's messages to this console, which must outlive the store.
  [[nodiscard]] MessageSink sink();

  [[nodiscard]] bool is_terminal() const noexcept { return terminal_; }
  [[nodiscard]] bool data_on_terminal() const noexcept { return data_terminal_; }
  // `text` as data(), in color where standard output is a terminal and NO_COLOR is not set.
  [[nodiscard]] std::string colored(std::string_view text, Color color) const;
  // What standard output can show, as of now: colour, block characters and more columns than 80 only where it
  // is a terminal.
  [[nodiscard]] static Look data_look();
  // Columns of the terminal, as of now.
  [[nodiscard]] static unsigned width();

 private:
  void line(std::string_view label, std::string_view color, std::string_view text);
  void erase_progress();

  std::mutex mutex_;
  const bool terminal_;  // standard error is one that understands cursor movement
  const bool color_;
  const bool data_terminal_;  // standard output is one
  const bool data_color_;
  bool progress_shown_ = false;
};

}  // namespace tokcask::cli
