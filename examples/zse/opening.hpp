// SPDX-License-Identifier: Apache-2.0
// Opens a model with the options of the command line; prints plans and what is held.
#pragma once

#include "commands.hpp"

#include <nlohmann/json.hpp>

#include <zse/memory/measured.hpp>
#include <zse/planning/settle.hpp>
#include <zse/system/hardware.hpp>
#include <zse_engines.hpp>

#include <filesystem>
#include <memory>

namespace zse_cli {

/// A file, its shape and the engine that was chosen for it, before anything is held.
struct Chosen {
    zse::io::Gguf file;
    zse::ModelSpec spec;
    zse::engine::Choice choice;
    zse::engine::Built engine;
    zse::Limits limits;            ///< resolved: the context is known
    zse::planning::Budget budget;  ///< memory that may be used, tier by tier
    RunningOptions running;
    OffloadOptions offload;
    std::filesystem::path disk_directory;
    std::filesystem::path prompt_cache;    ///< directory of the file behind the prompt cache
    bool gpu_layers_open = false;          ///< as many as fit
    std::optional<zse::kernels::Isa> isa;  ///< kernels to use; none: the widest
    int gpu = 0;                           ///< which GPU, where one computes
    std::string gpu_name;
    zse::Bytes gpu_free = 0;  ///< of it, before anything was opened
    zse::Bytes gpu_total = 0;

    /// The choice by its names and limits, for questions to the planner.
    [[nodiscard]] zse::planning::Setting setting() const { return {choice.weights, choice.kv, limits}; }
};

/// Reads the file, finds the engine and settles what the user left open, whether or not the result fits; `output_rows`
/// are rows of logits of a step (0: one a sequence), and the context has room for `least_context` tokens where the user
/// does not say otherwise.
Chosen consider(const ModelOptions& options, std::uint32_t output_rows = 0, std::uint32_t least_context = 0);

/// The same for what will be opened: throws Refused where it does not fit.
Chosen choose(const ModelOptions& options, std::uint32_t output_rows = 0, std::uint32_t least_context = 0);

/// Opens what was chosen under a ledger with the budget's caps, with a progress bar on a terminal.
std::unique_ptr<zse::AnyEngine> open(const Chosen& chosen);

/// Limits as far as options state them: the context may be 0, and layers in the gpu tier may be left open.
zse::Limits limits_of(const ModelOptions& options, const zse::system::Hardware& machine,
                      std::uint32_t output_rows);

/// Memory of the machine as budgets take it; that of GPU `gpu`, where GPUs were looked for.
zse::planning::MachineMemory memory_of(const zse::system::Hardware& machine, int gpu = 0);

/// What computes: the name of an execution policy, and which GPU.
struct Device {
    std::string exec = "cpu";
    int gpu = 0;
};
/// What --device and --numerics stand for here; asks the driver's tool where the choice is open. Throws usage for what
/// neither is.
Device device_of(const ModelOptions& options);

/// The policies' names that options stand for.
zse::engine::Choice choice_of(const ModelOptions& options, const Device& device);

/// The plan of a model by the engine of this name; throws unsupported where it is not built in.
zse::memory::Plan plan_of(const zse::engine::Choice& choice, const zse::ModelSpec& spec,
                          const zse::Limits& limits);

/// Asks the engines of this program, with the attention kernel and the executor of a choice.
zse::planning::Planner planner_of(const zse::ModelSpec& spec, const zse::engine::Choice& choice);

/// {"host": {"weights": n, ..., "total": n}, ...}: tiers that hold something.
nlohmann::json json_of(const zse::memory::Plan& plan);
nlohmann::json json_of(const zse::memory::TierPlan& tier);
/// The same of what a ledger holds.
nlohmann::json held_by(const zse::memory::Ledger& ledger);

/// Pages that changed their tier; nothing is printed where none did.
nlohmann::json json_of(const zse::kv::TierTraffic& traffic);
void print_traffic(std::FILE* out, const zse::kv::TierTraffic& traffic);

/// What the plan says beside what the process grew by since `before`, its resident bytes before the engine was opened.
zse::memory::Measured measure(const zse::AnyEngine& engine, zse::Bytes before);
nlohmann::json json_of(const zse::memory::Measured& measured);

/// Prints what was planned, is held and reserved, and was in use at most, kind by kind; then what was measured after
/// loading.
void print_memory(std::FILE* out, const zse::AnyEngine& engine, const zse::memory::Measured& loaded);

/// Whether all of a plan may be locked in memory; says so on standard error where it may not.
bool can_lock(const zse::memory::Plan& plan);

/// Bytes of the process's resident memory.
zse::Bytes resident_bytes();

/// Dumps JSON; text that is no UTF-8 is replaced, never refused.
std::string dump(const nlohmann::json& value);
nlohmann::json json_of(const zse::model::RingCounts& streamed);

}  // namespace zse_cli
