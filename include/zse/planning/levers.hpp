// SPDX-License-Identifier: Apache-2.0
// What a user can turn to make an engine smaller, and how far each has to be turned.
#pragma once

#include <zse/planning/calculator.hpp>

#include <string>
#include <string_view>
#include <vector>

namespace zse::inline v1 {
namespace planning {

enum class Lever : std::uint8_t { context, kv, batch, step_tokens, gpu_layers, weights, model, other };

constexpr std::string_view name(Lever lever) noexcept {
    constexpr std::array<std::string_view, 8> names{"context",    "kv",      "batch", "step_tokens",
                                                    "gpu_layers", "weights", "model", "other"};
    return names[static_cast<std::size_t>(lever)];
}

/// Another model that could take the place of this one.
struct Alternative {
    std::string name;
    Planner plan;
};
/// Another model in the same memory, which could go.
struct Loaded {
    std::string name;
    Bytes bytes = 0;
};

/// What the advisor may propose beyond limits.
struct Proposals {
    std::vector<std::string> kv;        ///< precisions of KV by name
    std::vector<std::string> weights;   ///< precisions of weights by name
    std::vector<Alternative> models;    ///< smaller models, smallest first
    std::vector<Loaded> others;         ///< models to unload
    std::uint32_t layers = 0;           ///< of the model
    std::uint32_t least_context = 512;  ///< shorter ones are of no use
    std::uint32_t least_step_tokens = 32;
};

namespace detail {

/// Options that make KV of `from` that of `to`. Options that chose `from` may stand before them, so each of those is
/// named again.
inline std::string spelled_kv(const std::string& from, const std::string& to) {
    static constexpr std::string_view then = "-then-";
    const auto sides = [](const std::string& kv) { return kv.substr(0, kv.find(then)); };
    const auto old = [](const std::string& kv) {
        const auto at = kv.find(then);
        return at == std::string::npos ? std::string("none") : kv.substr(at + then.size());
    };
    const std::string recent = sides(to);
    const auto slash = recent.find('/');
    std::string option;
    if (slash != std::string::npos || sides(from).find('/') != std::string::npos) {
        const std::string values = slash == std::string::npos ? recent : recent.substr(slash + 1);
        option = text("--cache-type-k ", recent.substr(0, slash), " --cache-type-v ", values);
    } else {
        option = text("--kv-quant ", recent);
    }
    return old(from) == old(to) ? option : text(option, " --kv-old ", old(to));
}

}  // namespace detail

/// A lever's value, as the command line spells it behind options that stand for `from`.
inline std::string spelled(Lever lever, const Setting& from, const Setting& setting) {
    switch (lever) {
        case Lever::context: return text("--max-context ", setting.limits.context);
        case Lever::kv: return detail::spelled_kv(from.kv, setting.kv);
        case Lever::batch: return text("--max-batch ", setting.limits.batch);
        case Lever::step_tokens: return text("--step-tokens ", setting.limits.step_tokens);
        case Lever::gpu_layers: return text("--gpu-layers ", setting.limits.gpu_layers);
        case Lever::weights: return text("--weights ", setting.weights);
        default: return {};
    }
}

/// All levers that differ from one setting to another.
inline std::string spelled(const Setting& from, const Setting& to) {
    std::string all;
    const auto add = [&](bool differs, Lever lever) {
        if (differs) all += (all.empty() ? "" : " ") + spelled(lever, from, to);
    };
    add(from.limits.context != to.limits.context, Lever::context);
    add(from.kv != to.kv, Lever::kv);
    add(from.limits.batch != to.limits.batch, Lever::batch);
    add(from.limits.step_tokens != to.limits.step_tokens, Lever::step_tokens);
    add(from.limits.gpu_layers != to.limits.gpu_layers, Lever::gpu_layers);
    add(from.weights != to.weights, Lever::weights);
    return all;
}

namespace detail {

/// Turns levers on a setting and keeps the mildest change that is enough, or the strongest there is.
class Advisor {
public:
    Advisor(const Planner& plan, const Budget& budget, const Proposals& proposals, memory::Tier tier)
        : plan_(plan), budget_(budget), proposals_(proposals), tier_(tier) {}

    [[nodiscard]] std::optional<Setting> context(const Setting& from) const {
        return lowered(from, from.limits.context, std::min(proposals_.least_context, from.limits.context),
                       [](const Setting& s, std::uint32_t tokens) {
                           return with(s, [&](Limits& l) {
                               l.context = tokens;
                               l.kv_tokens = std::min(l.kv_tokens, std::uint64_t{l.batch} * tokens);
                           });
                       });
    }
    [[nodiscard]] std::optional<Setting> batch(const Setting& from) const {
        return lowered(from, from.limits.batch, 1, with_batch);
    }
    [[nodiscard]] std::optional<Setting> step_tokens(const Setting& from) const {
        const std::uint32_t least = std::max(proposals_.least_step_tokens, from.limits.batch);
        return lowered(from, from.limits.step_tokens, std::min(least, from.limits.step_tokens),
                       [](const Setting& s, std::uint32_t rows) {
                           return with(s, [&](Limits& l) {
                               l.step_tokens = rows;
                               l.output_rows = std::min(l.output_rows, rows);
                           });
                       });
    }
    [[nodiscard]] std::optional<Setting> gpu_layers(const Setting& from) const {
        return lowered(from, from.limits.gpu_layers, 0, [](const Setting& s, std::uint32_t count) {
            return with(s, [&](Limits& l) { l.gpu_layers = count; });
        });
    }
    /// Bytes on the tier that lacks some.
    [[nodiscard]] Bytes load(const memory::Plan& plan) const { return budget_.load(plan, tier_); }
    [[nodiscard]] bool fits(const Setting& setting) const {
        const auto planned = plan_if_any(plan_, setting);
        return planned && budget_.holds(*planned);
    }

private:
    template <class Change>
    [[nodiscard]] std::optional<Setting> lowered(const Setting& from, std::uint32_t now, std::uint32_t least,
                                                 const Change& change) const {
        if (now <= least) return std::nullopt;
        const auto most = largest(least, now - 1, [&](std::uint64_t value) {
            return fits(change(from, static_cast<std::uint32_t>(value)));
        });
        return change(from, static_cast<std::uint32_t>(most.value_or(least)));
    }

    const Planner& plan_;
    const Budget& budget_;
    const Proposals& proposals_;
    memory::Tier tier_;
};

}  // namespace detail
}  // namespace planning
}  // namespace zse::inline v1
