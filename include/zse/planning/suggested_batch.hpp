// SPDX-License-Identifier: Apache-2.0
// How many sequences to allow at once, judged by how the last load used its pages.
#pragma once

#include <algorithm>
#include <cstdint>

namespace zse::inline v1 {
namespace planning {

/// A limit for the next load. Sequences that had to give up their pages are a sign of too many: a quarter fewer. Where
/// less than half of the pages were ever in use, as many more as would use nine tenths of them, at most twice as many.
/// `kv_use` is the greatest share of pages in use, 0 to 1.
constexpr std::uint32_t suggested_batch(double kv_use, std::uint64_t preemptions,
                                        std::uint32_t batch) noexcept {
    constexpr double idle = 0.5, full = 0.9;
    constexpr std::uint32_t most = 4096;
    if (preemptions > 0) return std::max(1u, batch - std::max(1u, batch / 4));
    if (!(kv_use < idle)) return batch;
    const double wanted = kv_use > 0 ? batch * (full / kv_use) : 2.0 * batch;
    return std::clamp(static_cast<std::uint32_t>(std::min(wanted, 2.0 * batch)), batch,
                      std::max(batch, most));
}

}  // namespace planning
}  // namespace zse::inline v1
