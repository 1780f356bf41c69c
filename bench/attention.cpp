// SPDX-License-Identifier: Apache-2.0
// Flash attention of one token and of 64 by KV codec and depth, one thread, at SmolLM2's head shape. Counter:
// bytes of the cache read a second.
#include <benchmark/benchmark.h>

#include <zse/attention/flash.hpp>

#include <numeric>
#include <vector>

namespace {

namespace kv = zse::kv;

template <class Codec>
void flash(benchmark::State& state) {
    const auto rows = static_cast<std::uint32_t>(state.range(0));
    const auto depth = static_cast<std::uint32_t>(state.range(1));
    constexpr std::uint32_t heads = 9;
    const auto layout = kv::PageLayout::of<Codec, Codec>(16, 1, 3, 64, 64);
    const std::uint32_t pages = (depth + rows + 15) / 16;
    std::vector<std::byte> pool(pages * layout.page_bytes());
    std::vector<kv::PageIndex> table(pages);
    std::iota(table.begin(), table.end(), 0u);
    std::vector<float> row(64);
    for (std::size_t i = 0; i < row.size(); ++i) row[i] = static_cast<float>(i % 7) - 3.0f;
    for (std::uint32_t t = 0; t < depth + rows; ++t) {
        for (std::uint32_t head = 0; head < 3; ++head) {
            std::byte* at = pool.data() + t / 16 * layout.page_bytes() + head * layout.head_bytes();
            Codec::encode(row.data(), 64, at + t % 16 * layout.k_code,
                          at + layout.k_scales_at() + t % 16 * layout.k_scale);
            Codec::encode(row.data(), 64, at + layout.v_codes_at() + t % 16 * layout.v_code,
                          at + layout.v_scales_at() + t % 16 * layout.v_scale);
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
    arguments.cache = {
        {pool.data(), layout.page_bytes(), layout}, &kv::side_kernels<Codec>, &kv::side_kernels<Codec>};
    arguments.q = q.data();
    arguments.q_stride = heads * 64;
    arguments.out = out.data();
    arguments.heads = heads;
    arguments.most_tokens = depth + rows;
    arguments.most_rows = rows;
    const zse::attention::flash<>::Attend attend{arguments};
    std::vector<std::byte> scratch(attend.thread_bytes());
    for (auto _ : state) {
        for (std::size_t item = 0; item < attend.items(); ++item) attend.run(item, {0, scratch.data()});
        benchmark::ClobberMemory();
    }
    state.counters["bytes/s"] = benchmark::Counter(
        static_cast<double>(state.iterations()) * static_cast<double>(layout.token_bytes()) * (depth + rows),
        benchmark::Counter::kIsRate, benchmark::Counter::kIs1000);
}

#define ZSE_FLASH(codec) \
    BENCHMARK_TEMPLATE(flash, codec)->ArgNames({"rows", "depth"})->ArgsProduct({{1, 64}, {512, 4096}})
ZSE_FLASH(kv::f32);
ZSE_FLASH(kv::f16);
ZSE_FLASH(kv::int8<>);
ZSE_FLASH(kv::int4<>);
#undef ZSE_FLASH

}  // namespace

BENCHMARK_MAIN();
