// Symbol visibility of the tokcask shared library: everything not marked is hidden. And one more attribute.
#pragma once

#if defined(__GNUC__) || defined(__clang__)
#define TOKCASK_API __attribute__((visibility("default")))
#else
#define TOKCASK_API
#endif

// The result points into the object: Clang warns where it outlives that.
#if defined(__clang__)
#define TOKCASK_LIFETIMEBOUND [[clang::lifetimebound]]
#else
#define TOKCASK_LIFETIMEBOUND
#endif
