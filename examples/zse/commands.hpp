// SPDX-License-Identifier: Apache-2.0
// The commands of the zse program, and the options that those share which open a model.
#pragma once

#include <CLI/CLI.hpp>

#include <zse/config/tier.hpp>
#include <zse/memory/arena.hpp>
#include <zse/planning/settle.hpp>
#include <zse/scheduler/scheduler.hpp>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace zse_cli {

/// What --gpu-layers all stands for.
inline constexpr std::uint32_t all_layers = ~std::uint32_t{0};

/// Where layers go for which the fast tier has no room. That is the gpu tier, or host memory where there is none.
struct OffloadOptions {
    std::optional<std::uint32_t> layers;  ///< outside of the fast tier
    bool automatic = false;               ///< so many layers that the rest fits
    bool device_map = false;              ///< over all tiers, fastest first
    std::optional<zse::Bytes> weights_mem;
    std::string directory;  ///< of the disk tier's files, as stated
    std::string slo;        ///< interactive, batch, or empty

    void declare(CLI::App& command);
    /// Whether layers may come to lie on disk.
    [[nodiscard]] bool may_stream() const noexcept {
        return layers || automatic || device_map || weights_mem;
    }
};

/// What decides how much memory may be taken, and what of the model lies where.
struct BudgetOptions {
    zse::planning::BudgetRequest request;
    std::optional<zse::Size> kv;                    ///< bytes of all pages of KV; none: batch times context
    std::vector<zse::config::TierConfig> kv_tiers;  ///< what of KV lies where, at most; empty: not said
    std::optional<zse::Bytes> swap_space;           ///< what host memory takes of KV that the gpu tier leaves
    std::optional<std::uint32_t> gpu_layers;        ///< none: as many as the gpu tier holds
    OffloadOptions offload;

    /// Declares the options on a command.
    void declare(CLI::App& command);
    void declare_kv_tiers(CLI::App& command);
    /// The caps that kv_tiers state.
    [[nodiscard]] zse::planning::KvCaps kv_caps() const;
    /// The directory of the disk tier's files: --disk-dir, that of a disk tier for KV, or that of temporary files.
    [[nodiscard]] std::filesystem::path disk_directory() const;
    /// The budget on a machine. A disk tier that is not stated is what is free there where layers may come to lie on it,
    /// else what KV and the prompt cache's file may take.
    [[nodiscard]] zse::planning::Budget on(zse::planning::MachineMemory machine,
                                           zse::Bytes prompt_cache) const;
    /// Brings into a wish for a model of wish.layers what is said about them. Throws usage for contradictions.
    void place_layers(const zse::planning::Budget& budget, zse::planning::Wish& wish) const;
};

/// What is kept of keys and values.
struct KvOptions {
    std::string both = "none";
    std::string k, v;                                ///< empty: as `both` says
    std::string old = "none";                        ///< of tokens that are no longer recent; none: the same
    std::uint32_t recent = 0, sinks = 0, heavy = 0;  ///< pruning: see zse::Limits
    bool prompt_cache = true;
    std::string prompt_cache_directory;  ///< empty: prompts are kept in memory alone
    std::optional<zse::Size>
        prompt_cache_size;  ///< none: default_prompt_cache_size, where there is a directory

    static constexpr zse::Bytes default_prompt_cache_size = zse::GiB(1);

    void declare(CLI::App& command);
    void declare_prompt_cache(CLI::App& command);
    /// Bytes of the file behind the prompt cache; 0: there is none.
    [[nodiscard]] zse::Bytes prompt_cache_disk() const;
    /// As an engine's name spells the policy: "int8/int4", "f16-then-int4".
    [[nodiscard]] std::string name() const;
};

/// How memory is taken from the system, and requests from the queue.
struct RunningOptions {
    zse::memory::Mapping mapping;
    zse::scheduler::Admission admission = zse::scheduler::Admission::prompt;
    zse::kv::Eviction eviction = zse::kv::Eviction::lru;
    bool enforce_eager = false;

    void declare(CLI::App& command);
};

/// What decides how much memory an engine holds, and how fast it runs.
struct ModelOptions {
    std::string model;  ///< empty: not named
    BudgetOptions budget;
    KvOptions kv;
    RunningOptions running;
    std::string weights = "as-stored";
    std::string attention = "flash";
    std::uint32_t context = 0;  ///< 0: the smaller of the trained length and what fits
    std::uint32_t batch = 1;
    std::uint32_t step_tokens = 512;
    std::uint32_t page_tokens = 16;
    std::uint32_t threads = 0;  ///< 0: one per usable core
    std::string isa;
    std::string device = "auto";  ///< cpu, cuda, cuda:1, or auto
    std::string numerics = "fast";
    bool json = false;

    /// Declares MODEL and the options on a command.
    void declare(CLI::App& command);
    /// The model's file; throws usage where none is named.
    [[nodiscard]] const std::string& file() const;
    /// Declares the options alone.
    void declare_settings(CLI::App& command);
};

/// Declares --config.
void declare_config(CLI::App& command);

/// Fills options of a command that were not given as flags from the environment and from the file of --config. Throws
/// usage, with the place, where a value there is wrong.
void configure(CLI::App& command);

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
void declare_doctor(CLI::App& app, Action& action);
void declare_plot(CLI::App& app, Action& action);

}  // namespace zse_cli
