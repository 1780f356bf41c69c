// SPDX-License-Identifier: Apache-2.0
// Counters that set a kernel beside what the machine can do: measured in the same run, with the same instructions.
#pragma once

#include "roofline.hpp"

#include <benchmark/benchmark.h>

#include <zse/kernels/isa.hpp>

#include <map>

namespace zse_bench {

/// What one thread reaches, measured when it is first asked for.
struct OneThread {
    double bytes = 0;     ///< read a second, from memory
    double products = 0;  ///< integer multiply-adds a second
    double floats = 0;    ///< float32 multiply-adds a second
};

/// The limits for an instruction set; zeros where nothing is measured for it (portable).
inline const OneThread& limits_of(zse::kernels::Isa isa) {
    static std::map<zse::kernels::Isa, OneThread> known;
    const auto [place, is_new] = known.try_emplace(isa);
    if (is_new) {
        place->second.bytes = read_bandwidth(1, std::size_t{256} << 20).median;
        for (const Isa& candidate : isas) {
            if (candidate.name != zse::kernels::name(isa)) continue;
            place->second.products = integer_peak(candidate.integer, 1).median;
            place->second.floats = float_peak(candidate.floating, 1).median;
        }
    }
    return place->second;
}

/// Work of one iteration as a rate, and as a share of a limit where there is one.
inline void count(benchmark::State& state, const char* name, double work, double limit) {
    const double all = work * static_cast<double>(state.iterations());
    state.counters[name] = benchmark::Counter(all, benchmark::Counter::kIsRate, benchmark::Counter::kIs1000);
    if (limit > 0) state.counters["share"] = benchmark::Counter(all / limit, benchmark::Counter::kIsRate);
}

}  // namespace zse_bench
