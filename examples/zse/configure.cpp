// SPDX-License-Identifier: Apache-2.0
// --config, --kv-tier, and what the environment and a file state, for options that the command line leaves open.
#include "commands.hpp"

#include <fmt/core.h>

#include <zse/config/environment.hpp>
#include <zse/config/file.hpp>

#include <array>

namespace zse_cli {
namespace {

namespace config = zse::config;

/// What takes the place of a model: of these, plan has more than one.
bool names_a_model(const CLI::App& command) {
    constexpr std::array ways{"MODEL", "--model", "--params", "--layers", "--hidden", "--models"};
    return std::any_of(ways.begin(), ways.end(), [&](const char* way) {
        const CLI::Option* option = command.get_option_no_throw(way);
        return option != nullptr && option->count() > 0;
    });
}

/// The command's own option; null where it has none of this name.
CLI::Option* option_called(CLI::App& command, std::string_view name) {
    return command.get_option_no_throw(name == "model" ? "MODEL" : zse::text("--", name));
}

/// Values of one option, as if they had been flags.
void apply(CLI::Option& option, const config::Setting& setting, const std::vector<std::string>& values) {
    try {
        for (const std::string& value : values) option.add_result(value);
        option.run_callback();
    } catch (const CLI::ParseError& error) {
        setting.refuse(error.what());
    } catch (const zse::Error& error) {
        setting.refuse(error.what());
    }
}

}  // namespace

void declare_config(CLI::App& command) {
    command
        .add_option(
            "--config",
            "a YAML file of options, by the names that they have here or in vLLM; flags are heard before "
            "the environment (ZSE_MAX_CONTEXT=4096), that before the file")
        ->type_name("FILE")
        ->envname("ZSE_CONFIG");
}

void BudgetOptions::declare_kv_tiers(CLI::App& command) {
    command
        .add_option_function<std::vector<std::string>>(
            "--kv-tier",
            [this](const std::vector<std::string>& tiers) { kv_tiers = zse::config::parse_tiers(tiers); },
            "bytes of KV that a tier holds at most: gpu:auto, cpu:32GB, disk:100GB:PATH; one for each tier, "
            "fastest first; default: no bound but the tier's own")
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
        ->allow_extra_args(false)
        ->type_name("TIER:SIZE")
        ->group("Memory");
}

zse::planning::KvCaps BudgetOptions::kv_caps() const {
    zse::planning::KvCaps caps;
    for (const config::TierConfig& tier : kv_tiers) {
        if (tier.size.automatic) continue;
        if (tier.type == zse::memory::Tier::gpu) caps.gpu = tier.size.bytes;
        if (tier.type == zse::memory::Tier::host) caps.host = tier.size.bytes;
        if (tier.type == zse::memory::Tier::disk) caps.disk = tier.size.bytes;
    }
    // Without a gpu tier KV lies in host memory anyway.
    if (swap_space && !caps.host && request.gpu) caps.host = swap_space;
    return caps;
}

const std::string& ModelOptions::file() const {
    if (model.empty()) {
        throw zse::Error(
            zse::ErrorCode::usage,
            "MODEL is required; name a file, here, as 'model' in the file of --config, or in ZSE_MODEL");
    }
    return model;
}

void configure(CLI::App& command) {
    const CLI::Option* path = command.get_option_no_throw("--config");
    if (path == nullptr) return;
    const config::EnvironmentRead environment = config::read_environment(config::process_environment());
    for (const std::string& note : environment.notes) fmt::print(stderr, "note: {}\n", note);
    const config::Source file =
        path->count() > 0 ? config::read_file(path->as<std::string>()) : config::Source{};

    const auto on_command_line = [&](std::string_view name) {
        if (name == "model") return names_a_model(command);
        const CLI::Option* option = option_called(command, name);
        return option != nullptr && option->count() > 0;
    };
    const config::Source heard = config::in_force(on_command_line, environment.settings, file);
    for (auto setting = heard.begin(); setting != heard.end();) {
        if (!setting->note.empty()) {
            fmt::print(stderr, "note: {}: {}no effect: {}\n", setting->origin.shown(),
                       setting->key.empty() ? "" : zse::text("'", setting->key, "' has "), setting->note);
        }
        // An option of several values has them one after the other.
        std::vector<std::string> values;
        const config::Setting& first = *setting;
        for (; setting != heard.end() && setting->option == first.option; ++setting) {
            if (!setting->value.empty()) values.push_back(setting->value);
        }
        CLI::Option* option = option_called(command, first.option->name);
        if (option != nullptr && !values.empty()) apply(*option, first, values);
    }
}

}  // namespace zse_cli
