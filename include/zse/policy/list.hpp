// SPDX-License-Identifier: Apache-2.0
// A list of types, for dispatch over closed sets and for products of policies.
#pragma once

#include <zse/core/version.hpp>

namespace zse::inline v1 {
namespace policy {

template <class... T>
struct List {};

}  // namespace policy
}  // namespace zse::inline v1
