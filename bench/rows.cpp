// SPDX-License-Identifier: Apache-2.0
// Row operations by instruction set, one thread, at SmolLM2's widths: bytes of float32 read a second, from the level-1
// cache.
#include "beside_roofline.hpp"

#include <zse/kernels/rows.hpp>

#include <algorithm>
#include <string>
#include <vector>

namespace {

using namespace zse::kernels;

constexpr std::size_t hidden = 576;
constexpr std::size_t wide = 1536;
constexpr std::size_t head = 64;

/// One token's buffers.
struct Row {
    std::vector<float> x = std::vector<float>(wide, 0.5f);
    std::vector<float> weight = std::vector<float>(wide, 1.5f);
    std::vector<std::byte> bytes = std::vector<std::byte>(CodedActivations::bytes(wide));
    Activations codes{bytes.data(), nullptr, 1, wide};
};

void rms_norm(benchmark::State& state, Isa isa) {
    Row row;
    for (auto _ : state) {
        row_kernels(isa)->rms_norm(row.x.data(), row.weight.data(), hidden, 1e-5f, nullptr,
                                   row.codes.coded(0));
        benchmark::ClobberMemory();
    }
    zse_bench::count(state, "bytes/s", 2 * hidden * sizeof(float), 0);
}
void quantise(benchmark::State& state, Isa isa) {
    Row row;
    for (auto _ : state) {
        row_kernels(isa)->quantise(row.x.data(), wide, row.codes.coded(0));
        benchmark::ClobberMemory();
    }
    zse_bench::count(state, "bytes/s", wide * sizeof(float), 0);
}
void swiglu(benchmark::State& state, Isa isa) {
    Row row;
    for (auto _ : state) {
        std::fill(row.x.begin(), row.x.end(), 0.5f);  // or the gate would sink to denormal numbers
        row_kernels(isa)->swiglu(row.x.data(), row.weight.data(), wide);
        benchmark::ClobberMemory();
    }
    zse_bench::count(state, "bytes/s", 2 * wide * sizeof(float), 0);
}
void rope(benchmark::State& state, Isa isa) {
    Row row;
    std::vector<float> cosines(head), sines(head);
    rope_angles(1234, 10000.0f, 1.0f, head, nullptr, RopePairs::neighbours, cosines.data(), sines.data());
    for (auto _ : state) {
        row_kernels(isa)->rope(row.x.data(), head, cosines.data(), sines.data(), RopePairs::neighbours);
        benchmark::ClobberMemory();
    }
    zse_bench::count(state, "bytes/s", head * sizeof(float), 0);
}

void add(const std::string& what, void (*run)(benchmark::State&, Isa)) {
    for (const Isa isa : built_isas) {
        if (usable(isa))
            benchmark::RegisterBenchmark((what + "/" + std::string(name(isa))).c_str(), run, isa);
    }
}

const bool added =
    (add("rms_norm", rms_norm), add("quantise", quantise), add("swiglu", swiglu), add("rope", rope), true);

}  // namespace

BENCHMARK_MAIN();
