// SPDX-License-Identifier: Apache-2.0
// Attention whose rows see a window of tokens: near the formula, with bits that depend on nothing but what a row sees.
// rows: 40 48
#include <attention/kept.hpp>

namespace {

using namespace kept;
using cached::same_bits;
using support::on_each_isa;

template <class K, class V>
void expect_windows(std::size_t group, std::uint32_t page_tokens, const std::vector<std::uint32_t>& windows) {
    const Shape shape{32, 64, 2, group};
    const Sequence<K, V> sequence(shape, 800, static_cast<unsigned>(group));
    Cache<K, V> cache(sequence, page_tokens);
    cache.append(0, 800);
    for (const std::uint32_t window : windows) {
        // The first rows, rows around multiples of 256 and of a page, and a block that begins and ends anywhere.
        for (const Rows& rows :
             {Rows{0, 3}, Rows{254, 258}, Rows{511, 514}, Rows{767, 769}, Rows{523, 541}, Rows{781, 800}}) {
            expect_rows(sequence, cache, rows, Seen{window, 0, 0},
                        zse::text(K::name, "/", V::name, " group ", group, " page ", page_tokens, " window ",
                                  window, " rows ", rows.first, " to ", rows.last));
            if (testing::Test::HasFailure()) return;
        }
    }
}

TEST(Window, RowsSeeItAndNoMoreOfEachPair) {
    const std::vector<std::uint32_t> windows{1, 2, 15, 33, 256, 257, 600, 4000};
    for (const std::size_t group : {1u, 3u}) {
        expect_windows<kv::f16, kv::f16>(group, 16, windows);
        expect_windows<kv::int8<>, kv::int8<>>(group, 16, windows);
        expect_windows<kv::int4<>, kv::int4<>>(group, 16, windows);
        expect_windows<kv::int8<>, kv::int4<>>(group, 16, windows);
    }
}

TEST(Window, RowsSeeItAndNoMoreOfEachPageSize) {
    const std::vector<std::uint32_t> windows{1, 31, 100, 300};
    for (const std::uint32_t page_tokens : {1u, 8u, 32u}) {
        expect_windows<kv::f16, kv::f16>(3, page_tokens, windows);
        expect_windows<kv::int8<>, kv::int8<>>(1, page_tokens, windows);
        expect_windows<kv::int4<>, kv::f16>(3, page_tokens, windows);
    }
}

TEST(Window, OfOneTokenGivesItsValue) {
    const Shape shape{16, 16, 1, 2};
    const Sequence<kv::f32, kv::f32> sequence(shape, 300, 5);
    Cache<kv::f32, kv::f32> cache(sequence, 16);
    cache.append(0, 300);
    on_each_isa([&](Isa isa) {
        for (const std::size_t row : {0u, 17u, 255u, 256u, 299u}) {
            const auto out = cache.attend<flash<>>({isa}, row, row + 1, {1, 0, 0});
            for (std::size_t i = 0; i < out.size(); ++i)
                EXPECT_EQ(out[i], sequence.input().v[row * 16 + i % 16]);
        }
    });
}

TEST(Window, TokensBeforeItAreNotRead) {
    const Shape shape{32, 32, 1, 3};
    for (const std::uint32_t page_tokens : {1u, 16u, 32u}) {
        const Sequence<kv::f16, kv::f16> sequence(shape, 700, 6);
        Cache<kv::f16, kv::f16> cache(sequence, page_tokens);
        cache.append(0, 700);
        const Seen seen{100, 0, 0};
        on_each_isa([&](Isa isa) {
            const auto before = cache.attend<flash<>>({isa}, 620, 640, seen);
            Cache<kv::f16, kv::f16> forgetful = cache;
            forgetful.forget(0,
                             512);  // the first row begins at token 521; kernels read from a multiple of 32
            EXPECT_TRUE(same_bits(forgetful.attend<flash<>>({isa}, 620, 640, seen), before));
            forgetful.forget(544, 545, false);  // in a block whose other tokens are seen
            const auto after = forgetful.attend<flash<>>({isa}, 620, 650, seen);
            for (std::size_t i = 0; i < after.size(); ++i) {
                EXPECT_EQ(std::isnan(after[i]), i / 96 < 24)
                    << "row " << 620 + i / 96 << ": 643 is the last to see 544";
            }
        });
    }
}

/// All rows of a sequence, in steps of at most `step` rows, over pages that are written again and over others.
template <class K, class V>
void expect_bits_of_own_pages(std::uint32_t page_tokens, std::uint32_t window, std::uint32_t step) {
    const Shape shape{32, 32, 1, 3};
    const Sequence<K, V> sequence(shape, 620, window);
    kv::Keeping keeping;
    keeping.page_tokens = page_tokens;
    keeping.window = window;
    keeping.step_tokens = step;
    ASSERT_LT(keeping.pages(620) * page_tokens, 620u) << "no page is written again";
    const Seen seen{window, 0, 0};
    on_each_isa([&](Isa isa) {
        Cache<K, V> ring(sequence, page_tokens, keeping);
        Cache<K, V> apart(sequence, page_tokens);
        std::mt19937 random(step);
        for (std::size_t first = 0; first < 620;) {
            const std::size_t last = std::min<std::size_t>(
                620, first + (random() % 3 == 0 ? 1 : step - random() % (step / 2 + 1)));
            ring.append(first, last);
            apart.append(first, last);
            const auto out = ring.template attend<flash<>>({isa, 2}, first, last, seen);
            ASSERT_TRUE(same_bits(out, apart.template attend<flash<>>({isa, 2}, first, last, seen)))
                << K::name << "/" << V::name << " page " << page_tokens << " window " << window << " rows "
                << first << " to " << last;
            first = last;
        }
    });
}

TEST(Window, PagesThatAreWrittenAgainGiveTheSameBits) {
    for (const std::uint32_t page_tokens : {1u, 8u, 16u, 32u}) {
        expect_bits_of_own_pages<kv::f16, kv::f16>(page_tokens, 100, 24);
        expect_bits_of_own_pages<kv::int8<>, kv::int4<>>(page_tokens, 33, 7);
        expect_bits_of_own_pages<kv::int4<>, kv::int8<>>(page_tokens, 300, 40);
    }
}

}  // namespace
