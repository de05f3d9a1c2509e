#include "npz/npy.h"

#include <charconv>
#include <optional>
#include <string>

#include <fmt/format.h>

#include <tokcask/error.h>

namespace tokcask::npz {
namespace {

Error malformed(const std::string& why) { return Error(Errc::kInvalidArgument, why); }

// Of Python's grammar, what NumPy writes: one dictionary whose values are a string, a truth value and a tuple
// of numbers.
class HeaderParser {
 public:
  explicit HeaderParser(std::string_view text) : rest_(text) {}

  NpyArray parse() {
    expect('{');
    while (!skip('}')) {
      const std::string_view name = string();
      expect(':');
      if (name == "descr") {
        once(has_descr_);
        descr(string());
      } else if (name == "fortran_order") {
        once(has_order_);
        if (truth()) throw malformed("is in Fortran's order");
      } else if (name == "shape") {
        once(has_shape_);
        shape();
      } else {
        throw malformed("has a header with an unknown key");
      }
      if (skip('}')) break;
      expect(',');
    }
    spaces();
    if (!rest_.empty()) throw malformed("has a header that goes on behind its end");
    if (!has_descr_ || !has_order_ || !has_shape_) throw malformed("has a header that lacks a key");
    return array_;
  }

 private:
  static void once(bool& seen) {
    if (seen) throw malformed("has a header with a key twice");
    seen = true;
  }

  void spaces() {
    const std::size_t end = rest_.find_first_not_of(" \n");
    rest_.remove_prefix(end == std::string_view::npos ? rest_.size() : end);
  }
  bool skip(char c) {
    spaces();
    if (rest_.empty() || rest_.front() != c) return false;
    rest_.remove_prefix(1);
    return true;
  }
  void expect(char c) {
    if (!skip(c)) throw malformed("has a header that is no dictionary as NumPy writes it");
  }

  std::string_view string() {
    spaces();
    const char quote = rest_.empty() ? '\0' : rest_.front();
    const std::size_t end = quote == '\'' || quote == '"' ? rest_.find(quote, 1) : std::string_view::npos;
    if (end == std::string_view::npos)
      throw malformed("has a header that is no dictionary as NumPy writes it");
    const std::string_view text = rest_.substr(1, end - 1);
    rest_.remove_prefix(end + 1);
    return text;
  }

  bool truth() {
    spaces();
    for (const bool value : {false, true}) {
      const std::string_view word = value ? "True" : "False";
      if (!rest_.starts_with(word)) continue;
      rest_.remove_prefix(word.size());
      return value;
    }
    throw malformed("has a header whose fortran_order is neither True nor False");
  }

  void descr(std::string_view text) {
    const auto refuse = [&] {
      return malformed(fmt::format("is of type '{}', which is no integer type", text));
    };
    if (text.size() != 3) throw refuse();
    const char order = text[0];
    const char kind = text[1];
    const unsigned bytes = static_cast<unsigned>(text[2] - '0');
    if (kind != 'i' && kind != 'u') throw refuse();
    if (bytes != 1 && bytes != 2 && bytes != 4 && bytes != 8) throw refuse();
    if (order != '<' && order != '>' && !(order == '|' && bytes == 1)) throw refuse();
    array_.item_bytes = bytes;
    array_.is_signed = kind == 'i';
    array_.big_endian = order == '>';
  }

  void shape() {
    expect('(');
    std::size_t dimensions = 0;
    while (!skip(')')) {
      spaces();
      std::uint64_t count = 0;
      const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), count);
      if (error != std::errc()) throw malformed("has a header whose shape is no tuple of sizes");
      rest_.remove_prefix(static_cast<std::size_t>(end - rest_.data()));
      array_.count = count;
      ++dimensions;
      if (skip(')')) {
        // Without a comma it is a number in brackets, which NumPy does not write.
        if (dimensions == 1) throw malformed("has a header whose shape is no tuple of sizes");
        break;
      }
      expect(',');
    }
    if (dimensions != 1) throw malformed(fmt::format("has {} dimensions instead of one", dimensions));
  }

  std::string_view rest_;
  NpyArray array_;
  bool has_descr_ = false;
  bool has_order_ = false;
  bool has_shape_ = false;
};

}  // namespace

std::size_t npy_length_bytes(std::string_view prefix) {
  if (prefix.size() != kNpyPrefixBytes || !prefix.starts_with("\x93NUMPY")) {
    throw malformed("does not begin as a NumPy array does");
  }
  const auto major = static_cast<unsigned char>(prefix[6]);
  const auto minor = static_cast<unsigned char>(prefix[7]);
  if (major < 1 || major > 3 || minor != 0) {
    throw malformed(
        fmt::format("is a NumPy array of version {}.{}, and 1.0 to 3.0 can be read", major, minor));
  }
  return major == 1 ? 2 : 4;
}

NpyArray parse_npy_header(std::string_view text) {
  if (text.empty() || text.back() != '\n') throw malformed("has a header without an end");
  return HeaderParser(text).parse();
}

}  // namespace tokcask::npz
