// SPDX-License-Identifier: Apache-2.0
// What a file or the environment states: an option, its value, and where that stands. And the one rule of who is heard.
#pragma once

#include <zse/config/option.hpp>
#include <zse/core/error.hpp>

#include <algorithm>

namespace zse::inline v1 {
namespace config {

/// Where something stands: in a file, or in the environment.
struct Origin {
    std::string place;         ///< a file's name, or a variable's
    std::uint32_t line = 0;    ///< from 1; 0: all of it
    std::uint32_t column = 0;  ///< in characters, from 1

    /// "zse.yaml:3:5".
    [[nodiscard]] std::string shown() const {
        return line == 0 ? place : zse::text(place, ":", line, ":", column);
    }
};

/// Throws usage: where, and what is wrong there.
[[noreturn]] inline void refuse(const Origin& origin, const std::string& sentence) {
    throw Error(ErrorCode::usage, text(origin.shown(), ": ", sentence));
}

/// One option's value. An option of several values has a setting for each.
struct Setting {
    const Option* option = nullptr;
    std::string key;    ///< that was written in a file, such as max_model_len; empty: of a variable
    std::string value;  ///< as the option's flag takes it
    std::string note;   ///< where the value has no effect: why
    Origin origin;

    /// Throws usage: where, and what is wrong with the value.
    [[noreturn]] void refuse(const std::string& sentence) const {
        config::refuse(origin, key.empty() ? sentence : text("'", key, "': ", sentence));
    }
};

/// All that one file or the environment states.
using Source = std::vector<Setting>;

/// Whether an option, or one that it yields to, is among the settings.
inline bool states(const Source& source, const Option& option) {
    return std::any_of(source.begin(), source.end(), [&](const Setting& setting) {
        return setting.option == &option || has_word(option.yields_to, setting.option->name);
    });
}

/// What holds beside the command line: a flag is heard before the environment, that before the file, and an option that
/// none of them states has its default. `on_command_line` says whether the flag of a name was given.
template <class Given>
Source in_force(const Given& on_command_line, const Source& environment, const Source& file) {
    Source heard;
    const auto hear = [&](const Setting& setting) {
        bool flag = on_command_line(setting.option->name);
        for_each_word(setting.option->yields_to,
                      [&](std::string_view other) { flag = flag || on_command_line(other); });
        if (!flag) heard.push_back(setting);
    };
    for (const Setting& setting : environment) hear(setting);
    for (const Setting& setting : file) {
        if (!states(environment, *setting.option)) hear(setting);
    }
    return heard;
}

}  // namespace config
}  // namespace zse::inline v1
