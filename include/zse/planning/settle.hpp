// SPDX-License-Identifier: Apache-2.0
// Turns what a user left open (context, layers in the gpu tier and on disk, bytes of KV) into limits that a budget holds.
#pragma once

#include <zse/model/groups.hpp>
#include <zse/planning/calculator.hpp>
#include <zse/planning/offload.hpp>

namespace zse::inline v1 {
namespace planning {

/// Bytes of KV that tiers hold at most, where the user says so. Caps, not demands: more than there is means nothing. A
/// slower tier that is named takes what a faster one leaves.
struct KvCaps {
    std::optional<Bytes> gpu, host, disk;

    [[nodiscard]] bool any() const noexcept { return gpu || host || disk; }
    [[nodiscard]] bool hold(const memory::Plan& plan) const noexcept {
        const auto holds = [&](memory::Tier tier, const std::optional<Bytes>& cap) {
            const Bytes asked = plan[tier][memory::Kind::kv];
            return asked <= cap.value_or(asked);
        };
        return holds(memory::Tier::gpu, gpu) && holds(memory::Tier::host, host) &&
               holds(memory::Tier::disk, disk);
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

/// The setting whose pool is spread over the tiers that caps name, with the fewest tokens in slower ones; none where
/// that does not fit.
inline std::optional<Setting> spread(const Planner& plan, const Setting& setting, const Budget& budget,
                                     const KvCaps& caps) {
    const Limits& limits = setting.limits;
    const std::uint64_t whole = saturating_mul(ceil_div(limits.context, limits.page_tokens), limits.batch);
    const std::uint64_t pages =
        limits.kv_tokens == 0 ? whole : std::min(whole, ceil_div(limits.kv_tokens, limits.page_tokens));
    const auto leaving = [&](std::uint64_t to_slower, std::uint64_t to_disk) {
        return with(setting, [&](Limits& l) {
            l.kv_disk_tokens = to_disk * l.page_tokens;
            l.kv_host_tokens = (to_slower - std::min(to_slower, to_disk)) * l.page_tokens;
        });
    };
    // The fewest pages that leave a tier: where it leaves more it holds less.
    const std::uint64_t most_to_disk = pages - std::min(pages, model::pages_of_a_step(limits));
    const auto fewest = [&](std::uint64_t high, const auto& fits) -> std::optional<std::uint64_t> {
        const auto most = largest(0, high, [&](std::uint64_t leave) { return !fits(leave); });
        const std::uint64_t least = most ? *most + 1 : 0;
        return least <= high ? std::optional(least) : std::nullopt;
    };
    const auto gpu_fits = [&](std::uint64_t leave) {
        const auto planned = plan_if_any(plan, leaving(leave, caps.host ? 0 : leave));
        return planned && planned->gpu.total() <= budget.gpu.cap &&
               planned->gpu[memory::Kind::kv] <= caps.gpu.value_or(budget.gpu.cap);
    };
    const auto to_slower = fewest(caps.host ? pages : most_to_disk, gpu_fits);
    if (!to_slower || (*to_slower != 0 && !caps.host && !caps.disk)) return std::nullopt;
    const auto memory_fits = [&](std::uint64_t leave) {
        const auto planned = plan_if_any(plan, leaving(*to_slower, leave));
        return planned && budget.load(*planned, memory::Tier::host) <= budget.host.cap &&
               planned->host[memory::Kind::kv] <= caps.host.value_or(budget.host.cap);
    };
    const auto to_disk = caps.disk ? fewest(most_to_disk, memory_fits) : std::optional<std::uint64_t>(0);
    if (!to_disk) return std::nullopt;
    const Setting found = leaving(*to_slower, caps.host ? *to_disk : std::max(*to_disk, *to_slower));
    const auto planned = plan_if_any(plan, found);
    return planned && budget.holds(*planned) && caps.hold(*planned) ? std::optional(found) : std::nullopt;
}

/// The pool of a setting whose context is known; none where it cannot hold one sequence.
inline std::optional<Setting> with_pool(const Planner& plan, const Setting& setting, const Budget& budget,
                                        const std::optional<Size>& kv, const KvCaps& caps) {
    if (!kv && !caps.any()) return setting;
    if (const bool slower = caps.host || caps.disk; !kv && slower) {
        const memory::Plan whole = plan(setting);
        if (caps.hold(whole) && budget.holds(whole)) return setting;
        if (auto found = spread(plan, setting, budget, caps)) return found;
        if (caps.disk) {
            // The most tokens that all tiers hold together.
            const std::uint64_t pages = saturating_mul(
                ceil_div(setting.limits.context, setting.limits.page_tokens), setting.limits.batch);
            const auto pooled = [&](std::uint64_t count) {
                return with(setting, [&](Limits& l) { l.kv_tokens = count * l.page_tokens; });
            };
            const auto most = largest(1, pages, [&](std::uint64_t count) {
                return spread(plan, pooled(count), budget, caps).has_value();
            });
            auto found = most ? spread(plan, pooled(*most), budget, caps) : std::nullopt;
            if (!found || !holds_a_sequence(plan(*found))) return std::nullopt;
            return found;
        }
        if (caps.hold(whole)) return setting;
    } else if (!kv && caps.hold(plan(setting))) {
        return setting;
    }
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
        throw Error(
            ErrorCode::usage,
            text("the tiers for KV do not hold one sequence of ", setting.limits.context,
                 " tokens, with the pages that a step writes in memory; raise their size (--kv-tier), or "
                 "lower --max-context"));
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
