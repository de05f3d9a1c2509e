// The fuzzers without libFuzzer: a target takes its seeds, the inputs in corpus/NAME that once were too
// much for it, and a few thousand mutations of both.
//
//   TOKCASK_TEST_SEED=N     the mutations of another time again; N is on standard error at the start
//   TOKCASK_FUZZ_ROUNDS=N   so many for each target, for longer runs by hand
#pragma once

#include "target.h"

namespace tokcask::fuzz {

// To be called in a test case.
void replay(const Target& target);

}  // namespace tokcask::fuzz
