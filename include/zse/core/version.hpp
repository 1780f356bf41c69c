// SPDX-License-Identifier: Apache-2.0
// The version of the library, its inline namespace, and the flags it refuses to be built with.
#pragma once

#if defined(__FAST_MATH__)
#error "zse: -ffast-math reorders sums, and equal bits are a promise here; build without it"
#endif

#define ZSE_VERSION_MAJOR 0
#define ZSE_VERSION_MINOR 1
#define ZSE_VERSION_PATCH 0
#define ZSE_VERSION_STRING "0.1.0"

namespace zse::inline v1 {

/// The release as text, "major.minor.patch".
inline constexpr const char* version = ZSE_VERSION_STRING;

}  // namespace zse::inline v1
