// A directory for the stores of these tests, in memory where there is such a file system: what is synced
// there costs nothing.
#pragma once

#include <filesystem>

namespace tokcask::test {

class FastDirectory {
 public:
  FastDirectory();
  ~FastDirectory();
  FastDirectory(const FastDirectory&) = delete;
  FastDirectory& operator=(const FastDirectory&) = delete;
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  // Removes what is in it.
  void empty() const;

 private:
  std::filesystem::path path_;
};

}  // namespace tokcask::test
