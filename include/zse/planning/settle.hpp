// SPDX-License-Identifier: Apache-2.0
// Turns what a user left open (context, layers in the gpu tier and on disk, bytes of KV) into limits that a budget holds.
#pragma once

#include <zse/planning/offload.hpp>

namespace zse::inline v1 {
namespace planning {

/// Bytes of KV that tiers hold at most, where the user says so. Caps, not demands: more than there is means nothing.
struct KvCaps {
    std::optional<Bytes> gpu, host;

    [[nodiscard]] bool any() const noexcept { return gpu || host; }
    [[nodiscard]] bool hold(const memory::Plan& plan) const noexcept {
        return plan.gpu[memory::Kind::kv] <= gpu.value_or(plan.gpu[memory::Kind::kv]) &&
               plan.host[memory::Kind::kv] <= host.value_or(plan.host[memory::Kind::kv]);
    }
};

/// A setting with what is left open in it.
struct Wish {
    Setting setting;               ///< a context of 0 is left open
    bool gpu_layers_open = false;  ///< as many as fit
    /// As few as it takes for the rest to fit. A context that is left open too is then no longer than useful_context.
    bool disk_layers_open = false;
    /// Weights in host memory, at most: as few of them on disk as that takes.
    std::optional<Bytes> weights_mem;
    std::optional<Size> kv;  ///< bytes of all pages; automatic: what the tier has left; none: batch * context
    KvCaps kv_caps;
    std::uint32_t layers = 0;  ///< of the model
    std::uint32_t trained_context = 0;
    std::uint32_t least_context = 0;  ///< an open context is no shorter, whether it fits or not
};

/// The context for which layers go to the disk where both are left open: a longer one would cost speed unasked.
inline constexpr std::uint32_t useful_context = 4096;

namespace detail {

/// The pool of a setting whose context is known; none where it cannot hold one sequence.
inline std::optional<Setting> with_pool(const Planner& plan, const Setting& setting, const Budget& budget,
                                        const std::optional<Size>& kv, const KvCaps& caps) {
    if (!kv && (!caps.any() || caps.hold(plan(setting)))) return setting;
    const auto tokens = largest_pool(plan, setting, [&](const memory::Plan& planned) {
        if (!caps.hold(planned)) return false;
        if (!kv) return true;
        return kv->automatic ? budget.holds(planned) : planned.of(memory::Kind::kv) <= kv->bytes;
    });
    if (!tokens) return std::nullopt;
    Setting pooled = setting;
    pooled.limits.kv_tokens = *tokens;
    const memory::Plan planned = plan(pooled);
    if (!holds_a_sequence(planned)) return std::nullopt;
    // A pool for all that the batch can hold needs no bound.
    Setting whole = setting;
    whole.limits.kv_tokens = 0;
    return planned.of(memory::Kind::kv) == plan(whole).of(memory::Kind::kv) ? whole : pooled;
}

/// Layers and pool of a setting whose context is known; none where no choice of them fits.
inline std::optional<Setting> placed(const Planner& plan, const Wish& wish, const Setting& setting,
                                     const Budget& budget) {
    if (!wish.gpu_layers_open) return with_pool(plan, setting, budget, wish.kv, wish.kv_caps);
    // Layers first, with the smallest pool, since layers in the first tier are worth more than waiting sequences.
    Setting least = setting;
    if (wish.kv && wish.kv->automatic) least.limits.kv_tokens = setting.limits.context;
    if (wish.kv ? !wish.kv->automatic : wish.kv_caps.any()) {
        const auto pooled = with_pool(plan, setting, budget, wish.kv, wish.kv_caps);
        if (!pooled) return std::nullopt;
        least = *pooled;
    }
    const auto layers = most_gpu_layers(plan, least, budget, wish.layers);
    if (!layers) return std::nullopt;
    return with_pool(plan, with(setting, [&](Limits& l) { l.gpu_layers = *layers; }), budget, wish.kv,
                     wish.kv_caps);
}

/// Settles a wish whose layers on disk are the planner's or the wish's business.
inline Setting settle_resident(const Planner& plan, const Wish& wish, const Budget& budget) {
    Setting setting = wish.setting;
    if (!wish.gpu_layers_open && setting.limits.gpu_layers != 0 && budget.gpu.cap == 0) {
        throw Error(ErrorCode::usage,
                    text("--gpu-layers ", setting.limits.gpu_layers,
                         " needs memory in the gpu tier, and there is none; state it with --gpu-mem, or use "
                         "--gpu-layers 0"));
    }
    const Bytes caps = saturating_add(budget.gpu.cap, budget.unified ? 0 : budget.host.cap);
    const Bytes room = budget.unified ? std::max(budget.host.cap, caps) : caps;
    if (wish.kv && !wish.kv->automatic && wish.kv->bytes > room) {
        throw Error(ErrorCode::usage,
                    text("--kv-cache-memory ", wish.kv->bytes, " is more than the ", room,
                         " bytes that the tiers may hold; lower it, or raise --gpu-mem or --host-mem"));
    }
    const auto fitting = [&](std::uint64_t context) -> std::optional<Setting> {
        const Setting asked =
            with(setting, [&](Limits& l) { l.context = static_cast<std::uint32_t>(context); });
        std::optional<Setting> found = detail::placed(plan, wish, asked, budget);
        return found && budget.holds(plan(*found)) ? found : std::nullopt;
    };
    if (setting.limits.context == 0) {
        const auto context = largest(1, wish.trained_context,
                                     [&](std::uint64_t tokens) { return fitting(tokens).has_value(); });
        if (context && *context >= wish.least_context) return *fitting(*context);
        setting.limits.context = std::max(wish.least_context, 1u);
    } else if (auto found = fitting(setting.limits.context)) {
        return *found;
    }
    // Nothing fits. A pool that cannot hold a sequence is the user's contradiction, whatever the budget.
    const std::optional<Size> stated = wish.kv && !wish.kv->automatic ? wish.kv : std::nullopt;
    const auto pooled = detail::with_pool(plan, setting, budget, stated, wish.kv_caps);
    if (!pooled && (!stated || detail::with_pool(plan, setting, budget, stated, {}))) {
        throw Error(ErrorCode::usage,
                    text("the tiers for KV do not hold one sequence of ", setting.limits.context,
                         " tokens; raise their size (--kv-tier), or lower --max-context"));
    }
    if (!pooled) {
        throw Error(ErrorCode::usage,
                    text("--kv-cache-memory ", wish.kv->bytes, " does not hold one sequence of ",
                         setting.limits.context, " tokens; raise it, or lower --max-context"));
    }
    setting = *pooled;
    if (wish.kv && wish.kv->automatic) setting.limits.kv_tokens = setting.limits.context;
    if (wish.gpu_layers_open) {  // the lack is then the second tier's
        setting.limits.gpu_layers = gpu_layers_that_fit(plan, setting, budget.gpu.cap, wish.layers);
    }
    return setting;
}

/// Settles a wish with as few weights on disk as `fits(plan)` asks for.
template <class Fits>
Setting settle_streamed(const Planner& plan, const Wish& wish, const Budget& budget, const Fits& fits) {
    const Setting setting = settle_resident(streaming(plan, wish.layers, fits), wish, budget);
    return streamed(plan, setting, wish.layers, fits);
}

}  // namespace detail

/// The setting with nothing left open. An open context is the longest that fits, up to the trained one. The result need
/// not fit: where nothing does, it is the nearest to the wish, for a plan that says what is lacking. Throws usage where
/// the wish contradicts the budget or itself.
inline Setting settle(const Planner& plan, const Wish& wish, const Budget& budget) {
    const auto capped = [cap = wish.weights_mem.value_or(memory::Caps::unlimited)](
                            const memory::Plan& planned) { return host_weights(planned) <= cap; };
    if (wish.disk_layers_open) {
        Wish bounded = wish;
        const bool open = wish.setting.limits.context == 0;
        if (open)
            bounded.least_context =
                std::max(wish.least_context, std::min(wish.trained_context, useful_context));
        Setting resident = detail::settle_resident(plan, bounded, budget);
        const memory::Plan planned = plan(resident);
        if (budget.holds(planned) && capped(planned)) return resident;
        if (open) bounded.setting.limits.context = bounded.least_context;
        return detail::settle_streamed(plan, bounded, budget, [=](const memory::Plan& streamed) {
            return budget.holds(streamed) && capped(streamed);
        });
    }
    if (!wish.weights_mem) return detail::settle_resident(plan, wish, budget);
    Setting setting = detail::settle_streamed(plan, wish, budget, capped);
    if (!capped(plan(setting))) {
        throw Error(ErrorCode::usage,
                    text("--weights-mem ", *wish.weights_mem,
                         " is less than weights take in host memory on their way from disk; the least is ",
                         least_host_weights(plan, setting, wish.layers),
                         ": two layers, or what is not streamed. State that, or use a coarser precision "
                         "(--weights nf4)"));
    }
    return setting;
}

}  // namespace planning
}  // namespace zse::inline v1
