// SPDX-License-Identifier: Apache-2.0
// How many bytes each tier may hold: what the machine has, less headroom and reserve, or what the user states.
#pragma once

#include <zse/core/size.hpp>
#include <zse/memory/ledger.hpp>

#include <algorithm>
#include <cmath>
#include <optional>

namespace zse::inline v1 {
namespace planning {

/// Memory of a machine, in bytes.
struct MachineMemory {
    Bytes host_free = 0;  ///< what may be taken without swapping
    Bytes host_total = 0;
    std::optional<Bytes> gpu_free;  ///< of a card of its own; none: there is none
    std::optional<Bytes> gpu_total;
    Bytes disk_free = 0;  ///< where files of the disk tier would lie
};

/// What a user says about memory. A size that is not stated is automatic, but for the gpu and disk tiers, which are then
/// empty.
struct BudgetRequest {
    std::optional<Size> gpu, host, disk;
    std::optional<double> headroom;     ///< share of each tier that stays free, 0 to below 1
    std::optional<double> utilization;  ///< share of the first tier that may be used, above 0 to 1
    Bytes reserve = 0;                  ///< bytes of the first tier that are left to others
    bool unified = false;               ///< the gpu tier lies in the host's memory
};

/// One tier's budget.
struct TierBudget {
    Bytes memory = 0;     ///< stated, or free now
    double headroom = 0;  ///< share of it that stays free
    Bytes reserve = 0;
    Bytes cap = 0;  ///< what may be held
    bool stated = false;
};

/// Bytes that a plan has too many, and in which tier.
struct Lack {
    memory::Tier tier = memory::Tier::host;
    Bytes bytes = 0;
};

struct Budget {
    TierBudget gpu, host, disk;
    bool unified = false;

    [[nodiscard]] const TierBudget& operator[](memory::Tier tier) const noexcept {
        return tier == memory::Tier::gpu ? gpu : (tier == memory::Tier::host ? host : disk);
    }
    /// For the ledger.
    [[nodiscard]] memory::Caps caps() const noexcept { return {gpu.cap, host.cap, disk.cap}; }

    /// Bytes that a plan puts on a tier's memory: with unified memory the host's carries the gpu tier too.
    [[nodiscard]] Bytes load(const memory::Plan& plan, memory::Tier tier) const noexcept {
        const Bytes own = plan[tier].total();
        return unified && tier == memory::Tier::host ? saturating_add(own, plan.gpu.total()) : own;
    }
    /// The first tier that cannot hold its part of a plan, and by how much; 0 bytes where all hold.
    [[nodiscard]] Lack lack(const memory::Plan& plan) const noexcept {
        for (const memory::Tier tier : memory::all_tiers) {
            const Bytes asked = load(plan, tier);
            if (asked > (*this)[tier].cap) return {tier, asked - (*this)[tier].cap};
        }
        return {};
    }
    [[nodiscard]] bool holds(const memory::Plan& plan) const noexcept { return lack(plan).bytes == 0; }
};

/// What stays free unless the user says otherwise: memory that others share needs more than a card of its own.
inline constexpr double shared_headroom = 0.2;
inline constexpr double card_headroom = 0.1;

namespace detail {

/// Rounded up. Shares are taken in millionths, so that 0.95 of a round number is a round number.
inline Bytes share_of(Bytes memory, double share) {
    constexpr Bytes million = 1'000'000;
    const auto millionths = static_cast<Bytes>(std::llround(share * 1e6));
    return memory / million * millionths + ceil_div(memory % million * millionths, million);
}

/// A share as a user writes it.
inline std::string written(double share) {
    std::string digits = text(share);
    while (digits.find('.') != std::string::npos && (digits.back() == '0' || digits.back() == '.')) {
        const bool point = digits.back() == '.';
        digits.pop_back();
        if (point) break;
    }
    return digits;
}

}  // namespace detail

/// The budget of a request on a machine. Headroom is taken off what is measured; off stated sizes only where it is
/// stated too, since a stated size is meant to be filled. Throws usage where the request contradicts itself.
inline Budget budget_of(const BudgetRequest& request, const MachineMemory& machine) {
    if (request.headroom && !(*request.headroom >= 0 && *request.headroom < 1)) {
        throw Error(ErrorCode::usage, text("--headroom is a share from 0 to below 1, found ",
                                           detail::written(*request.headroom), "; write 0.2 for 20 %"));
    }
    if (request.utilization && !(*request.utilization > 0 && *request.utilization <= 1)) {
        throw Error(ErrorCode::usage,
                    text("--gpu-memory-utilization is a share above 0 and at most 1, found ",
                         detail::written(*request.utilization), "; write 0.9 for 90 %"));
    }
    if (request.headroom && request.utilization &&
        std::fabs(*request.headroom + *request.utilization - 1) > 1e-9) {
        throw Error(ErrorCode::usage,
                    text("--headroom ", detail::written(*request.headroom), " and --gpu-memory-utilization ",
                         detail::written(*request.utilization),
                         " contradict each other: together they should be 1; give one of them"));
    }
    Budget budget;
    budget.unified = request.unified;
    const Size gpu = request.gpu.value_or(Size{false, 0});
    const Size host = request.host.value_or(Size{true, 0});
    budget.gpu = {gpu.automatic ? machine.gpu_free.value_or(0) : gpu.bytes, 0, 0, 0, !gpu.automatic};
    budget.host = {host.automatic ? machine.host_free : host.bytes, 0, 0, 0, !host.automatic};
    const Size disk = request.disk.value_or(Size{false, 0});
    budget.disk = {disk.automatic ? machine.disk_free : disk.bytes, 0, 0, 0, request.disk && !disk.automatic};
    if (disk.automatic) budget.disk.headroom = shared_headroom;
    budget.disk.cap = budget.disk.memory - detail::share_of(budget.disk.memory, budget.disk.headroom);

    const bool has_gpu = budget.gpu.memory != 0;
    TierBudget& first = has_gpu ? budget.gpu : budget.host;
    for (TierBudget* tier : {&budget.gpu, &budget.host}) {
        const double usual = tier == &budget.gpu && !request.unified ? card_headroom : shared_headroom;
        tier->headroom = request.headroom.value_or(tier->stated ? 0.0 : usual);
        Bytes kept = detail::share_of(tier->memory, tier->headroom);
        if (tier == &first && request.utilization) {
            // A share of all memory, of which others may have taken some already.
            const Bytes total = tier->stated ? tier->memory
                                             : std::max(tier->memory, has_gpu ? machine.gpu_total.value_or(0)
                                                                              : machine.host_total);
            const Bytes usable = total - detail::share_of(total, 1 - *request.utilization);
            kept = tier->memory - std::min(tier->memory, usable);
            tier->headroom = 1 - *request.utilization;
        }
        tier->cap = tier->memory - std::min(tier->memory, kept);
        if (tier != &first || request.reserve == 0) continue;
        if (request.reserve >= tier->cap) {
            throw Error(ErrorCode::usage,
                        text("--reserve ", request.reserve, " leaves nothing of the ", tier->cap,
                             " bytes of the ", has_gpu ? "gpu" : "host", " tier; state less"));
        }
        tier->reserve = request.reserve;
        tier->cap -= request.reserve;
    }
    return budget;
}

}  // namespace planning
}  // namespace zse::inline v1
