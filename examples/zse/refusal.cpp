// SPDX-License-Identifier: Apache-2.0
// What to propose when a plan does not fit, and how it is said.
#include "refusal.hpp"

#include "opening.hpp"

#include <fmt/core.h>

#include <zse/model/models.hpp>

namespace zse_cli {

using zse::planning::Advice;
using zse::planning::Budget;
using zse::planning::Planner;
using zse::planning::Setting;

namespace {

/// A known model in the precision nearest to that of the model it is to replace.
Planner planner_like(const zse::ModelSpec& spec, const zse::engine::Choice& like, double bits) {
    const Planner plan = planner_of(spec, like);
    return [plan, bits](Setting setting) {
        if (setting.weights == "as-stored") setting.weights = bits > 12 ? "f16" : (bits > 6 ? "int8" : "nf4");
        return plan(setting);
    };
}

}  // namespace

Advice advice_on(const Planner& plan, const Setting& setting, const Budget& budget,
                 const zse::ModelSpec& spec, const zse::engine::Choice& like) {
    zse::planning::Proposals proposals;
    proposals.kv = {"f16", "int8", "int8/int4", "int4"};
    proposals.weights = {"f16", "int8", "nf4"};
    proposals.layers = spec.layers;
    const zse::memory::Plan planned = plan(setting);
    const double bits = 8.0 * static_cast<double>(planned.of(zse::memory::Kind::weights)) /
                        static_cast<double>(std::max<std::uint64_t>(planned.parameters, 1));
    for (const auto& model : zse::models::all) {
        if (model.spec->parameters() >= planned.parameters) break;  // smallest first
        if (setting.limits.context > model.spec->trained_context) continue;
        proposals.models.push_back({std::string(model.name), planner_like(*model.spec, like, bits)});
    }
    return zse::planning::advise(plan, setting, budget, proposals);
}

std::string sentence(const zse::memory::Plan& plan, const Budget& budget, const Advice& advice) {
    const zse::Bytes load = budget.load(plan, advice.lack.tier);
    return zse::text("the plan puts ", zse::human(load), " into the ", zse::memory::name(advice.lack.tier),
                     " tier, which may hold ", zse::human(budget[advice.lack.tier].cap), ": ",
                     advice.lack.bytes, " bytes too many; ", zse::planning::diagnosis(advice.shortage));
}

std::string lines(const Setting& setting, const Advice& advice) {
    std::string all;
    std::size_t width = 0;
    for (const auto& step : advice.steps) width = std::max(width, step.option.size());
    std::size_t number = 0;
    bool turned = false;  // more than one lever helps
    for (const auto& step : advice.steps) {
        all += fmt::format("  {}. {:<{}}  saves {:>26}: {}\n", ++number, step.option, width,
                           zse::human(step.saves), step.enough ? "enough" : "not enough alone");
        turned |= step.lever != zse::planning::Lever::model && step.lever != zse::planning::Lever::other;
    }
    if (!turned) return all;
    const std::string together = zse::planning::spelled(setting, advice.together);
    if (!advice.enough_together) {
        all += "  all steps but another model together are not enough\n";
    } else if (!advice.steps.front().enough) {
        all += fmt::format("  together: {}\n", together);
    }
    return all;
}

nlohmann::json json_of(const Setting& setting, const Advice& advice) {
    nlohmann::json steps = nlohmann::json::array();
    for (const auto& step : advice.steps) {
        steps.push_back({{"lever", std::string(zse::planning::name(step.lever))},
                         {"option", step.option},
                         {"saves", step.saves},
                         {"enough", step.enough},
                         {"together_saves", step.together},
                         {"together_enough", step.enough_together}});
    }
    return {{"tier", std::string(zse::memory::name(advice.lack.tier))},
            {"lacks", advice.lack.bytes},
            {"shortage", std::string(zse::planning::name(advice.shortage))},
            {"diagnosis", std::string(zse::planning::diagnosis(advice.shortage))},
            {"steps", steps},
            {"together", advice.enough_together ? zse::planning::spelled(setting, advice.together) : ""}};
}

Refused::Refused(const zse::memory::Plan& plan, const Setting& setting, const Budget& budget,
                 const Advice& advice)
    : zse::Error(zse::ErrorCode::out_of_memory, sentence(plan, budget, advice)),
      steps_(lines(setting, advice)) {}

}  // namespace zse_cli
