// The identity of a store, which its files in shared memory carry.
#pragma once

#include <array>
#include <cstdint>

namespace tokcask::shm {

using Uuid = std::array<std::uint8_t, 16>;

}  // namespace tokcask::shm
