// SPDX-License-Identifier: Apache-2.0
// Attention of one token to a long context: how much of the bandwidth that reading alone reaches it uses.
#include "measure.hpp"
#include "shapes.hpp"

#include <zse/attention/cuda/cache_launches.hpp>
#include <zse/kv/policy.hpp>

#include <numeric>

namespace zse_bench {
namespace {

constexpr std::uint32_t depths[] = {4'096, 16'384, 32'768, 131'072};
constexpr std::uint32_t page_tokens = 16;

template <class Codec>
void measure(Bench& bench, const Roof& roof, const Shape& shape, std::uint32_t depth) {
    namespace attention = zse::attention::cuda;
    const zse::ModelSpec& spec = *shape.spec;
    const auto layout =
        zse::kv::PageLayout::of<Codec, Codec>(page_tokens, 1, spec.kv_heads, spec.head_dim, spec.head_dim);
    const std::uint32_t pages = depth / page_tokens;
    const zse::Bytes bytes = layout.page_bytes() * pages;
    const unsigned copies = bench.copies(bytes);

    // Bytes that are small numbers in every codec, codes and scales alike.
    std::vector<std::byte> tile(1 << 16);
    for (std::size_t i = 0; i < tile.size(); ++i) tile[i] = static_cast<std::byte>(0x20 + i * 7 % 0x18);
    std::byte* const pool = bench.fill(tile, bytes * copies);
    std::vector<zse::kv::PageIndex> numbers(pages);
    std::iota(numbers.begin(), numbers.end(), zse::kv::PageIndex{0});
    const zse::kv::Segment segment{.rows = 1, .first_position = depth - 1, .pages = bench.put(numbers)};

    attention::AttendCall call;
    call.pages.page_bytes = layout.page_bytes();
    call.pages.layout = layout;
    call.segments = bench.put(std::vector<zse::kv::Segment>{segment});
    call.segment_count = 1;
    call.rows = 1;
    call.most_rows = 1;
    call.most_tokens = depth;
    call.segment_of_row = bench.zeros<std::uint32_t>(1);
    call.positions = bench.put(std::vector<std::uint32_t>{depth - 1});
    call.q = bench.put(std::vector<float>(std::size_t{spec.heads} * spec.head_dim, 0.1f));
    call.q_stride = std::uint64_t{spec.heads} * spec.head_dim;
    call.heads = spec.heads;
    call.scale = 0.088f;  // 1 / sqrt(128)
    call.out = bench.zeros<float>(call.q_stride);
    call.greatest = bench.zeros<std::uint32_t>(1);
    call.partials_floats = attention::partials_floats(1, spec.heads, spec.head_dim, depth);
    call.partials = bench.zeros<float>(call.partials_floats);
    call.splits = attention::splits(1, spec.kv_heads, depth, bench.runtime().multiprocessors());

    const Spread seconds = bench.seconds(copies, [&](zse::exec::gpu::Stream& stream) {
        for (unsigned copy = 0; copy < copies; ++copy) {
            call.pages.pool = pool + bytes * copy;
            attention::cache_launches<Codec, Codec, zse::exec::gpu::Native>.attend(stream, call);
        }
    });
    std::printf("| %s | %s | %u | %.1f | %.1f | %s |\n", std::string(shape.name).c_str(),
                std::string(Codec::name).c_str(), depth, static_cast<double>(bytes) * 1e-6,
                seconds.median * 1e6, roof.bandwidth(seconds, static_cast<double>(bytes)).c_str());
    std::fflush(stdout);
    bench.release();
}

}  // namespace

void measure_attention(Bench& bench, const Roof& roof) {
    std::printf(
        "\n### Attention of one token, one layer\n\n| Shape | KV | Depth | MB | Microseconds | GB/s (least "
        "to most) | "
        "Of reading |\n|---|---|---|---|---|---|---|\n");
    for (const Shape& shape : shapes) {
        for (const std::uint32_t depth : depths) {
            measure<zse::kv::f16>(bench, roof, shape, depth);
            measure<zse::kv::int8<32>>(bench, roof, shape, depth);
            measure<zse::kv::int4<32>>(bench, roof, shape, depth);
        }
    }
}

}  // namespace zse_bench
