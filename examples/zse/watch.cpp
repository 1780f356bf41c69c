// SPDX-License-Identifier: Apache-2.0
// Looking at memory between steps.
#include "watch.hpp"

#include <fmt/core.h>

namespace zse_cli {

Watch::Watch(zse::AnyEngine& engine, const ProfileOptions& options)
    : engine_(&engine),
      policy_(engine.limits().batch),
      before_(zse::system::read_process().value_or(zse::system::Process{})) {
    if (options.wanted) profile_.emplace(options.output, engine);
}

void Watch::between_steps() {
    const auto now = MemoryProfile::Clock::now();
    if (pressure_.present() && policy_.due(now)) look_at_pressure(now);
    if (profile_ && profile_->due(now)) sample();
}

void Watch::look_at_pressure(MemoryProfile::Clock::time_point now) {
    engine_->limit_admission(policy_.update(now, pressure_.some_avg10()));
    if (!policy_.slowed() || told_ || engine_->limits().batch < 2) return;
    told_ = true;
    fmt::print(
        stderr,
        "note: tasks wait for memory more than {:.0f} % of the time: {} of {} sequences are admitted until "
        "it is below {:.0f} %\n",
        policy_.slows_above, policy_.slots(), engine_->limits().batch, policy_.restores_below);
}

/// A disk that fills up in the middle of an answer ends the profile, not the answer.
void Watch::sample() {
    try {
        profile_->sample();
    } catch (const zse::Error& error) {
        fmt::print(stderr, "note: the memory profile ends here: {}\n", error.what());
        profile_.reset();
    }
}

void Watch::finish() {
    if (profile_) sample();
    const auto after = zse::system::read_process();
    const auto found = after ? zse::system::thrashing(before_, *after) : std::nullopt;
    if (found) fmt::print(stderr, "warning: {}\n", *found);
}

}  // namespace zse_cli
