// SPDX-License-Identifier: Apache-2.0
// The report of zse plan, in words and as JSON.
#pragma once

#include "plan_subject.hpp"

#include <optional>
#include <string>
#include <vector>

namespace zse_cli {

/// The most of each thing that fits, all else as planned.
struct Largest {
    std::uint32_t context = 0;  ///< at most the trained length
    std::uint32_t batch = 0;
    std::optional<std::uint32_t>
        gpu_layers;       ///< none: there is no gpu tier, or the rest does not fit the host's
    std::string weights;  ///< finest precision; empty: none fits
};

/// All that a report says.
struct Planned {
    std::vector<Subject> subjects;
    zse::planning::Adapters adapters;
    zse::engine::Choice choice;  ///< of attention and executor; the rest is in the setting
    zse::planning::Setting setting;
    zse::planning::Budget budget;
    zse::planning::Planner planner;
    zse::planning::Planner questions;  ///< the same, but fills the gpu tier where that was left open
    zse::memory::Plan plan;
    zse::Bytes driver = 0;                ///< what a GPU's driver takes, measured; 0 where none is used
    std::vector<std::uint32_t> contexts;  ///< of the sweep

    [[nodiscard]] std::uint32_t layers() const;           ///< of the deepest subject
    [[nodiscard]] std::uint32_t trained_context() const;  ///< the longest
    [[nodiscard]] std::uint64_t parameters() const;       ///< as stated
    [[nodiscard]] bool fits() const { return budget.holds(plan); }
    [[nodiscard]] zse::Bytes adapter_bytes() const;
};

Largest largest(const Planned& planned);

/// What to look at, in a sentence each. Those of the budget change with the memory that is free.
std::vector<std::string> warnings(const Planned& planned);
std::vector<std::string> budget_warnings(const Planned& planned);

/// Bits of a weight, scales and tables of the vocabulary counted.
double bits_of(const zse::memory::Plan& plan);
/// Bits that the precision is named after, scales left out; 0 where it is mixed.
unsigned nominal_bits(const Planned& planned);
/// Tokens that this precision of KV holds in the bytes of one in 16 bits; 0 where no engine has KV in 16 bits.
double context_gain(const Planned& planned);
/// The tier where the pages of KV are, or most of them.
zse::memory::Tier kv_tier(const zse::memory::Plan& plan);
/// The plan of another context, with a page for each of its tokens.
zse::memory::Plan at_context(const Planned& planned, std::uint32_t context);

void print_report(const Planned& planned);
nlohmann::json json_report(const Planned& planned);

}  // namespace zse_cli
