// XXH3 by AVX2. A library of xxHash has only what all processors can do, less than half as fast: 19 GB/s in
// cache, these 46. Its own choice at run time (xxh_x86dispatch) takes AVX-512 where there is that, and
// version 0.8.1 does not clean the upper halves of registers after it, which makes SSE code slow that comes
// later.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tokcask::record {

#if defined(__x86_64__)
// XXH3_64bits_withSeed. Only on a processor with AVX2.
[[nodiscard]] std::uint64_t hash_avx2(const void* data, std::size_t size, std::uint64_t seed) noexcept;
#endif

}  // namespace tokcask::record
