// SPDX-License-Identifier: Apache-2.0
// Flash attention on every instruction set: near the formula in double precision; scratch that does not grow with the
// context.
// rows: 40
#include <attention/cache.hpp>

namespace {

using namespace cached;
using support::on_each_isa;

TEST(Flash, IsWithin1e5OfTheReferenceForAnyShapeAndLength) {
    for (const std::uint32_t dim : {16u, 64u, 80u, 128u}) {
        for (const std::size_t group : {1u, 3u, 8u}) {
            for (const std::size_t tokens : {1u, 2u, 16u, 63u, 65u, 255u, 256u, 257u, 513u, 700u}) {
                expect_near_reference<flash<>, kv::f16, kv::f16>({dim, dim, 2, group}, tokens, 2);
            }
        }
    }
}

TEST(Flash, IsWithin1e5OfTheReferenceForManyRows) {
    for (const std::size_t group : {1u, 2u, 3u, 5u, 8u, 70u}) {
        expect_near_reference<flash<>, kv::f32, kv::f32>({32, 32, 1, group}, 40, 40);
        // Blocks of rows that end before, in and behind the first split.
        expect_near_reference<flash<>, kv::f32, kv::f32>({32, 32, 1, group}, 270, 37);
    }
}

TEST(Flash, IsWithin1e5OfTheReferenceForEachPairOfCodecs) {
    for (const std::uint32_t dim : {64u, 128u}) {
        const Shape shape{dim, dim, 2, 3};
        for (const std::size_t tokens : {1u, 40u, 300u}) {
            expect_near_reference<flash<>, kv::f32, kv::f32>(shape, tokens, 3);
            expect_near_reference<flash<>, kv::int8<>, kv::int8<>>(shape, tokens, 3);
            expect_near_reference<flash<>, kv::int4<>, kv::int4<>>(shape, tokens, 3);
            expect_near_reference<flash<>, kv::int4<32, kv::plain>, kv::f16>(shape, tokens, 3);
            expect_near_reference<flash<>, kv::fp8<>, kv::fp8<>>(shape, tokens, 3);
            expect_near_reference<flash<>, kv::fp8<>, kv::int4<>>(shape, tokens, 3);
            expect_near_reference<flash<>, kv::f16, kv::fp8<>>(shape, tokens, 20);
            expect_near_reference<flash<>, kv::int8<>, kv::int4<>>(shape, tokens, 3);
            expect_near_reference<flash<>, kv::int4<>, kv::int8<>>(shape, tokens, 3);
        }
    }
}

TEST(Flash, KeysAndValuesMayHaveDifferentWidths) {
    expect_near_reference<flash<>, kv::f16, kv::f16>({80, 48, 2, 3}, 300, 20);
    expect_near_reference<flash<>, kv::f16, kv::f16>({40, 72, 2, 3}, 300, 20);
    expect_near_reference<flash<>, kv::f16, kv::f16>({2, 2, 2, 3}, 70, 20);
    expect_near_reference<flash<>, kv::int8<>, kv::int4<>>({96, 160, 2, 3}, 300, 20);
    expect_near_reference<flash<>, kv::fp8<>, kv::fp8<>>({96, 160, 2, 3}, 300, 20);
}

TEST(Flash, IsWithin1e5OfTheReferenceForEachPageSize) {
    for (const std::uint32_t page_tokens : {1u, 8u, 32u}) {
        expect_near_reference<flash<>, kv::f16, kv::f16>({64, 64, 2, 3}, 300, 3, page_tokens);
        expect_near_reference<flash<>, kv::int8<>, kv::int8<>>({64, 64, 2, 3}, 300, 20, page_tokens);
        expect_near_reference<flash<>, kv::fp8<>, kv::fp8<>>({64, 64, 2, 3}, 300, 20, page_tokens);
        expect_near_reference<flash<>, kv::int4<>, kv::int4<>>({64, 64, 2, 3}, 300, 20, page_tokens);
    }
}

TEST(Flash, EverySplitIsNearTheReference) {
    expect_near_reference<flash<64>, kv::f16, kv::f16>({64, 64, 1, 3}, 300, 20);
    expect_near_reference<flash<128>, kv::f16, kv::f16>({64, 64, 1, 3}, 300, 20);
    expect_near_reference<flash<1024>, kv::f16, kv::f16>({64, 64, 1, 3}, 300, 20);
}

/// The reference itself, against the formula over the floats that were put in.
TEST(Reference, IsTheSoftmaxOfScaledScores) {
    const Shape shape{16, 16, 1, 2};
    const std::size_t tokens = 20;
    const Sequence s(shape, tokens, 5);
    Cache<kv::f32, kv::f32> cache(shape, 8, 1, tokens, true);
    cache.append(0, s, 0, tokens);
    const auto out = cache.attend<reference>({}, {{0, &s, 0, tokens}});
    for (std::size_t row = 0; row < tokens; ++row) {
        for (std::size_t head = 0; head < 2; ++head) {
            double sum = 0;
            std::vector<double> value(16, 0.0);
            for (std::size_t t = 0; t <= row; ++t) {
                double score = 0;
                for (std::size_t i = 0; i < 16; ++i) {
                    score += static_cast<double>(s.q[(row * 2 + head) * 16 + i]) *
                             static_cast<double>(s.k[t * 16 + i]);
                }
                const double weight = std::exp(score / 4.0);
                sum += weight;
                for (std::size_t i = 0; i < 16; ++i)
                    value[i] += weight * static_cast<double>(s.v[t * 16 + i]);
            }
            for (std::size_t i = 0; i < 16; ++i) {
                ASSERT_NEAR(static_cast<double>(out[(row * 2 + head) * 16 + i]), value[i] / sum, 1e-6);
            }
        }
    }
}

TEST(Flash, GreatScoresDoNotOverflow) {
    const Shape shape{64, 64, 1, 1};
    Sequence sequence(shape, 300, 3);
    for (float& value : sequence.q) value *= 100.0f;
    for (float& value : sequence.k) value *= 100.0f;
    Cache<kv::f32, kv::f32> cache(shape, 16, 1, 300, false);
    cache.append(0, sequence, 0, 300);
    on_each_isa([&](Isa isa) {
        for (const float value : cache.attend<flash<>>({isa}, {{0, &sequence, 280, 300}})) {
            ASSERT_TRUE(std::isfinite(value));
            ASSERT_LE(std::fabs(value), 1.71f) << "an average of values";
        }
    });
}

template <class K>
void expect_no_number_to_show(Isa isa) {
    const Shape shape{64, 64, 1, 2};
    Sequence sequence(shape, 300, 3);
    Cache<K, kv::f32> cache(shape, 16, 1, 300, false);
    cache.append(0, sequence, 0, 300);
    sequence.q[(299 * 2 + 1) * 64 + 40] = std::nanf("");
    const auto out = cache.template attend<flash<>>({isa}, {{0, &sequence, 298, 300}});
    for (std::size_t i = 0; i < out.size(); ++i) {
        ASSERT_EQ(std::isnan(out[i]), i / 64 == 3) << K::name << ": head 1 of the second row, and no other";
    }
}

TEST(Flash, AQueryThatIsNoNumberShowsInItsHeadAlone) {
    on_each_isa([](Isa isa) {
        expect_no_number_to_show<kv::f16>(isa);
        expect_no_number_to_show<kv::int8<>>(isa);
        expect_no_number_to_show<kv::int4<32, kv::plain>>(isa);
    });
}

TEST(Flash, AKeyThatIsNoNumberShowsInTheRowsThatSeeIt) {
    on_each_isa([](Isa isa) {
        const Shape shape{64, 64, 1, 2};
        Sequence sequence(shape, 40, 3);
        sequence.k[20 * 64 + 7] = std::nanf("");
        Cache<kv::f32, kv::f32> cache(shape, 16, 1, 40, false);
        cache.append(0, sequence, 0, 40);
        const auto out = cache.attend<flash<>>({isa}, {{0, &sequence, 0, 40}});
        for (std::size_t i = 0; i < out.size(); ++i) ASSERT_EQ(std::isnan(out[i]), i / 128 >= 20) << i;
    });
}

template <class Attention>
zse::Bytes thread_bytes(std::size_t context) {
    Arguments arguments;
    arguments.cache.pages.layout = kv::PageLayout::of<kv::f16, kv::f16>(16, 1, 8, 128, 128);
    arguments.heads = 32;
    arguments.most_tokens = context;
    arguments.most_rows = 512;
    return typename Attention::Attend{arguments}.thread_bytes();
}

TEST(Flash, ScratchDoesNotGrowWithTheContext) {
    EXPECT_EQ(thread_bytes<flash<>>(1024), thread_bytes<flash<>>(16384));
    EXPECT_LT(thread_bytes<flash<>>(16384), zse::KiB(256));
    EXPECT_GT(thread_bytes<reference>(16384), thread_bytes<reference>(1024) + zse::KiB(100));
}

TEST(Flash, RunsAt16384TokensInTheScratchOf1024) {
    // attend() gives exactly thread_bytes(), and sees a write beyond it.
    expect_near_reference<flash<>, kv::f16, kv::f16>({16, 16, 1, 2}, 1024, 1);
    expect_near_reference<flash<>, kv::f16, kv::f16>({16, 16, 1, 2}, 16384, 1);
}

}  // namespace
