// SPDX-License-Identifier: Apache-2.0
// What LoRA adapters hold beside a model's weights: two thin matrices for each of a layer's seven.
#pragma once

#include <zse/memory/plan.hpp>
#include <zse/model/groups.hpp>
#include <zse/model/spec.hpp>

namespace zse::inline v1 {
namespace planning {

/// Adapters of one rank, over every matrix of every layer.
struct Adapters {
    std::uint32_t count = 0;
    std::uint32_t rank = 0;
};

/// Bytes of one layer's part of one adapter: A is `[rank, columns]` and B is `[rows, rank]`, both in 16 bits. Hu et al.
/// 2021, "LoRA: Low-Rank Adaptation of Large Language Models". Experts have pairs of their own.
constexpr Bytes adapter_layer_bytes(const ModelSpec& spec, std::uint32_t rank) noexcept {
    const std::uint64_t h = spec.hidden;
    const std::uint64_t blocks = spec.experts == 0 ? 1 : spec.experts;
    const std::uint64_t sides = (h + spec.q_width())                                    // q
                                + 2 * (h + std::uint64_t{spec.kv_width()})              // k and v
                                + (spec.q_width() + h)                                  // o
                                + 3 * blocks * (h + std::uint64_t{spec.feed_forward});  // gate, up, down
    return saturating_mul(2 * std::uint64_t{rank}, sides);
}

/// Bytes of all adapters in a tier: they lie where their layers do.
constexpr Bytes adapter_bytes(const ModelSpec& spec, const model::Placement& placement,
                              const Adapters& adapters, memory::Tier tier) noexcept {
    std::uint64_t layers = 0;
    for (std::uint32_t layer = 0; layer < spec.layers; ++layer) layers += placement.of_layer(layer) == tier;
    return saturating_mul(saturating_mul(adapter_layer_bytes(spec, adapters.rank), layers), adapters.count);
}

/// Adds the adapters to a plan's weights, as one arena in each tier.
constexpr void add_adapters(memory::Plan& plan, const ModelSpec& spec, const model::Placement& placement,
                            const Adapters& adapters) noexcept {
    for (const memory::Tier tier : {memory::Tier::gpu, memory::Tier::host}) {
        plan.add(tier, memory::Kind::weights, adapter_bytes(spec, placement, adapters, tier));
    }
}

}  // namespace planning
}  // namespace zse::inline v1
