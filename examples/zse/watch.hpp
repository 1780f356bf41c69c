// SPDX-License-Identifier: Apache-2.0
// What is looked at between the steps of an engine: memory pressure once a second, a memory profile where one is
// wanted, and at the end whether memory went to swap.
#pragma once

#include "profile.hpp"

#include <zse/scheduler/pressure_policy.hpp>
#include <zse/system/process.hpp>

#include <optional>

namespace zse_cli {

/// Outlives no engine. Between looks it costs one reading of the clock a step.
class Watch {
public:
    /// Throws unreadable where the profile cannot be written.
    Watch(zse::AnyEngine& engine, const ProfileOptions& options);
    Watch(const Watch&) = delete;
    Watch& operator=(const Watch&) = delete;

    void between_steps();
    /// Takes the last sample, and warns on standard error where memory went to swap or came from a disk.
    void finish();

private:
    void look_at_pressure(MemoryProfile::Clock::time_point now);
    void sample();

    zse::AnyEngine* engine_;
    zse::system::PressureWatch pressure_;
    zse::scheduler::PressurePolicy policy_;
    bool told_ = false;  ///< that admission was slowed
    std::optional<MemoryProfile> profile_;
    zse::system::Process before_;
};

}  // namespace zse_cli
