// SPDX-License-Identifier: Apache-2.0
// How the context of a sequence is split on a GPU, and how partial states merge, also with those of the host.
// labels: cuda_host
#include <attention/cuda_cache.hpp>

namespace {

using namespace cuda_cache;

constexpr float tolerance = 2e-5f;  // float32 sums over some hundred terms

TEST(CudaMerge, AddsStatesThatTheHostComputed) {
    // The device holds the first tokens and the last; two states of the host stand for those between.
    constexpr std::uint32_t tokens = 700;
    const Shape shape{2, 3, 16};
    const Ask whole;
    for (const std::uint32_t splits : {1u, 3u}) {
        Batch<kv::int8<>, kv::int4<>> all(shape, {{tokens, 2}}, 3);
        const auto truth = all.truth(whole);
        std::vector<float> extra;
        for (std::size_t row = 0; row < 2; ++row) {
            for (std::uint32_t head = 0; head < shape.heads(); ++head) {
                for (const auto& [begin, end] : {std::pair{32u, 300u}, std::pair{300u, 512u}}) {
                    const auto of = all.state(row, head, begin, end);
                    for (const double v : of.value) extra.push_back(static_cast<float>(v));
                    extra.push_back(static_cast<float>(of.greatest) * attention::log2_e);
                    extra.push_back(static_cast<float>(of.sum));
                }
            }
        }
        Batch<kv::int8<>, kv::int4<>> device(shape, {{tokens, 2, 32, 512}}, 3);
        const auto out = device.attend({splits}, Order::ascending, extra.data(), 2);
        ASSERT_EQ(out.size(), truth.size());
        for (std::size_t i = 0; i < out.size(); ++i) ASSERT_NEAR(out[i], truth[i], tolerance) << i;
    }
}

TEST(CudaMerge, GivesTheSameBitsInAnyOrderOfThreads) {
    Batch<kv::int8<>, kv::int8<>> batch({2, 3, 16}, {{700}, {100, 2}});
    const auto out = batch.attend({5});
    EXPECT_EQ(batch.kernels(), 2u);
    for (const Order order : orders) EXPECT_TRUE(same_bits(out, batch.attend({5}, order)));
}

TEST(CudaMerge, SplitsLessWhereThereIsLessRoom) {
    Batch<kv::f16, kv::f16> batch({2, 2, 16}, {{700}});
    const auto truth = batch.truth({});
    for (const std::uint64_t states : {0u, 1u, 2u, 5u}) {
        attention::AttendCall call = batch.call({6});
        std::vector<float> out(truth.size());
        // One float more than so many states of each head, and one that nobody may write to.
        std::vector<float> partials(states * call.heads * attention::partial_floats(64) + 2, 77.0f);
        call.partials = partials.data();
        call.partials_floats = partials.size() - 1;
        call.out = out.data();
        zse::exec::gpu::Stream stream;
        decltype(batch)::launch(stream, call);
        ASSERT_FALSE(stream.failed());
        EXPECT_EQ(stream.kernels(), states < 2 ? 1u : 2u);
        EXPECT_EQ(partials.back(), 77.0f);
        for (std::size_t i = 0; i < out.size(); ++i) ASSERT_NEAR(out[i], truth[i], tolerance) << i;
        // Bits that may depend on no other sequence may not depend on the room either.
        call.invariant = true;
        zse::exec::gpu::Stream strict;
        decltype(batch)::launch(strict, call);
        EXPECT_EQ(strict.failed(), states < 3);
    }
}

TEST(CudaSplits, FillTheDeviceAndStayBounded) {
    using attention::splits;
    // An H200 has 132 multiprocessors.
    EXPECT_EQ(splits(1, 8, 32768, 132), 50u);
    EXPECT_EQ(splits(1, 8, 1000, 132), 8u);  // of 128 tokens
    EXPECT_EQ(splits(1, 1, 1 << 20, 132), attention::most_splits);
    EXPECT_EQ(splits(64, 8, 32768, 132), 1u);
    EXPECT_EQ(splits(0, 8, 0, 132), 1u);
    EXPECT_EQ(attention::partials_floats(2, 3, 64, 129), 2u * 3 * 2 * 66);
    EXPECT_EQ(attention::partials_floats(2, 3, 64, 1 << 30), 2u * 3 * 64 * 66);
    EXPECT_EQ(attention::partials_floats(2, 3, 64, 1 << 30, true), 2u * 3 * 16 * 66);
}

TEST(CudaSplits, CoverEveryTileOnce) {
    using attention::Present;
    using attention::SplitRule;
    using attention::TileWalk;
    for (const std::uint32_t tokens : {1u, 31u, 32u, 33u, 700u, 5000u}) {
        for (const std::uint32_t window : {0u, 1u, 40u}) {
            for (const std::uint32_t boundary : {0u, 256u, 512u}) {
                for (const std::uint32_t sinks : {0u, 4u, 32u, 40u}) {
                    if (boundary >= tokens) continue;
                    kv::Segment segment;
                    segment.rows = 1;
                    segment.first_position = tokens - 1;
                    segment.boundary = boundary;
                    segment.sinks = sinks;
                    const Present present = Present::of(segment);
                    const auto walk = TileWalk::of(present, tokens - 1, tokens - 1, window);
                    std::vector<std::uint32_t> seen;
                    for (const SplitRule rule :
                         {SplitRule{7, SplitRule::fast_tiles}, SplitRule{16, SplitRule::invariant_tiles}}) {
                        seen.clear();
                        const std::uint32_t each = rule.tiles_each(walk.count);
                        EXPECT_LE(rule.parts(walk.count), rule.most);
                        for (std::uint32_t part = 0; part < rule.parts(walk.count); ++part) {
                            EXPECT_LT(part * each, walk.count);
                            for (std::uint32_t i = part * each; i < std::min((part + 1) * each, walk.count);
                                 ++i) {
                                seen.push_back(walk.tile(i));
                            }
                        }
                        std::vector<std::uint32_t> wanted;
                        for (std::uint32_t tile = 0; tile * 32 < tokens; ++tile) {
                            bool any = false;
                            for (std::uint32_t t = tile * 32; t < std::min(tile * 32 + 32, tokens); ++t) {
                                const bool dropped = t >= sinks && t < boundary;
                                any = any || (!dropped && (window == 0 || tokens - 1 - t < window));
                            }
                            if (any) wanted.push_back(tile);
                        }
                        // Sinks before a window may be walked in vain; nothing is missed, and nothing comes twice.
                        EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end()));
                        EXPECT_EQ(std::adjacent_find(seen.begin(), seen.end()), seen.end());
                        EXPECT_EQ(seen, wanted) << tokens << " " << window << " " << boundary << " " << sinks;
                    }
                }
            }
        }
    }
}

}  // namespace
