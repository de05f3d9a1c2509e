// Which process this is: what an object must know that may be inherited through fork().
#pragma once

namespace tokcask {

// 0 in a process that was not forked since it loaded this library, one more in each child. An object that
// belongs to LMDB is used only while this is what it was when the object was made.
[[nodiscard]] unsigned fork_generation() noexcept;

}  // namespace tokcask
