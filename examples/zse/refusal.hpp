// SPDX-License-Identifier: Apache-2.0
// The refusal of a plan that does not fit, with the steps that would make it fit.
#pragma once

#include <nlohmann/json.hpp>

#include <zse/engine/catalogue.hpp>
#include <zse/model/spec.hpp>
#include <zse/planning/advice.hpp>

#include <string>

namespace zse_cli {

/// One sentence on what is lacking, and steps on lines of their own.
class Refused : public zse::Error {
public:
    Refused(const zse::memory::Plan& plan, const zse::planning::Setting& setting,
            const zse::planning::Budget& budget, const zse::planning::Advice& advice);
    [[nodiscard]] const std::string& steps() const noexcept { return steps_; }

private:
    std::string steps_;
};

/// Steps for a model of this program's engines; smaller models are those that are known by name.
zse::planning::Advice advice_on(const zse::planning::Planner& plan, const zse::planning::Setting& setting,
                                const zse::planning::Budget& budget, const zse::ModelSpec& spec,
                                const zse::engine::Choice& like);

/// What is lacking, in one sentence.
std::string sentence(const zse::memory::Plan& plan, const zse::planning::Budget& budget,
                     const zse::planning::Advice& advice);

/// A line for each step, and one for all of them together.
std::string lines(const zse::planning::Setting& setting, const zse::planning::Advice& advice);

nlohmann::json json_of(const zse::planning::Setting& setting, const zse::planning::Advice& advice);

}  // namespace zse_cli
