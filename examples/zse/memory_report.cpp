// SPDX-License-Identifier: Apache-2.0
// Memory that is planned, held, reserved and in use at most, as a table; and what the process really grew by.
#include "opening.hpp"

#include <fmt/core.h>
#include <unistd.h>

#include <fstream>

namespace zse_cli {

using zse::memory::Kind;
using zse::memory::Tier;

zse::Bytes resident_bytes() {
    std::ifstream statm("/proc/self/statm");
    zse::Bytes total = 0;
    zse::Bytes resident = 0;
    statm >> total >> resident;
    return resident * static_cast<zse::Bytes>(::sysconf(_SC_PAGESIZE));
}

zse::memory::Measured measure(const zse::AnyEngine& engine, zse::Bytes before) {
    return {engine.plan().gpu.total() + engine.plan().host.total(), zse::memory::in_use(engine.ledger()),
            before, resident_bytes()};
}

nlohmann::json json_of(const zse::memory::Measured& measured) {
    return {{"planned", measured.planned},           {"in_use", measured.in_use},
            {"resident_before", measured.before},    {"growth", measured.growth()},
            {"beyond_plan", measured.beyond_plan()}, {"unexplained", measured.unexplained()}};
}

void print_memory(std::FILE* out, const zse::AnyEngine& engine, const zse::memory::Measured& loaded) {
    const auto signed_bytes = [](zse::Bytes from, zse::Bytes to) {
        return static_cast<std::int64_t>(to) - static_cast<std::int64_t>(from);
    };
    for (const Tier tier : zse::memory::all_tiers) {
        const zse::memory::TierPlan& planned = engine.plan()[tier];
        const zse::memory::TierPlan held = engine.ledger().held(tier);
        const zse::memory::TierPlan reserved = engine.ledger().reserved(tier);
        const zse::memory::TierPlan peak = engine.ledger().peak(tier);
        if (planned.total() == 0 && held.total() == 0) continue;
        const auto line = [&](std::string_view what, zse::Bytes p, zse::Bytes h, zse::Bytes r,
                              zse::Bytes most, std::string_view pages) {
            fmt::print(out, "{:<12} {:>13} {:>13} {:>13} {:>13} {:>11}  {}\n", what, p, h, r, most,
                       signed_bytes(p, h), pages);
        };
        fmt::print(out, "{:<12} {:>13} {:>13} {:>13} {:>13} {:>11}  pages\n", zse::memory::name(tier),
                   "planned", "held", "reserved", "peak in use", "difference");
        for (std::size_t i = 0; i < zse::memory::kind_count; ++i) {
            const auto kind = static_cast<Kind>(i);
            const bool mapped = kind != Kind::rounding && held[kind] != 0;
            line(zse::memory::name(kind), planned[kind], held[kind], reserved[kind], peak[kind],
                 mapped ? zse::memory::name(engine.ledger().backing(tier, kind)) : "");
        }
        line("total bytes", planned.total(), held.total(), reserved.total(), peak.total(), "");
        fmt::print(out, "{:<12} {:>13}\n", "", zse::human(planned.total()));
    }
    const double share = loaded.in_use == 0 ? 0
                                            : 100.0 * static_cast<double>(loaded.unexplained()) /
                                                  static_cast<double>(loaded.in_use);
    fmt::print(
        out,
        "after loading: {} planned, {} of them in use; the process grew by {:.2f} MB, {:+.2f} MB ({:+.1f} %) "
        "beside what is in use\n",
        zse::human(loaded.planned), zse::human(loaded.in_use), static_cast<double>(loaded.growth()) / 1e6,
        static_cast<double>(loaded.unexplained()) / 1e6, share);
    fmt::print(out, "resident now: {}, the program and pages of the model file among them\n",
               zse::human(resident_bytes()));
}

bool can_lock(const zse::memory::Plan& plan) {
    const zse::system::Hardware machine = zse::system::probe_host();
    const auto most = machine.rlimits.lockable();
    const zse::Bytes bytes = plan.gpu.total() + plan.host.total();
    if (!most || bytes <= *most) return true;
    fmt::print(
        stderr,
        "warning: --mlock: {} are to be locked in memory, and {} may be; going on without: raise the limit "
        "(ulimit -l)\n",
        zse::human(bytes), zse::human(*most));
    return false;
}

}  // namespace zse_cli
