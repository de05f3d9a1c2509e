#include <doctest/doctest.h>

#include "replay.h"

using namespace tokcask::fuzz;

TEST_CASE("fuzz: command lines") { replay(command_target); }
