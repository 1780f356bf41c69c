// SPDX-License-Identifier: Apache-2.0
// Attention of few rows by the kernel of GPUs, run on the host, against the formula in double precision.
// labels: cuda_host
#include <attention/cuda_cache.hpp>

namespace {

using namespace cuda_cache;

// Queries and weights keep 22 bits, sums are float32: errors are those of float32 over some hundred terms.
constexpr float tolerance = 2e-5f;

template <class K, class V>
void expect_all_contexts() {
    for (const std::uint32_t tokens : {1u, 15u, 16u, 17u, 300u}) {
        expect_near<K, V>({2, 3, 16}, {{tokens}}, {}, tolerance);
    }
    expect_near<K, V, 128>({2, 4, 32}, {{300}, {33}}, {}, tolerance);
    expect_near<K, V, 128>({1, 8, 16}, {{700}}, {7}, tolerance);
}

TEST(CudaDecode, IsNearTheFormulaInEveryCodec) {
    expect_all_contexts<kv::f16, kv::f16>();
    expect_all_contexts<kv::fp8<32>, kv::fp8<32>>();
    expect_all_contexts<kv::int8<32>, kv::int8<32>>();
    expect_all_contexts<kv::int4<32>, kv::int4<32>>();
    expect_all_contexts<kv::int4<32, kv::plain>, kv::int4<32, kv::plain>>();
    expect_all_contexts<kv::int8<32>, kv::int4<32>>();
}

TEST(CudaDecode, IsNearTheFormulaForAnyNumberOfHeadsThatShareAKey) {
    for (const std::uint32_t group : {1u, 3u, 4u, 8u, 11u, 16u}) {
        expect_near<kv::int8<>, kv::int8<>>({2, group, 16}, {{70}}, {2}, tolerance);
    }
}

TEST(CudaDecode, IsNearTheFormulaForWindowsDroppedTokensAndSeveralRows) {
    for (const std::uint32_t splits : {1u, 2u, 7u}) {
        expect_near<kv::int8<>, kv::int8<>>({1, 3, 16}, {{300}, {90}, {1}}, {splits, 40}, tolerance);
        expect_near<kv::f16, kv::f16>({1, 3, 16}, {{700, 1, 4, 512}, {40}, {600, 1, 48, 256}}, {splits},
                                      tolerance);
        expect_near<kv::int4<>, kv::int4<>>({1, 2, 32}, {{700, 2, 4, 512}}, {splits}, tolerance);
        expect_near<kv::f16, kv::fp8<>>({1, 4, 16}, {{200, 5}, {33, 8}, {1, 1}, {150, 2}}, {splits},
                                        tolerance);
        expect_near<kv::f16, kv::f16>({1, 4, 16}, {{200, 5}, {40, 3}}, {splits, 17}, tolerance);
    }
}

TEST(CudaDecode, TakesPagesFromAnyPlace) {
    // Page by page from the pool, as if they had places of their own: the same bits.
    Batch<kv::int8<>, kv::int8<>> batch({2, 2, 16}, {{100}});
    const auto out = batch.attend({});
    attention::AttendCall call = batch.call({});
    std::vector<kv::PagePlace> places;
    for (std::size_t page = 0; page < 7; ++page) {
        places.push_back(reinterpret_cast<kv::PagePlace>(call.pages.pool + page * call.pages.page_bytes));
    }
    call.pages.places = places.data();
    call.pages.pool = nullptr;
    std::vector<float> again(out.size());
    call.out = again.data();
    zse::exec::gpu::Stream stream;
    decltype(batch)::launch(stream, call);
    EXPECT_TRUE(same_bits(out, again));
}

TEST(CudaDecode, GivesTheSameBitsInAnyOrderOfThreads) {
    const auto check = [](auto batch, const Ask& ask) {
        const auto out = batch.attend(ask, Order::ascending);
        for (const Order order : orders) EXPECT_TRUE(same_bits(out, batch.attend(ask, order)));
    };
    check(Batch<kv::f16, kv::f16>({2, 3, 16}, {{300}, {17, 3}}), {2});
    check(Batch<kv::int8<>, kv::int4<>, 128>({1, 4, 32}, {{300}}), {3});
    check(Batch<kv::fp8<>, kv::fp8<>>({1, 4, 16}, {{100}}), {});
}

TEST(CudaDecode, GivesARowTheSameBitsWhateverIsBesideItWhereItIsAskedFor) {
    Ask ask;
    ask.invariant = true;
    const Shape shape{2, 2, 16};
    Batch<kv::int8<>, kv::int8<>> alone(shape, {{600}}, 5);
    Batch<kv::int8<>, kv::int8<>> beside(shape, {{600}, {900}, {3}, {20, 12}}, 5);
    const auto one = alone.attend(ask);
    // Queries of the first row are the first that are drawn, in both.
    auto first = beside.attend(ask);
    first.resize(one.size());
    EXPECT_TRUE(same_bits(one, first));
}

}  // namespace
