// SPDX-License-Identifier: Apache-2.0
// Weights beyond the fast tier: how few layers have to lie on disk, where layers lie, and how fast that can be.
#pragma once

#include <zse/memory/bandwidth.hpp>
#include <zse/model/groups.hpp>
#include <zse/planning/calculator.hpp>

#include <string>

namespace zse::inline v1 {
namespace planning {

/// Bytes of weights that host memory holds: those that lie there, and the ring through which those on disk pass.
constexpr Bytes host_weights(const memory::Plan& plan) noexcept {
    return saturating_add(plan.host[memory::Kind::weights], plan.weights_staging);
}

/// The setting with the `count`-th choice of what is streamed, 0 .. most_streamed(layers): no layers, 1, ... all `layers`
/// of the model; then the same again with the output matrix, which is worth more than any layer.
inline Setting with_streamed(const Setting& setting, std::uint32_t layers, std::uint32_t count) {
    return with(setting, [&](Limits& limits) {
        limits.disk_output = count > layers && limits.gpu_layers == 0;
        limits.disk_layers = count > layers ? count - layers - 1 : count;
    });
}
constexpr std::uint32_t most_streamed(std::uint32_t layers) noexcept {
    return 2 * layers + 1;
}

/// The setting with the fewest streamed weights for which `fits(plan)` holds; none where all of them are not enough. One
/// choice after the other, since neither the ring nor layers of several sizes grow evenly.
template <class Fits>
std::optional<Setting> fewest_streamed(const Planner& plan, const Setting& setting, std::uint32_t layers,
                                       const Fits& fits) {
    for (std::uint32_t count = 0; count <= most_streamed(layers); ++count) {
        const Setting streamed = with_streamed(setting, layers, count);
        if (fits(plan(streamed))) return streamed;
    }
    return std::nullopt;
}

/// The least that --weights-mem can be: bytes of weights in host memory for the best choice.
inline Bytes least_host_weights(const Planner& plan, const Setting& setting, std::uint32_t layers) {
    Bytes least = memory::Caps::unlimited;
    for (std::uint32_t count = 0; count <= most_streamed(layers); ++count) {
        least = std::min(least, host_weights(plan(with_streamed(setting, layers, count))));
    }
    return least;
}

/// The same, or all of them where that is not enough.
template <class Fits>
Setting streamed(const Planner& plan, const Setting& setting, std::uint32_t layers, const Fits& fits) {
    return fewest_streamed(plan, setting, layers, fits)
        .value_or(with_streamed(setting, layers, most_streamed(layers)));
}
/// A planner that has as few weights on disk as `fits(plan)` asks for, whatever a setting says about it.
template <class Fits>
Planner streaming(const Planner& plan, std::uint32_t layers, const Fits& fits) {
    return
        [plan, layers, fits](const Setting& setting) { return plan(streamed(plan, setting, layers, fits)); };
}

/// "layers 0-9 disk, 10-20 host, 21-29 gpu, output gpu".
inline std::string layer_map(const model::Placement& placement) {
    std::string map;
    for (std::uint32_t first = 0; first < placement.layers;) {
        const memory::Tier tier = placement.of_weights(first);
        std::uint32_t last = first;
        while (last + 1 < placement.layers && placement.of_weights(last + 1) == tier) ++last;
        map += text(map.empty() ? "layers " : ", ", first, first == last ? "" : text("-", last), " ",
                    memory::name(tier));
        first = last + 1;
    }
    return text(map, ", output ",
                memory::name(placement.disk_output ? memory::Tier::disk : placement.of_output()));
}

/// Bytes of weights that come from the disk tier for each step, at most: all of them, though of an embedding that is no
/// output matrix only rows are read.
constexpr Bytes streamed_bytes(const memory::Plan& plan) noexcept {
    return plan.disk[memory::Kind::weights];
}

/// Tokens a second of one sequence, at most: what is streamed comes while other weights are read from memory, so the
/// slower of both counts. 0 where nothing was measured.
constexpr double predicted_rate(const memory::Plan& plan, const memory::Bandwidth& bandwidth) noexcept {
    if (bandwidth.memory <= 0) return 0;
    const double in_memory = static_cast<double>(plan.of(memory::Kind::weights)) / bandwidth.memory;
    if (streamed_bytes(plan) == 0) return 1 / in_memory;
    if (bandwidth.disk <= 0) return 0;
    return 1 / std::max(in_memory, static_cast<double>(streamed_bytes(plan)) / bandwidth.disk);
}

/// Opens an engine with `open(limits)`; where memory is refused although the plan fits, since others took some of it
/// meanwhile, with fewer layers in the gpu tier, down to none. What then fails is thrown on.
template <class Open>
auto open_with_fewer_layers(Limits limits, const Open& open) -> decltype(open(limits)) {
    while (limits.gpu_layers != 0) {
        try {
            return open(limits);
        } catch (const Error& error) {
            if (error.code() != ErrorCode::out_of_memory) throw;
            limits.gpu_layers -= std::max(1u, limits.gpu_layers / 8);
        }
    }
    return open(limits);
}

}  // namespace planning
}  // namespace zse::inline v1
