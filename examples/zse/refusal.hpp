// SPDX-License-Identifier: Apache-2.0
// The refusal of a plan that does not fit, with the steps that would make it fit.
#pragma once

#include <nlohmann/json.hpp>

#include <zse/model/advice.hpp>
#include <zse/model/spec.hpp>

#include <string>

namespace zse_cli {

/// One sentence on what is lacking, and steps on lines of their own.
class Refused : public zse::Error {
public:
    Refused(const zse::memory::Plan& plan, const zse::model::Setting& setting,
            const zse::model::Budget& budget, const zse::model::Advice& advice);
    [[nodiscard]] const std::string& steps() const noexcept { return steps_; }

private:
    std::string steps_;
};

/// Steps for a model of this program's engines; smaller models are those that are known by name.
zse::model::Advice advice_on(const zse::model::Planner& plan, const zse::model::Setting& setting,
                             const zse::model::Budget& budget, const zse::ModelSpec& spec,
                             const std::string& attention);

/// What is lacking, in one sentence.
std::string sentence(const zse::memory::Plan& plan, const zse::model::Budget& budget,
                     const zse::model::Advice& advice);

/// A line for each step, and one for all of them together.
std::string lines(const zse::model::Setting& setting, const zse::model::Advice& advice);

nlohmann::json json_of(const zse::model::Setting& setting, const zse::model::Advice& advice);

}  // namespace zse_cli
