// SPDX-License-Identifier: Apache-2.0
// Options that environment variables state: ZSE_MAX_CONTEXT for --max-context, and Ollama's names.
#pragma once

#include <zse/config/setting.hpp>
#include <zse/config/tier.hpp>
#include <zse/config/value.hpp>

#include <unistd.h>

#include <string>
#include <string_view>
#include <vector>

namespace zse::inline v1 {
namespace config {

struct Variable {
    std::string name, value;
};

/// The variables of this process.
inline std::vector<Variable> process_environment() {
    std::vector<Variable> variables;
    for (char** each = ::environ; each != nullptr && *each != nullptr; ++each) {
        const std::string_view line = *each;
        const auto equals = line.find('=');
        if (equals == std::string_view::npos) continue;
        variables.push_back({std::string(line.substr(0, equals)), std::string(line.substr(equals + 1))});
    }
    return variables;
}

/// What an environment states, and names in it that were probably meant to state something.
struct EnvironmentRead {
    Source settings;
    std::vector<std::string> notes;
};

namespace detail {

inline constexpr std::string_view own_prefix = "ZSE_";

/// Settings of one variable, added to those before.
inline void read_variable(const Option& option, const Variable& variable, Source& settings) {
    const Origin origin{text("environment variable ", variable.name)};
    if (option.kind == Kind::tiers) {
        const std::vector<std::string> parts = split_tiers(variable.value);
        try {
            for (const TierConfig& tier : parse_tiers(parts))
                settings.push_back({&option, "", flag_of(tier), "", origin});
        } catch (const Error& error) {
            refuse(origin, error.what());
        }
        return;
    }
    const Result<Value> value = value_of(option, variable.value);
    if (!value) refuse(origin, value.error().what());
    settings.push_back({&option, "", value.value().flag, value.value().note, origin});
}

/// The name of an option's variable that this one is nearly; empty where there is none.
inline std::string nearest_variable(std::string_view key) {
    std::vector<std::string> names;
    for (const Option& option : options) names.push_back(plain_key(option.name));
    const auto near = near_match(names, key);
    if (!near) return "";
    std::string variable(own_prefix);
    for (const char c : *near) variable += c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
    return variable;
}

/// Ollama takes 0 for what it chooses itself.
inline bool left_open(const Option& option, const Variable& variable) {
    return (option.kind == Kind::count || option.kind == Kind::tokens) && variable.value == "0";
}

}  // namespace detail

/// What `variables` state. An empty variable states nothing. ZSE_ names are heard before Ollama's. Variables of that
/// prefix which are no options belong to others, but those that are nearly one get a note. Throws usage, with the
/// variable's name, where a value is none or two variables state one option.
inline EnvironmentRead read_environment(const std::vector<Variable>& variables) {
    EnvironmentRead read;
    Source aliases;
    const auto stated_in = [](const Source& source, const Option& option) -> const Setting* {
        for (const Setting& setting : source) {
            if (setting.option == &option) return &setting;
        }
        return nullptr;
    };
    for (const Variable& variable : variables) {
        if (variable.value.empty()) continue;
        if (variable.name.starts_with(detail::own_prefix)) {
            const Origin origin{text("environment variable ", variable.name)};
            const std::string key = detail::lowered(variable.name.substr(detail::own_prefix.size()));
            const Option* option = option_of_key(key);
            if (option == nullptr) {
                // --config names the file, and is no option in it.
                if (const std::string near = key == "config" ? "" : detail::nearest_variable(key);
                    !near.empty())
                    read.notes.push_back(text(origin.place, " is no option; did you mean ", near, "?"));
                continue;
            }
            if (const Setting* other = stated_in(read.settings, *option)) {
                refuse(origin, text("states the same option as ", other->origin.place));
            }
            detail::read_variable(*option, variable, read.settings);
            continue;
        }
        for (const Option& option : options) {
            if (has_word(option.environment, variable.name) && !detail::left_open(option, variable))
                detail::read_variable(option, variable, aliases);
        }
    }
    for (Setting& alias : aliases) {
        if (stated_in(read.settings, *alias.option) == nullptr) read.settings.push_back(std::move(alias));
    }
    return read;
}

}  // namespace config
}  // namespace zse::inline v1
