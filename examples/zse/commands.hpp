// SPDX-License-Identifier: Apache-2.0
// The commands of the zse program, and the options that those share which open a model.
#pragma once

#include <CLI/CLI.hpp>

#include <cstdint>
#include <functional>
#include <string>

namespace zse_cli {

/// What decides how much memory an engine holds, and how fast it runs.
struct ModelOptions {
    std::string model;
    std::string weights = "as-stored";
    std::string kv = "none";
    std::string k, v;  ///< empty: as `kv` says
    std::string attention = "flash";
    std::uint32_t context = 0;  ///< 0: the smaller of the trained length and what fits
    std::uint32_t batch = 1;
    std::uint32_t step_tokens = 512;
    std::uint32_t page_tokens = 16;
    std::uint32_t threads = 0;  ///< 0: one per usable core
    std::string isa;
    bool json = false;

    /// Declares MODEL and the options on a command.
    void declare(CLI::App& command);
};

/// Runs after parsing; returns the exit status.
using Action = std::function<int()>;

// Each declares a command and sets the action if the command is given.
void declare_run(CLI::App& app, Action& action);
void declare_info(CLI::App& app, Action& action);
void declare_plan(CLI::App& app, Action& action);
void declare_hardware(CLI::App& app, Action& action);
void declare_tokenize(CLI::App& app, Action& action);
void declare_perplexity(CLI::App& app, Action& action);
void declare_logits(CLI::App& app, Action& action);
void declare_benchmark(CLI::App& app, Action& action);

}  // namespace zse_cli
