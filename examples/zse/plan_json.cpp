// SPDX-License-Identifier: Apache-2.0
// The report of zse plan as JSON. What changes with the memory that is free stands under "budget".
#include "plan_report.hpp"

#include "refusal.hpp"

#include <zse/planning/shares.hpp>

namespace zse_cli {

using zse::memory::Kind;
using zse::memory::Plan;
using zse::memory::Tier;
using zse::planning::all_parts;
using zse::planning::Part;
using zse::planning::percent;
using zse::planning::Setting;

namespace {

nlohmann::json json_of(const zse::planning::TierBudget& tier) {
    return {{"memory", tier.memory},
            {"stated", tier.stated},
            {"headroom", tier.headroom},
            {"reserve", tier.reserve},
            {"cap", tier.cap}};
}

nlohmann::json json_of(const Largest& most, const Planned& planned) {
    nlohmann::json out{{"context", most.context}, {"batch", most.batch}};
    out["gpu_layers"] = most.gpu_layers ? nlohmann::json(*most.gpu_layers) : nlohmann::json();
    out["offloaded_layers"] =
        most.gpu_layers ? nlohmann::json(zse::planning::offloaded(*most.gpu_layers, planned.layers()))
                        : nlohmann::json();
    out["weights"] = most.weights.empty() ? nlohmann::json() : nlohmann::json(most.weights);
    return out;
}

}  // namespace

nlohmann::json json_report(const Planned& planned) {
    const Plan& plan = planned.plan;
    const Setting& setting = planned.setting;
    const zse::Limits& limits = setting.limits;
    nlohmann::json out;
    out["models"] = nlohmann::json::array();
    for (const Subject& subject : planned.subjects) {
        const zse::ModelSpec& spec = subject.spec;
        out["models"].push_back({{"name", subject.name},
                                 {"parameters", spec.parameters()},
                                 {"layers", spec.layers},
                                 {"hidden", spec.hidden},
                                 {"heads", spec.heads},
                                 {"kv_heads", spec.kv_heads},
                                 {"head_dim", spec.head_dim},
                                 {"feed_forward", spec.feed_forward},
                                 {"vocabulary", spec.vocabulary},
                                 {"trained_context", spec.trained_context},
                                 {"assumed", subject.assumed}});
    }
    out["engine"] =
        zse::engine::Choice{setting.weights, setting.kv, planned.choice.attention, planned.choice.exec}
            .spelled();
    out["tiers"] = zse_cli::json_of(plan);
    out["static"] = out["dynamic"] = nlohmann::json::object();
    for (const Tier tier : zse::memory::all_tiers) {
        if (plan[tier].total() == 0) continue;
        const zse::Bytes fixed = zse::planning::static_bytes(plan[tier]);
        out["static"][std::string(zse::memory::name(tier))] = fixed;
        out["dynamic"][std::string(zse::memory::name(tier))] = plan[tier].total() - fixed;
    }
    for (const Part part : all_parts) {
        const zse::Bytes bytes = zse::planning::bytes_of(plan, part);
        const zse::planning::Range usual = zse::planning::usual(part);
        out["parts"][std::string(zse::planning::name(part))] = {
            {"bytes", bytes}, {"percent", percent(bytes, plan.total())}, {"usual", {usual.low, usual.high}}};
    }
    out["total"] = plan.total();
    out["total_gb"] = static_cast<double>(plan.total()) / 1e9;
    out["total_gib"] = static_cast<double>(plan.total()) / static_cast<double>(zse::GiB(1));
    out["driver"] = planned.driver;
    out["parameters"] = plan.parameters;
    out["bits_per_weight"] = bits_of(plan);
    const unsigned bits = nominal_bits(planned);
    out["nominal_weights"] = bits == 0 ? nlohmann::json() : nlohmann::json(planned.parameters() * bits / 8);
    out["adapters"] = {{"count", planned.adapters.count},
                       {"rank", planned.adapters.rank},
                       {"bytes", planned.adapter_bytes()}};
    out["context"] = limits.context;
    out["batch"] = limits.batch;
    out["step_tokens"] = limits.step_tokens;
    out["threads"] = limits.threads;
    out["gpu_layers"] = limits.gpu_layers;
    out["disk_layers"] = limits.disk_layers;
    out["disk_output"] = limits.disk_output;
    out["map"] = zse::planning::layer_map(zse::model::Placement(planned.layers(), limits));
    out["kv_tokens"] = limits.kv_tokens;
    out["kv_pages"] = plan.pools[0].pages;
    out["kv_page_bytes"] = plan.pools[0].page_bytes;
    out["kv_bytes_per_token"] = plan.kv_bytes_per_token;
    out["kv_bytes_per_sequence"] = plan.kv_bytes_per_sequence();
    out["kv_bytes"] = plan.of(Kind::kv);
    out["context_gain"] = context_gain(planned);
    out["huge_pages"] = plan.huge_pages_in(Tier::host);
    out["fits"] = planned.fits();
    out["warnings"] = warnings(planned);
    out["sweep"] = nlohmann::json::array();
    for (const std::uint32_t context : planned.contexts) {
        const Plan at = at_context(planned, context);
        out["sweep"].push_back({{"context", context},
                                {"weights", at.of(Kind::weights)},
                                {"kv", at.of(Kind::kv)},
                                {"activations", zse::planning::bytes_of(at, Part::activations)},
                                {"total", at.total()},
                                {"fits", planned.budget.holds(at)}});
    }
    nlohmann::json budget{
        {"gpu", json_of(planned.budget.gpu)},   {"host", json_of(planned.budget.host)},
        {"disk", json_of(planned.budget.disk)}, {"unified", planned.budget.unified},
        {"warnings", budget_warnings(planned)}, {"largest", json_of(largest(planned), planned)}};
    const Tier tier = kv_tier(plan);
    budget["kv_room_percent"] = zse::planning::kv_room(plan[tier], planned.budget[tier].cap);
    if (!planned.fits()) {
        budget["advice"] =
            zse_cli::json_of(setting, advice_on(planned.questions, setting, planned.budget,
                                                planned.subjects.front().spec, planned.choice));
    }
    out["budget"] = std::move(budget);
    return out;
}

}  // namespace zse_cli
