// SPDX-License-Identifier: Apache-2.0
// Flash attention of one token and of 64 by KV codec, instruction set and depth, one thread, at SmolLM2's head shape. One
// token is counted in bytes of the cache read a second, 64 in multiply-adds of scores and sums.
#include "beside_roofline.hpp"

#include <zse/attention/flash.hpp>
#include <zse/memory/arena.hpp>

#include <support/aligned_bytes.hpp>

#include <numeric>
#include <string>
#include <vector>

namespace {

namespace kv = zse::kv;
using zse::kernels::Isa;

template <class Codec>
void flash(benchmark::State& state, Isa isa, std::uint32_t rows, std::uint32_t depth) {
    constexpr std::uint32_t heads = 9;
    constexpr std::uint32_t layers = 16;  // more than a cache holds
    const auto layout = kv::PageLayout::of<Codec, Codec>(16, layers, 3, 64, 64);
    const std::uint32_t pages = (depth + rows + 15) / 16;
    zse::memory::Ledger ledger;  // an arena lies on huge pages, as an engine's pool does
    const zse::memory::Arena pool(
        ledger.reserve(zse::memory::Tier::host, zse::memory::Kind::kv, pages * layout.page_bytes()).value());
    std::vector<kv::PageIndex> table(pages);
    std::iota(table.begin(), table.end(), 0u);
    std::vector<float> row(64);
    for (std::size_t i = 0; i < row.size(); ++i) row[i] = static_cast<float>(i % 7) - 3.0f;
    const auto cache = [&](std::uint32_t layer) {
        return kv::LayerCache{{pool.data() + layer * layout.layer_bytes(), layout.page_bytes(), layout},
                              kv::side_kernels<Codec>(isa),
                              kv::side_kernels<Codec>(isa)};
    };
    for (std::uint32_t layer = 0; layer < layers; ++layer) {
        for (std::uint32_t t = 0; t < pages * 16; ++t) {
            for (std::uint32_t head = 0; head < 3; ++head) {
                cache(layer).put_key(t / 16, head, t % 16, row.data());
                cache(layer).put_value(t / 16, head, t % 16, row.data());
            }
        }
    }
    const kv::Segment segment{0, rows, depth, table.data()};
    const std::vector<std::uint32_t> segments(rows, 0);
    std::vector<std::uint32_t> positions(rows);
    std::iota(positions.begin(), positions.end(), depth);
    std::vector<float> q(rows * heads * 64, 0.1f);
    std::vector<float> out(q.size());
    zse::attention::Arguments arguments;
    arguments.batch = {std::span(&segment, 1), segments.data(), positions.data(), rows};
    arguments.kernels = zse::attention::cache_kernels<Codec, Codec>(isa);
    arguments.q = q.data();
    arguments.q_stride = heads * 64;
    arguments.out = out.data();
    arguments.heads = heads;
    arguments.most_tokens = depth + rows;
    arguments.most_rows = rows;
    zse::attention::flash<>::Attend attend{arguments};
    attend.arguments.cache = cache(0);
    const support::AlignedBytes scratch(attend.thread_bytes());
    std::uint32_t layer = 0;
    for (auto _ : state) {
        attend.arguments.cache = cache(layer);
        layer = (layer + 1) % layers;
        for (std::size_t item = 0; item < attend.items(); ++item) attend.run(item, {0, scratch.data()});
        benchmark::ClobberMemory();
    }
    const zse_bench::OneThread& limits = zse_bench::limits_of(isa);
    if (rows == 1) {
        zse_bench::count(state, "bytes/s",
                         static_cast<double>(layout.token_bytes()) / layers * (depth + rows), limits.bytes);
    } else {
        zse_bench::count(state, "MAC/s", 2.0 * heads * 64 * rows * (depth + rows / 2.0), limits.floats);
    }
}

template <class Codec>
void add() {
    for (const Isa isa : zse::kernels::built_isas) {
        if (!zse::kernels::usable(isa)) continue;
        for (const std::uint32_t rows : {1u, 64u}) {
            for (const std::uint32_t depth : {512u, 4096u}) {
                const std::string name = "flash/" + std::string(Codec::name) + "/" +
                                         std::string(zse::kernels::name(isa)) +
                                         "/rows:" + std::to_string(rows) + "/depth:" + std::to_string(depth);
                benchmark::RegisterBenchmark(name.c_str(), flash<Codec>, isa, rows, depth);
            }
        }
    }
}

const bool added = (add<kv::f32>(), add<kv::f16>(), add<kv::int8<>>(), add<kv::int4<>>(), true);

}  // namespace

BENCHMARK_MAIN();
