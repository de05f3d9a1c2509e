// The life of a store in a few dozen calls of the library, each of which may fail, and what may be found in
// the store at each moment.
//
// A step that fails may throw Error, or std::bad_alloc where allocations fail; everything else is a
// violation, as are tokens that were not put under their key, or not last. What a look-up of this process
// finds is what was put last or nothing. What is found in the store later is what the last flush() that
// returned has made sure of, or what was put since.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <tokcask/cache.h>

#include "support.h"

namespace tokcask::test {

class Script {
 public:
  // `disk_full`: puts may be declined, and entries evicted, from the beginning; else when there is a cap.
  // What a declined put was to replace stays where no page is left to remove it with.
  explicit Script(std::filesystem::path root, bool disk_full = false)
      : root_(std::move(root)), disk_full_(disk_full), at_cap_(disk_full) {}

  // Runs the steps until `stop` says so after one of them, or to the end. Leaves the store open where it
  // stopped.
  void run(const std::function<bool()>& stop);
  // Closes the store, if it is open; that may fail, too.
  void close();
  // flush(), if the store is open for writing. Returns what it threw, or nothing.
  std::optional<std::string> flush();

  // Opens the store, which is to be done without failing calls, and looks at all that should be in it.
  void check_store();

  [[nodiscard]] const std::vector<std::string>& violations() const { return violations_; }
  [[nodiscard]] std::uint64_t errors() const { return errors_; }
  [[nodiscard]] std::uint64_t out_of_memory() const { return out_of_memory_; }

  // ---- For who looks on ----
  // Is called whenever something that was done is durable.
  void on_durable(std::function<void()> act) { durable_ = std::move(act); }
  // Versions of what is stored under each key; none: nothing. As flush() has left it.
  using Content = std::map<int, int>;
  [[nodiscard]] Content content();
  static constexpr int kKeys = 80;
  [[nodiscard]] static CacheKey key_of(int number);
  // Which version of a key these tokens are, or nothing: they were never put under it.
  [[nodiscard]] static std::optional<int> version_of(int number, const TokenView& view);
  [[nodiscard]] const char* step() const { return step_; }

 private:
  static constexpr int kUnknown = -1;
  struct Held {
    int newest = 0;          // the version put last; 0: none; kUnknown: any of those possible
    std::set<int> possible;  // versions that the store may have; 0 for nothing
    bool unsure = false;     // put since the last flush()
  };

  bool attempt(const char* what, const std::function<void()>& act);
  void violation(const std::string& text);
  void open(Options options);
  void put(int number, int version);
  void put_range(int from, int to, int version);
  void look_at(int number, const std::optional<TokenView>& view);
  void read_all();
  void use_everything();
  void use_dataset();
  void prune_second_tokenizer();
  void clear();
  void all_may_go();
  bool ends(const char* step);
  void tell_durable() const;

  const std::filesystem::path root_;
  const bool disk_full_;
  bool at_cap_;
  std::optional<TokenizedCache> cache_;
  bool writing_ = false;
  std::map<int, Held> held_;
  std::function<bool()> stop_;
  std::function<void()> durable_;
  const char* step_ = "";
  std::vector<std::string> violations_;
  std::uint64_t errors_ = 0;
  std::uint64_t out_of_memory_ = 0;
};

}  // namespace tokcask::test
