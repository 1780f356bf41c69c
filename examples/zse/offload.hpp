// SPDX-License-Identifier: Apache-2.0
// Layers outside of the fast tier: what is said about them before and after a model is opened.
#pragma once

#include "opening.hpp"

namespace zse_cli {

/// Throws out_of_memory where --slo interactive is asked for and layers lie outside of the fast tier, naming a precision
/// of weights that has them all in it.
void expect_objective(const OffloadOptions& options, const zse::planning::Planner& plan,
                      const zse::planning::Setting& setting, const zse::planning::Budget& budget,
                      std::uint32_t layers);

/// Says on standard error where layers lie, if that was left open, and warns where some are streamed, with the tokens a
/// second that the measured bandwidths allow.
void announce(const Chosen& chosen);

/// Says on standard error what an opened engine's gpu tier still has room for, or that it had less than was planned.
void hint(const Chosen& chosen, const zse::Limits& opened);

}  // namespace zse_cli
