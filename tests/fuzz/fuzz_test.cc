#include <doctest/doctest.h>

#include "replay.h"

using namespace tokcask::fuzz;

TEST_CASE("fuzz: records") { replay(record_target); }
TEST_CASE("fuzz: rows of the metadata table") { replay(rows_target); }
TEST_CASE("fuzz: keys and packed key lists") { replay(keys_target); }
TEST_CASE("fuzz: data files, walked and then read by LMDB") { replay(walker_target); }
TEST_CASE("fuzz: .npz files") { replay(npz_target); }
TEST_CASE("fuzz: manifest.json") { replay(manifest_target); }
TEST_CASE("fuzz: globs and .gitignore files") { replay(patterns_target); }
TEST_CASE("fuzz: shared memory files") { replay(shm_target); }
