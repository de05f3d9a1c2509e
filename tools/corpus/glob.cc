#include "corpus/glob.h"

#include <optional>

namespace tokcask::corpus {
namespace {

enum class SetMatch { kYes, kNo, kMalformed };

// <cctype> depends on the locale and is undefined for negative char; ASCII is what patterns mean.
std::optional<bool> in_class(std::string_view name, unsigned char c) noexcept {
  const bool lower = c >= 'a' && c <= 'z';
  const bool upper = c >= 'A' && c <= 'Z';
  const bool digit = c >= '0' && c <= '9';
  const bool graph = c > ' ' && c < 0x7F;
  if (name == "alnum") return lower || upper || digit;
  if (name == "alpha") return lower || upper;
  if (name == "blank") return c == ' ' || c == '\t';
  if (name == "cntrl") return c < ' ' || c == 0x7F;
  if (name == "digit") return digit;
  if (name == "graph") return graph;
  if (name == "lower") return lower;
  if (name == "print") return graph || c == ' ';
  if (name == "punct") return graph && !(lower || upper || digit);
  if (name == "space") return c == ' ' || (c >= '\t' && c <= '\r');
  if (name == "upper") return upper;
  if (name == "xdigit") return digit || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
  return std::nullopt;
}

// Matches `c` against the set whose '[' is at pattern[at]; moves `at` past its ']'.
class SetMatcher {
 public:
  SetMatcher(std::string_view pattern, std::size_t& at, unsigned char c)
      : pattern_(pattern), at_(at), c_(c) {}

  SetMatch match() noexcept {
    ++at_;
    const bool negated = !done() && (peek() == '!' || peek() == '^');
    if (negated) ++at_;
    // A ']' in the first place is a member, not the end.
    for (bool first = true; first || done() || peek() != ']'; first = false) {
      if (done() || !member()) return SetMatch::kMalformed;
    }
    ++at_;
    return found_ != negated ? SetMatch::kYes : SetMatch::kNo;
  }

 private:
  [[nodiscard]] bool done() const noexcept { return at_ >= pattern_.size(); }
  [[nodiscard]] unsigned char peek(std::size_t ahead = 0) const noexcept {
    return at_ + ahead < pattern_.size() ? static_cast<unsigned char>(pattern_[at_ + ahead]) : 0;
  }

  // Takes one member: a byte, an escaped byte, the upper end of a range, or a [:class:].
  bool member() noexcept {
    if (peek() == '-' && range_start_ != 0 && at_ + 1 < pattern_.size() && peek(1) != ']') {
      ++at_;
      if (!unescape()) return false;
      found_ = found_ || (c_ >= range_start_ && c_ <= peek());
      range_start_ = 0;
      ++at_;
      return true;
    }
    if (peek() == '[' && peek(1) == ':') return named_class();
    if (!unescape()) return false;
    take(peek());
    return true;
  }

  bool unescape() noexcept {
    if (peek() == '\\') ++at_;
    return !done();
  }

  void take(unsigned char literal) noexcept {
    found_ = found_ || c_ == literal;
    range_start_ = literal;
    ++at_;
  }

  bool named_class() noexcept {
    const std::size_t start = at_ + 2;
    const std::size_t close = pattern_.find(']', start);
    if (close == std::string_view::npos) return false;
    if (close == start || pattern_[close - 1] != ':') {
      take('[');
      return true;
    }
    const auto in = in_class(pattern_.substr(start, close - 1 - start), c_);
    if (!in) return false;
    found_ = found_ || *in;
    range_start_ = 0;
    at_ = close + 1;
    return true;
  }

  std::string_view pattern_;
  std::size_t& at_;
  unsigned char c_;
  unsigned char range_start_ = 0;  // the last plain member, 0 after a range or a class
  bool found_ = false;
};

// A matcher that goes back only to the latest star and the latest "**/". That is enough: what an earlier one
// could still absorb, the later one can too, and a star never crosses the slash that ends its component.
class Matcher {
 public:
  Matcher(std::string_view pattern, std::string_view text) : pattern_(pattern), text_(text) {}

  bool match() noexcept {
    for (;;) {
      const Step step = advance();
      if (step == Step::kMatched) return true;
      if (step == Step::kNever) return false;
      if (step == Step::kMismatch && !retry()) return false;
    }
  }

 private:
  enum class Step { kOn, kMismatch, kMatched, kNever };
  struct Resume {
    bool active = false;
    std::size_t pattern = 0;
    std::size_t text = 0;
  };

  Step advance() noexcept {
    if (p_ == pattern_.size()) return t_ == text_.size() ? Step::kMatched : Step::kMismatch;
    if (pattern_[p_] == '*') return stars();
    if (t_ == text_.size()) return Step::kMismatch;
    switch (pattern_[p_]) {
      case '?':
        return consume(text_[t_] != '/', 1);
      case '[': {
        std::size_t after = p_;
        const auto set = SetMatcher(pattern_, after, static_cast<unsigned char>(text_[t_])).match();
        if (set == SetMatch::kMalformed) return Step::kNever;
        return consume(set == SetMatch::kYes && text_[t_] != '/', after - p_);
      }
      case '\\':
        if (p_ + 1 == pattern_.size()) return Step::kNever;
        return consume(text_[t_] == pattern_[p_ + 1], 2);
      default:
        return consume(text_[t_] == pattern_[p_], 1);
    }
  }

  Step consume(bool matched, std::size_t pattern_bytes) noexcept {
    if (!matched) return Step::kMismatch;
    p_ += pattern_bytes;
    ++t_;
    return Step::kOn;
  }

  Step stars() noexcept {
    std::size_t end = p_;
    while (end < pattern_.size() && pattern_[end] == '*') ++end;
    const bool component = end - p_ >= 2 && (p_ == 0 || pattern_[p_ - 1] == '/');
    if (component && end == pattern_.size()) return Step::kMatched;
    if (component && pattern_[end] == '/') {
      star_.active = false;
      globstar_ = {true, end + 1, t_};
      p_ = end + 1;
      return Step::kOn;
    }
    star_ = {true, end, t_};
    p_ = end;
    return Step::kOn;
  }

  bool retry() noexcept {
    if (star_.active && star_.text < text_.size() && text_[star_.text] != '/') {
      ++star_.text;
      p_ = star_.pattern;
      t_ = star_.text;
      return true;
    }
    if (!globstar_.active) return false;
    const std::size_t slash = text_.find('/', globstar_.text);
    if (slash == std::string_view::npos) return false;
    star_.active = false;
    globstar_.text = slash + 1;
    p_ = globstar_.pattern;
    t_ = globstar_.text;
    return true;
  }

  std::string_view pattern_;
  std::string_view text_;
  std::size_t p_ = 0;
  std::size_t t_ = 0;
  Resume star_;
  Resume globstar_;
};

}  // namespace

bool glob_match(std::string_view pattern, std::string_view text) noexcept {
  return Matcher(pattern, text).match();
}

std::size_t literal_prefix(std::string_view pattern) noexcept {
  const std::size_t special = pattern.find_first_of("*?[\\");
  return special == std::string_view::npos ? pattern.size() : special;
}

}  // namespace tokcask::corpus
