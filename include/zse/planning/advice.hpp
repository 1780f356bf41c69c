// SPDX-License-Identifier: Apache-2.0
// What to do when a plan does not fit: which kind of bytes is too many, and steps that help, each with what it saves and
// whether it is enough. Every figure is a difference of two plans.
#pragma once

#include <zse/planning/levers.hpp>
#include <zse/planning/shares.hpp>

#include <string>
#include <vector>

namespace zse::inline v1 {
namespace planning {

/// What there is too much of. KV and activations want opposite cures: a larger share of memory for KV helps the one and
/// harms the other.
enum class Shortage : std::uint8_t { none, weights, kv, activations };

constexpr std::string_view name(Shortage shortage) noexcept {
    constexpr std::array<std::string_view, 4> names{"none", "weights", "kv", "activations"};
    return names[static_cast<std::size_t>(shortage)];
}

/// One thing that a user can do.
struct Step {
    Lever lever = Lever::context;
    std::string option;   ///< as the command line spells it
    Bytes saves = 0;      ///< bytes of the tier that lacks them, alone
    bool enough = false;  ///< alone
    Bytes together = 0;   ///< bytes saved with the steps above it
    bool enough_together = false;
    Setting setting;  ///< with this step alone; unchanged for another model
};

struct Advice {
    Lack lack;
    Shortage shortage = Shortage::none;
    std::vector<Step> steps;
    Setting together;              ///< with as many of the steps as it takes
    bool enough_together = false;  ///< whether that fits

    /// The first step that is enough alone, or null.
    [[nodiscard]] const Step* first_sufficient() const noexcept {
        for (const Step& step : steps) {
            if (step.enough) return &step;
        }
        return nullptr;
    }
};

/// Which bytes are too many: those of weights where they leave no room for anything; else the larger of KV and
/// activations, unless only one of them is large enough to make up for the lack.
inline Shortage shortage_of(const memory::Plan& plan, const Budget& budget) {
    const Lack lack = budget.lack(plan);
    if (lack.bytes == 0) return Shortage::none;
    const bool both = budget.unified && lack.tier == memory::Tier::host;
    const Bytes kv = both ? bytes_of(plan, Part::kv) : bytes_of(plan[lack.tier], Part::kv);
    const Bytes activations =
        both ? bytes_of(plan, Part::activations) : bytes_of(plan[lack.tier], Part::activations);
    if (lack.bytes > saturating_add(kv, activations)) return Shortage::weights;
    if (lack.bytes > kv) return Shortage::activations;
    if (lack.bytes > activations) return Shortage::kv;
    return kv >= activations ? Shortage::kv : Shortage::activations;
}

/// One sentence for users.
constexpr std::string_view diagnosis(Shortage shortage) noexcept {
    switch (shortage) {
        case Shortage::weights: return "the weights are too large: fewer bits per weight, or a smaller model";
        case Shortage::kv:
            return "KV is short: raise the memory it may use (--gpu-memory-utilization, --host-mem), shorten "
                   "the context or use coarser KV";
        case Shortage::activations:
            return "activations are too large: lower the rows of a step or the batch; more memory for KV "
                   "would make it worse";
        case Shortage::none: break;
    }
    return "nothing is short";
}

/// Steps for a plan that does not fit, in the order in which to try them: what costs least comes first, and what cures
/// the shortage comes before what only helps. Empty where it fits.
inline Advice advise(const Planner& plan, const Setting& setting, const Budget& budget,
                     const Proposals& proposals) {
    const memory::Plan before = plan(setting);
    Advice advice;
    advice.lack = budget.lack(before);
    advice.shortage = shortage_of(before, budget);
    if (advice.lack.bytes == 0) return advice;
    const detail::Advisor advisor(plan, budget, proposals, advice.lack.tier);
    const Bytes load = advisor.load(before);
    Setting together = setting;  // with the steps so far
    bool cured = false;

    const auto offer = [&](Lever lever, const auto& turned) {
        const std::optional<Setting> alone = turned(setting);
        if (!alone) return;
        const auto after = plan_if_any(plan, *alone);
        if (!after || advisor.load(*after) >= load) return;
        const Bytes saves = load - advisor.load(*after);
        if (saves < advice.lack.bytes / 100) return;  // not worth a line
        Step step;
        step.lever = lever;
        step.setting = *alone;
        step.option = spelled(lever, setting, *alone);
        step.saves = saves;
        step.enough = budget.holds(*after);
        if (!cured) {
            if (const std::optional<Setting> next = turned(together); next && plan_if_any(plan, *next))
                together = *next;
            cured = advisor.fits(together);
        }
        const Bytes now = advisor.load(plan(together));
        step.together = now < load ? load - now : 0;
        step.enough_together = cured;
        advice.steps.push_back(std::move(step));
    };
    /// Other names of one policy, those that save least first.
    const auto offer_named = [&](Lever lever, const std::vector<std::string>& names,
                                 std::string Setting::*member) {
        std::vector<std::pair<Bytes, std::string>> order;
        for (const std::string& name : names) {
            Setting other = setting;
            other.*member = name;
            if (const auto planned = plan_if_any(plan, other))
                order.emplace_back(advisor.load(*planned), name);
        }
        std::stable_sort(order.begin(), order.end(),
                         [](const auto& a, const auto& b) { return a.first > b.first; });
        for (const auto& [bytes, name] : order) {
            offer(lever, [&, &name = name](Setting from) -> std::optional<Setting> {
                from.*member = name;
                return from;
            });
        }
    };
    const auto kv_levers = [&] {
        offer(Lever::context, [&](const Setting& from) { return advisor.context(from); });
        offer_named(Lever::kv, proposals.kv, &Setting::kv);
    };
    const auto batch = [&] { offer(Lever::batch, [&](const Setting& from) { return advisor.batch(from); }); };
    const auto steps = [&] {
        offer(Lever::step_tokens, [&](const Setting& from) { return advisor.step_tokens(from); });
    };
    const auto placement = [&] {
        offer(Lever::gpu_layers, [&](const Setting& from) { return advisor.gpu_layers(from); });
        offer_named(Lever::weights, proposals.weights, &Setting::weights);
    };
    if (advice.shortage == Shortage::kv) kv_levers(), batch(), steps(), placement();
    if (advice.shortage == Shortage::activations) steps(), batch(), kv_levers(), placement();
    if (advice.shortage == Shortage::weights) placement(), kv_levers(), batch(), steps();

    advice.together = together;
    advice.enough_together = cured;
    for (const Loaded& other : proposals.others) {
        const bool enough = other.bytes >= advice.lack.bytes;
        advice.steps.push_back(
            {Lever::other, text("unload ", other.name), other.bytes, enough, other.bytes, enough, setting});
    }
    // The largest model that fits as it was asked for.
    for (auto other = proposals.models.rbegin(); other != proposals.models.rend(); ++other) {
        const auto planned = plan_if_any(other->plan, setting);
        if (!planned || !budget.holds(*planned) || advisor.load(*planned) >= load) continue;
        const Bytes saved = load - advisor.load(*planned);
        advice.steps.push_back(
            {Lever::model, text("--model ", other->name), saved, true, saved, true, setting});
        break;
    }
    return advice;
}

}  // namespace planning
}  // namespace zse::inline v1
