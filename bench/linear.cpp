// SPDX-License-Identifier: Apache-2.0
// Matrix products by codec, instruction set and number of tokens, one thread, at SmolLM2's and a 1B model's widths. One
// token reads weights from memory and is counted in bytes a second; a tile of eight, in multiply-adds.
#include "beside_roofline.hpp"

#include <support/packed_matrix.hpp>

#include <random>
#include <string>

namespace {

using zse::kernels::CodedActivations;
using zse::kernels::Isa;
namespace w = zse::weights;

void linear(benchmark::State& state, const support::Codec& codec, Isa isa, std::size_t tokens,
            std::uint32_t columns) {
    // For one token more than any cache holds, for eight what a level-2 cache does.
    const zse::Bytes wanted = tokens == 1 ? zse::MiB(96) : zse::KiB(256);
    const zse::Bytes group = w::PackedLayout{codec.format, columns}.group_bytes();
    const auto groups = static_cast<std::uint32_t>(std::max<zse::Bytes>(wanted / group / 2 * 2, 2));
    std::vector<float> row(columns);
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    for (float& value : row) value = normal(random);
    std::vector<std::byte> stored(codec.format.row_bytes(columns));
    codec.encode(row.data(), columns, stored.data());
    std::vector<std::byte> rows;
    for (std::uint32_t r = 0; r < groups * 16; ++r) rows.insert(rows.end(), stored.begin(), stored.end());
    const support::PackedMatrix packed(codec, groups * 16, columns, std::move(rows));
    const zse::kernels::Matrix matrix = packed.on(isa);
    const support::AlignedBytes x(tokens *
                                  std::max<std::size_t>(CodedActivations::bytes(columns), columns * 4));
    alignas(64) float y[8][2][16];
    zse::kernels::LinearTile tile;
    tile.x = x.data();
    tile.tokens = static_cast<std::uint32_t>(tokens);
    tile.columns = columns;
    tile.y = y[0][0];
    for (auto _ : state) {
        for (std::uint32_t pair = 0; pair < groups / 2; ++pair) {  // two far groups, as an engine does
            tile.groups[0] = matrix.group(0, pair);
            tile.groups[1] = matrix.group(0, pair + groups / 2);
            matrix.kernels->multiply(tile);
            benchmark::ClobberMemory();
        }
    }
    const zse_bench::OneThread& limits = zse_bench::limits_of(isa);
    if (tokens == 1) {
        zse_bench::count(state, "bytes/s", static_cast<double>(matrix.bytes()), limits.bytes);
    } else {
        zse_bench::count(state, "MAC/s", 16.0 * groups * columns * static_cast<double>(tokens),
                         matrix.reads_codes() ? limits.products : limits.floats);
    }
}

template <class... Codec>
void add_all() {
    for (const Isa isa : zse::kernels::built_isas) {
        if (!zse::kernels::usable(isa)) continue;
        for (const support::Codec& codec : {support::codec<Codec>()...}) {
            for (const std::size_t tokens : {1u, 8u}) {
                for (const std::uint32_t columns : {576u, 2048u}) {
                    const std::string name =
                        "linear/" + w::name(codec.format) + "/" + std::string(zse::kernels::name(isa)) +
                        "/tokens:" + std::to_string(tokens) + "/columns:" + std::to_string(columns);
                    benchmark::RegisterBenchmark(name.c_str(), linear, codec, isa, tokens, columns);
                }
            }
        }
    }
}

const bool added = (add_all<w::q4_0, w::q4_1, w::q8_0, w::nf4<64>, w::f16, w::f32>(), true);

}  // namespace

BENCHMARK_MAIN();
