// SPDX-License-Identifier: Apache-2.0
// The questions that a plan answers backwards: what is the most of something that still fits. Each asks the one plan
// function again and again, so that no answer can differ from what an engine would hold.
#pragma once

#include <zse/model/batch.hpp>
#include <zse/planning/budget.hpp>

#include <algorithm>
#include <functional>
#include <optional>
#include <span>
#include <string>

namespace zse::inline v1 {
namespace planning {

/// The choices that a user may turn to make an engine smaller. Policies go by their names.
struct Setting {
    std::string weights = "as-stored";
    std::string kv = "f16";
    Limits limits;
    friend bool operator==(const Setting&, const Setting&) = default;
};

/// What an engine of a setting would hold. Throws usage or unsupported where there can be none.
using Planner = std::function<memory::Plan(const Setting&)>;

/// The planner of one engine type, whose policies stand: names in settings are not looked at.
template <class E, class Spec>
Planner planner_of(const Spec& spec) {
    return [spec](const Setting& setting) { return E::plan(spec, setting.limits); };
}

/// The largest of low..high for which `fits` holds, if it holds up to some value and no further; none where not even
/// for low.
template <class Fits>
std::optional<std::uint64_t> largest(std::uint64_t low, std::uint64_t high, const Fits& fits) {
    if (low > high || !fits(low)) return std::nullopt;
    if (fits(high)) return high;
    while (high - low > 1) {  // low fits, high does not
        const std::uint64_t middle = low + (high - low) / 2;
        (fits(middle) ? low : high) = middle;
    }
    return low;
}

/// The setting with other limits.
template <class Change>
Setting with(Setting setting, const Change& change) {
    change(setting.limits);
    return setting;
}

/// The setting for so many sequences: a step has a row, and a row of logits, for each.
inline Setting with_batch(const Setting& setting, std::uint32_t batch) {
    return with(setting, [batch](Limits& limits) {
        // Rows of logits beyond one a sequence were asked for, and stay.
        const std::uint32_t rows = std::max(limits.output_rows, limits.batch);
        const std::uint32_t more = rows - limits.batch;
        limits.batch = batch;
        limits.step_tokens = std::max(limits.step_tokens, batch);
        limits.output_rows = std::min(batch + more, limits.step_tokens);
    });
}

/// Tokens of the longest context that fits, at most `most`; 0 where not even one token does.
inline std::uint32_t largest_context(const Planner& plan, const Setting& setting, const Budget& budget,
                                     std::uint32_t most) {
    const auto fits = [&](std::uint64_t context) {
        return budget.holds(
            plan(with(setting, [&](Limits& l) { l.context = static_cast<std::uint32_t>(context); })));
    };
    return static_cast<std::uint32_t>(largest(1, most, fits).value_or(0));
}

/// Sequences of the setting's context that fit at once, at most 4096; 0 where not even one does.
inline std::uint32_t largest_batch(const Planner& plan, const Setting& setting, const Budget& budget) {
    const auto fits = [&](std::uint64_t batch) {
        return budget.holds(plan(with_batch(setting, static_cast<std::uint32_t>(batch))));
    };
    return static_cast<std::uint32_t>(largest(1, 4096, fits).value_or(0));
}

/// The layers that the gpu tier itself holds at most, whether or not the rest fits.
inline std::uint32_t gpu_layers_that_fit(const Planner& plan, const Setting& setting, Bytes cap,
                                         std::uint32_t layers) {
    const auto fits = [&](std::uint64_t count) {
        return plan(with(setting, [&](Limits& l) {
                   l.gpu_layers = static_cast<std::uint32_t>(count);
               })).gpu.total() <= cap;
    };
    return static_cast<std::uint32_t>(largest(0, layers, fits).value_or(0));
}

/// The most layers that can lie in the gpu tier, with the output matrix; none where the rest does not fit its tier. The
/// first tier is filled first, so this offloads fewest layers.
inline std::optional<std::uint32_t> most_gpu_layers(const Planner& plan, const Setting& setting,
                                                    const Budget& budget, std::uint32_t layers) {
    const std::uint32_t most = gpu_layers_that_fit(plan, setting, budget.gpu.cap, layers);
    if (!budget.holds(plan(with(setting, [&](Limits& l) { l.gpu_layers = most; })))) return std::nullopt;
    return most;
}

/// A planner that fills the gpu tier whatever a setting says about it: for questions where layers are left open.
inline Planner filling(const Planner& plan, const Budget& budget, std::uint32_t layers) {
    return [plan, cap = budget.gpu.cap, layers](const Setting& setting) {
        const std::uint32_t count = gpu_layers_that_fit(plan, setting, cap, layers);
        return plan(with(setting, [&](Limits& l) { l.gpu_layers = count; }));
    };
}

/// Layers outside the gpu tier where that holds `gpu_layers`, and the other way round: each is the other's complement.
constexpr std::uint32_t offloaded(std::uint32_t gpu_layers, std::uint32_t layers) noexcept {
    return layers - std::min(layers, gpu_layers);
}

/// The plan of a setting, or none where no engine has these policies.
inline std::optional<memory::Plan> plan_if_any(const Planner& plan, const Setting& setting) {
    try {
        return plan(setting);
    } catch (const Error& error) {
        if (error.code() != ErrorCode::unsupported && error.code() != ErrorCode::usage) throw;
        return std::nullopt;
    }
}

/// The first of these weight precisions, finest first, for which `fits(plan)` holds; empty where it is none.
template <class Fits>
std::string finest_weights_that(const Planner& plan, const Setting& setting, const Fits& fits,
                                std::span<const std::string_view> finest_first) {
    for (const std::string_view weights : finest_first) {
        Setting other = setting;
        other.weights = weights;
        const auto planned = plan_if_any(plan, other);
        if (planned && fits(*planned)) return other.weights;
    }
    return {};
}
inline std::string finest_weights(const Planner& plan, const Setting& setting, const Budget& budget,
                                  std::span<const std::string_view> finest_first) {
    return finest_weights_that(
        plan, setting, [&](const memory::Plan& planned) { return budget.holds(planned); }, finest_first);
}

/// Whether every pool has the pages of one sequence that fills its context.
constexpr bool holds_a_sequence(const memory::Plan& plan) noexcept {
    for (const memory::PoolPlan& pool : plan.kv_pools()) {
        if (pool.pages < pool.sequence_pages) return false;
    }
    return true;
}

/// Tokens that the pages of all sequences hold together (Limits::kv_tokens), the most for which `fits(plan)` holds; none
/// where not even one page does. Whole pages.
template <class Fits>
std::optional<std::uint64_t> largest_pool(const Planner& plan, const Setting& setting, const Fits& fits) {
    const Limits& limits = setting.limits;
    const std::uint64_t pages = saturating_mul(ceil_div(limits.context, limits.page_tokens), limits.batch);
    const auto most = largest(1, pages, [&](std::uint64_t count) {
        return fits(plan(with(setting, [&](Limits& l) { l.kv_tokens = count * limits.page_tokens; })));
    });
    if (!most) return std::nullopt;
    return *most * limits.page_tokens;
}

}  // namespace planning
}  // namespace zse::inline v1
