#pragma once

namespace tokcask::lmdb {

class Environment;

// The environment whose write transaction is this thread's, or null.
inline thread_local const Environment* writing_here = nullptr;

}  // namespace tokcask::lmdb
