// One target as a libFuzzer program: FUZZ_TARGET is the target's name in target.h.
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>

#include "target.h"

using namespace tokcask::fuzz;

extern "C" {

size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t most);

// A corpus directory that is empty is filled with the seeds.
int LLVMFuzzerInitialize(int* argc, char*** argv) {
  for (int i = 1; i < *argc; ++i) {
    const std::filesystem::path directory = (*argv)[i];
    if (!std::filesystem::is_directory(directory) || !std::filesystem::is_empty(directory)) continue;
    int number = 0;
    for (const std::string& seed : FUZZ_TARGET.seeds()) {
      std::ofstream(directory / ("seed-" + std::to_string(number++)), std::ios::binary) << seed;
    }
  }
  return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FUZZ_TARGET.run({reinterpret_cast<const char*>(data), size});
  return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t most, unsigned seed) {
  if (FUZZ_TARGET.mutate == nullptr || seed % 4 == 0) return LLVMFuzzerMutate(data, size, most);
  Random random(seed);
  std::string bytes(reinterpret_cast<const char*>(data), size);
  FUZZ_TARGET.mutate(bytes, most, random);
  if (bytes.size() > most) bytes.resize(most);
  std::memcpy(data, bytes.data(), bytes.size());
  return bytes.size();
}

}  // extern "C"
