// SPDX-License-Identifier: Apache-2.0
// The state of a softmax over a part of the tokens; two such states merge in order of position.
#pragma once

#include <zse/core/version.hpp>

#include <limits>

namespace zse::inline v1 {
namespace attention {

/// Of scores s_t and values v_t: greatest = max s_t, sum = sum exp(s_t - greatest), value = sum exp(...) v_t, where
/// value is `[dim]` and lies elsewhere. (Milakov and Gimelshein, arXiv 1805.02867.)
struct Partial {
    float greatest = -std::numeric_limits<float>::infinity();
    float sum = 0;
};

}  // namespace attention
}  // namespace zse::inline v1
