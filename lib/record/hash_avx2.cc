// Compiled with -mavx2, for which xxHash then has its own code. Nothing else may be in here: what another
// file has too, an inline function, could be taken from here for processors that have no AVX2.
#include "record/hash_avx2.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace tokcask::record {

std::uint64_t hash_avx2(const void* data, std::size_t size, std::uint64_t seed) noexcept {
  return XXH3_64bits_withSeed(data, size, seed);
}

}  // namespace tokcask::record
