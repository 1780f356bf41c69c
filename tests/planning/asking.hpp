// SPDX-License-Identifier: Apache-2.0
// What tests of the planner ask for: settings, budgets and wishes from the few figures that matter to them.
#pragma once

#include <zse/planning/settle.hpp>

#include <optional>

namespace planned {

/// The default policies within these limits, with a row of logits for each sequence.
inline zse::planning::Setting asking(zse::Limits limits) {
    limits.output_rows = limits.batch;
    return {"as-stored", "f16", limits};
}
/// A budget of stated sizes.
inline zse::planning::Budget stated(zse::Bytes gpu, zse::Bytes host,
                                    std::optional<zse::Bytes> disk = std::nullopt) {
    zse::planning::BudgetRequest request;
    request.gpu = zse::Size{false, gpu};
    request.host = zse::Size{false, host};
    if (disk) request.disk = zse::Size{false, *disk};
    return budget_of(request, {});
}
inline zse::planning::Wish wish_for(const zse::ModelSpec& spec, const zse::Limits& limits) {
    zse::planning::Wish wish;
    wish.setting = asking(limits);
    wish.layers = spec.layers;
    wish.trained_context = spec.trained_context;
    return wish;
}

}  // namespace planned
