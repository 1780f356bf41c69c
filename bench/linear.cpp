// SPDX-License-Identifier: Apache-2.0
// y = x W^T by weight codec and number of tokens, one thread, at SmolLM2's and a 7B model's widths. Counters:
// weight bytes read a second, and multiply-adds a second.
#include <benchmark/benchmark.h>

#include <zse/kernels/bind.hpp>

#include <random>
#include <vector>

namespace {

template <class Codec>
void linear(benchmark::State& state) {
    const auto tokens = static_cast<std::size_t>(state.range(0));
    const auto columns = static_cast<std::size_t>(state.range(1));
    const std::size_t rows = 1536;
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<float> row(columns);
    std::vector<std::byte> bytes(rows * Codec::format.row_bytes(columns));
    for (std::size_t r = 0; r < rows; ++r) {
        for (float& value : row) value = normal(random);
        Codec::encode_row(row.data(), columns, bytes.data() + r * Codec::format.row_bytes(columns));
    }
    const zse::kernels::Matrix matrix{bytes.data(), static_cast<std::uint32_t>(rows),
                                      static_cast<std::uint32_t>(columns), Codec::format,
                                      zse::kernels::bind<Codec>(Codec::format)};
    std::vector<float> x(tokens * columns, 0.5f);
    std::vector<float> y(tokens * rows);
    std::vector<float> panel(zse::kernels::panel_floats(columns));
    zse::kernels::LinearTile tile;
    tile.x = x.data();
    tile.y = y.data();
    tile.tokens = tokens;
    tile.y_stride = rows;
    tile.last = rows;
    tile.panel = panel.data();
    for (auto _ : state) {
        matrix.kernels->linear(matrix, tile);
        benchmark::ClobberMemory();
    }
    const auto runs = static_cast<double>(state.iterations());
    state.counters["bytes/s"] = benchmark::Counter(runs * static_cast<double>(matrix.bytes()),
                                                   benchmark::Counter::kIsRate, benchmark::Counter::kIs1000);
    state.counters["MAC/s"] = benchmark::Counter(runs * static_cast<double>(rows * columns * tokens),
                                                 benchmark::Counter::kIsRate, benchmark::Counter::kIs1000);
}

namespace w = zse::weights;
#define ZSE_LINEAR(codec)                 \
    BENCHMARK_TEMPLATE(linear, codec)     \
        ->ArgNames({"tokens", "columns"}) \
        ->ArgsProduct({{1, 8, 512}, {576, 4096}})
ZSE_LINEAR(w::f32);
ZSE_LINEAR(w::f16);
ZSE_LINEAR(w::bf16);
ZSE_LINEAR(w::int8<32>);
ZSE_LINEAR(w::q4_0);
ZSE_LINEAR(w::q4_1);
ZSE_LINEAR(w::nf4<64>);
#undef ZSE_LINEAR

}  // namespace

BENCHMARK_MAIN();
