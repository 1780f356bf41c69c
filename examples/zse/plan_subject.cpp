// SPDX-License-Identifier: Apache-2.0
// Finds what zse plan is asked about, and plans it.
#include "plan_subject.hpp"

#include <zse/model/names.hpp>

#include <filesystem>

namespace zse_cli {

namespace {

/// Formats in which a shape can be taken as stored; the others are policies.
const zse::weights::Format* stored_format(const std::string& name) {
    namespace f = zse::weights::format;
    static const std::pair<const char*, zse::weights::Format> formats[] = {
        {"f32", f::f32}, {"bf16", f::bf16}, {"q4_0", f::q4_0}, {"q4_1", f::q4_1}, {"q8_0", f::q8_0}};
    for (const auto& [known, format] : formats) {
        if (name == known) return &format;
    }
    return nullptr;
}

}  // namespace

Subject subject_called(const std::string& name) {
    std::error_code ignored;
    const bool exists = std::filesystem::exists(name, ignored);
    if (!exists && !name.ends_with(".gguf")) {
        const auto& known = zse::models::require(name);
        return {std::string(known.name), *known.spec, 0, known.spec->parameters(), {}};
    }
    const zse::io::Gguf file = zse::io::Gguf::open(name);
    const zse::ModelSpec spec = zse::model::spec_from_gguf(file);
    return {name, spec, file.file_bytes(), spec.parameters(), {}};
}

zse::memory::Plan plan_of(const Subject& subject, const zse::planning::Setting& setting,
                          const zse::engine::Choice& like, const zse::planning::Adapters& adapters) {
    zse::engine::Choice choice{setting.weights, setting.kv, like.attention, like.exec};
    zse::memory::Plan plan;
    const zse::weights::Format* format = subject.is_shape() ? stored_format(setting.weights) : nullptr;
    if (format != nullptr) {
        choice.weights = "as-stored";
        plan = plan_of(choice, subject.spec.stored_as(*format), setting.limits);
    } else {
        plan = plan_of(choice, subject.spec, setting.limits);
    }
    const zse::model::Placement placement(subject.spec.layers, setting.limits);
    if (adapters.count != 0) zse::planning::add_adapters(plan, subject.spec, placement, adapters);
    return plan;
}

zse::planning::Planner planner_of(const std::vector<Subject>& subjects, const zse::engine::Choice& like,
                                  const zse::planning::Adapters& adapters, bool open_context) {
    // Planners are copied, subjects are large.
    const auto shared = std::make_shared<const std::vector<Subject>>(subjects);
    return [shared, like, adapters, open_context](const zse::planning::Setting& setting) {
        zse::memory::Plan sum;
        bool first = true;
        for (const Subject& subject : *shared) {
            zse::planning::Setting own = setting;
            if (open_context) own.limits.context = std::min(own.limits.context, subject.spec.trained_context);
            const zse::memory::Plan plan = plan_of(subject, own, like, adapters);
            sum = first ? plan : sum + plan;
            first = false;
        }
        return sum;
    };
}

}  // namespace zse_cli
