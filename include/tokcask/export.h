// Symbol visibility of the tokcask shared library. Everything not marked is hidden.
#pragma once

#if defined(__GNUC__) || defined(__clang__)
#define TOKCASK_API __attribute__((visibility("default")))
#else
#define TOKCASK_API
#endif
