#include "directory.h"

#include <stdlib.h>
#include <unistd.h>

#include <stdexcept>
#include <string>

namespace tokcask::test {

namespace fs = std::filesystem;

FastDirectory::FastDirectory() {
  const fs::path memory = "/dev/shm";
  const fs::path base = access(memory.c_str(), W_OK) == 0 ? memory : fs::temp_directory_path();
  std::string name = (base / "tokcask-faults-XXXXXX").string();
  if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("no directory can be made");
  path_ = name;
}

FastDirectory::~FastDirectory() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

void FastDirectory::empty() const {
  for (const fs::directory_entry& entry : fs::directory_iterator(path_)) fs::remove_all(entry.path());
}

}  // namespace tokcask::test
