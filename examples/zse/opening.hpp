// SPDX-License-Identifier: Apache-2.0
// Opens a model with the options of the command line; prints plans and what is held.
#pragma once

#include "commands.hpp"

#include <nlohmann/json.hpp>

#include <zse_engines.hpp>

#include <memory>

namespace zse_cli {

/// A file, its shape and the engine that was chosen for it, before anything is held.
struct Chosen {
    zse::io::Gguf file;
    zse::ModelSpec spec;
    zse::engine::Choice choice;
    zse::engine::Built engine;
    zse::Limits limits;                    ///< resolved: the context is known
    zse::Bytes budget;                     ///< memory that may be used on this machine
    std::optional<zse::kernels::Isa> isa;  ///< kernels to use; none: the widest
};

/// Reads the file and finds the engine; `output_rows` are rows of logits of a step (0: one a sequence), and
/// the context has room for `least_context` tokens where the user does not say otherwise.
Chosen choose(const ModelOptions& options, std::uint32_t output_rows = 0, std::uint32_t least_context = 0);

/// Opens what was chosen, with a progress bar on a terminal.
std::unique_ptr<zse::AnyEngine> open(const Chosen& chosen);

/// The largest context that the budget holds, at most the trained length; 0 if not even one page fits.
std::uint32_t largest_context(const zse::engine::Built& engine, const zse::ModelSpec& spec,
                              zse::Limits limits, zse::Bytes budget);

/// {"host": {"weights": n, ..., "total": n}, ...}: tiers that hold something.
nlohmann::json json_of(const zse::memory::Plan& plan);
nlohmann::json json_of(const zse::memory::TierPlan& tier);

/// Prints what was planned beside what is held, kind by kind, with the difference.
void print_memory(std::FILE* out, const zse::AnyEngine& engine);

/// Bytes of the process's resident memory.
zse::Bytes resident_bytes();

/// Dumps JSON; text that is no UTF-8 is replaced, never refused.
std::string dump(const nlohmann::json& value);

}  // namespace zse_cli
