// SPDX-License-Identifier: Apache-2.0
// Attention of many rows by the kernel of GPUs, run on the host, against the formula in double precision.
// labels: cuda_host
#include <attention/cuda_cache.hpp>

namespace {

using namespace cuda_cache;

// Queries, weights, and codes times their scales are rounded to halves: 2^-11 of values up to 1.7, where one token is all
// that a row sees, and less where errors of many average out.
constexpr float tolerance = 2e-3f;

template <class K, class V>
void expect_chunks() {
    expect_near<K, V>({2, 3, 16}, {{17, 17}, {300, 40}}, {}, tolerance);
    expect_near<K, V, 128>({1, 4, 32}, {{90, 30}}, {}, tolerance);
}

TEST(CudaPrefill, IsNearTheFormulaInEveryCodec) {
    expect_chunks<kv::f16, kv::f16>();
    expect_chunks<kv::fp8<32>, kv::fp8<32>>();
    expect_chunks<kv::int8<32>, kv::int8<32>>();
    expect_chunks<kv::int4<32>, kv::int4<32>>();
    expect_chunks<kv::int4<32, kv::plain>, kv::int4<32, kv::plain>>();
    expect_chunks<kv::int8<32>, kv::int4<32>>();
}

TEST(CudaPrefill, IsNearTheFormulaForOtherHeadsAndGroupsOfValues) {
    expect_near<kv::f16, kv::int8<>, 96>({1, 2, 16}, {{50, 20}}, {}, tolerance);
    expect_near<kv::int4<>, kv::f16, 256>({1, 2, 16}, {{50, 20}}, {}, tolerance);
    expect_near<kv::int8<16>, kv::int4<16>>({1, 2, 16}, {{50, 20}}, {}, tolerance);
    expect_near<kv::fp8<16>, kv::fp8<128>, 128>({1, 2, 16}, {{50, 20}}, {}, tolerance);
    expect_near<kv::int4<64>, kv::int4<128>, 128>({1, 2, 16}, {{50, 20}}, {}, tolerance);
}

TEST(CudaPrefill, IsNearTheFormulaForWindowsDroppedTokensAndMixedBatches) {
    for (const std::uint32_t group : {1u, 8u, 11u}) {
        expect_near<kv::int8<>, kv::int8<>>({1, group, 16}, {{100, 70}}, {}, tolerance);
    }
    expect_near<kv::int8<>, kv::int8<>>({2, 2, 16}, {{150, 70}, {300}, {9, 9}, {40, 8}, {12, 12}}, {3},
                                        tolerance);
    expect_near<kv::f16, kv::f16>({1, 3, 16}, {{200, 90}, {30}}, {2, 40}, tolerance);
    expect_near<kv::f16, kv::f16>({1, 3, 16}, {{700, 40, 4, 512}, {600, 30, 48, 256}}, {}, tolerance);
    expect_near<kv::int4<>, kv::fp8<>>({1, 3, 32}, {{700, 40, 4, 512}}, {1, 100}, tolerance);
}

TEST(CudaPrefill, GivesTheSameBitsInAnyOrderOfThreads) {
    const auto check = [](auto batch) {
        const auto out = batch.attend({}, Order::ascending);
        for (const Order order : orders) EXPECT_TRUE(same_bits(out, batch.attend({}, order)));
    };
    check(Batch<kv::f16, kv::f16>({2, 3, 16}, {{60, 30}, {17}}));
    check(Batch<kv::int4<>, kv::f16, 256>({1, 2, 16}, {{50, 20}}));
}

TEST(CudaPrefill, GivesARowTheSameBitsInAnyChunk) {
    // The last 20 tokens come alone, or with 17 before them: their queries are the same then.
    const Shape shape{1, 3, 16};
    Batch<kv::int8<>, kv::int8<>> longer(shape, {{90, 37}}, 5);
    Batch<kv::int8<>, kv::int8<>> shorter(shape, {{90, 20}}, 5);
    shorter.take_queries(longer, 17);
    const auto all = longer.attend({});
    const auto some = shorter.attend({});
    EXPECT_TRUE(std::equal(some.begin(), some.end(), all.end() - static_cast<std::ptrdiff_t>(some.size())));
}

}  // namespace
