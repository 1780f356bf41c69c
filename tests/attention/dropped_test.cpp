// SPDX-License-Identifier: Apache-2.0
// Attention over a sequence whose old tokens were dropped, but for the first ones, or coded anew: near the formula,
// with bits that depend on nothing but what a row sees.
// rows: 39 40
#include <attention/kept.hpp>

namespace {

using namespace kept;
using cached::same_bits;
using support::on_each_isa;

// Of a stretch of 256 that begins at 512 or 768: its first row, its last, and blocks at both ends and between.
constexpr Rows all_rows[] = {{512, 513}, {512, 530}, {600, 618}, {767, 768}, {750, 768}, {768, 790}};

/// Where the stretch of `first` begins, less `recent` tokens.
std::uint32_t boundary(std::size_t first, std::uint32_t recent) {
    return static_cast<std::uint32_t>(first / 256 * 256) - recent;
}

template <class K, class V>
void expect_dropped(std::size_t group, std::uint32_t page_tokens, const std::vector<std::uint32_t>& sinks) {
    const Shape shape{32, 64, 2, group};
    const Sequence<K, V> sequence(shape, 800, static_cast<unsigned>(group));
    for (const std::uint32_t count : sinks) {
        for (const Rows& rows : all_rows) {
            const Seen seen{0, boundary(rows.first, 256), count};
            Cache<K, V> cache(sequence, page_tokens);
            cache.append(0, std::min(count, seen.boundary));  // what is dropped was never there
            cache.append(seen.boundary, 800);
            expect_rows(sequence, cache, rows, seen,
                        zse::text(K::name, "/", V::name, " group ", group, " page ", page_tokens, " sinks ",
                                  count, " rows ", rows.first, " to ", rows.last));
            if (testing::Test::HasFailure()) return;
        }
    }
}

TEST(Dropped, RowsSeeSinksAndRecentTokensOfEachPair) {
    for (const std::size_t group : {1u, 3u}) {
        expect_dropped<kv::f16, kv::f16>(group, 16, {0, 1, 4, 16, 33, 300});
        expect_dropped<kv::int8<>, kv::int8<>>(group, 16, {0, 4, 33});
        expect_dropped<kv::int4<>, kv::int4<>>(group, 16, {0, 4, 33});
        expect_dropped<kv::int4<>, kv::f16>(group, 16, {5});
    }
}

TEST(Dropped, RowsSeeSinksAndRecentTokensOfEachPageSize) {
    for (const std::uint32_t page_tokens : {1u, 8u, 32u}) {
        expect_dropped<kv::f16, kv::f16>(3, page_tokens, {0, 4, 33});
        expect_dropped<kv::int8<>, kv::int4<>>(1, page_tokens, {4});
    }
}

TEST(Dropped, SinksCountOnlyWithinAWindow) {
    const Shape shape{32, 32, 1, 3};
    const Sequence<kv::f16, kv::f16> sequence(shape, 800, 4);
    Cache<kv::f16, kv::f16> cache(sequence, 16);
    cache.append(0, 40);
    cache.append(256, 800);
    for (const std::uint32_t window : {100u, 500u, 650u}) {
        expect_rows(sequence, cache, {630, 660}, {window, 256, 40}, zse::text("window ", window));
    }
}

template <class K, class V, class OldK, class OldV>
void expect_old(std::size_t group, std::uint32_t page_tokens, std::uint32_t window = 0) {
    const Shape shape{64, 32, 2, group};
    const Sequence<K, V, OldK, OldV> sequence(shape, 800, static_cast<unsigned>(group + 10));
    for (const Rows& rows : all_rows) {
        const Seen seen{window, boundary(rows.first, 256), 0};
        Cache<K, V, OldK, OldV> cache(sequence, page_tokens);
        cache.append(0, 800);
        cache.recode(0, seen.boundary);
        cache.forget(0, seen.boundary);  // it is read from where it was coded anew
        expect_rows(
            sequence, cache, rows, seen,
            zse::text(K::name, "/", V::name, " then ", OldK::name, "/", OldV::name, " group ", group,
                      " page ", page_tokens, " window ", window, " rows ", rows.first, " to ", rows.last));
        if (testing::Test::HasFailure()) return;
    }
}

TEST(Old, TokensAreReadInTheirOwnCodec) {
    using Plain4 = kv::int4<32, kv::plain>;
    for (const std::size_t group : {1u, 3u}) {
        expect_old<kv::f16, kv::f16, kv::int8<>, kv::int8<>>(group, 16);
        expect_old<kv::f16, kv::f16, kv::int4<>, kv::int4<>>(group, 16);
        expect_old<kv::int8<>, kv::int8<>, kv::int4<>, kv::int4<>>(group, 16);
        // Each side turned in one codec and not in the other, both ways.
        expect_old<kv::int4<>, kv::int4<>, Plain4, Plain4>(group, 16);
        expect_old<kv::int8<>, kv::int4<>, kv::int4<>, kv::int8<>>(group, 16);
    }
}

TEST(Old, TokensAreReadInTheirOwnCodecFromPagesOfEachSize) {
    for (const std::uint32_t page_tokens : {1u, 8u, 32u}) {
        expect_old<kv::f16, kv::f16, kv::int8<>, kv::int4<>>(3, page_tokens);
        expect_old<kv::int8<>, kv::int8<>, kv::int4<>, kv::int4<>>(1, page_tokens);
    }
}

TEST(Old, AWindowHidesThemToo) {
    expect_old<kv::f16, kv::f16, kv::int4<>, kv::int4<>>(3, 16, 300);
    expect_old<kv::int8<>, kv::f16, kv::int4<>, kv::int8<>>(1, 8, 400);
    expect_old<kv::f16, kv::f16, kv::int8<>, kv::int8<>>(1, 32, 50);
}

/// A whole sequence as an engine computes it: chunks that end at cuts, pages that are written again, tokens that are
/// coded anew where a stretch begins. Near the formula, and with the bits of pages that nothing shares.
template <class K, class V, class OldK, class OldV>
void expect_a_whole_sequence(const kv::Keeping& keeping) {
    const std::size_t tokens = 1100;
    const Shape shape{32, 32, 1, 3};
    const Sequence<K, V, OldK, OldV> sequence(shape, tokens, keeping.page_tokens);
    ASSERT_LT(keeping.pages(tokens), keeping.entries(tokens)) << "no page is written again";
    on_each_isa([&](Isa isa) {
        Cache<K, V, OldK, OldV> ring(sequence, keeping.page_tokens, keeping);
        Cache<K, V, OldK, OldV> apart(sequence, keeping.page_tokens);
        std::mt19937 random(3);
        std::uint32_t old = 0;
        for (std::size_t first = 0; first < tokens;) {
            const std::size_t wanted = random() % 3 == 0 ? 1 : keeping.step_tokens;
            const std::size_t last =
                std::min({tokens, first + wanted, first / keeping.cut * keeping.cut + keeping.cut});
            const Seen seen{keeping.window, keeping.boundary(static_cast<std::uint32_t>(first)),
                            keeping.sinks};
            if (keeping.old && seen.boundary > old) {
                ring.recode(old, seen.boundary);
                apart.recode(old, seen.boundary);
                old = seen.boundary;
            }
            ring.append(first, last);
            apart.append(first, last);
            const auto out = ring.template attend<flash<>>({isa, 2}, first, last, seen);
            ASSERT_TRUE(same_bits(out, apart.template attend<flash<>>({isa, 2}, first, last, seen)))
                << "rows " << first << " to " << last << " of pages of " << keeping.page_tokens;
            if (last == tokens || last % keeping.cut == 0) {
                expect_near(out, sequence.truth(first, last, seen, true), zse::text("rows from ", first));
            }
            first = last;
        }
    });
}

TEST(Dropped, PagesThatAreWrittenAgainGiveTheSameBits) {
    for (const std::uint32_t page_tokens : {1u, 8u, 16u, 32u}) {
        expect_a_whole_sequence<kv::f16, kv::f16, kv::f16, kv::f16>(
            {.page_tokens = page_tokens, .sinks = 5, .recent = 256, .step_tokens = 64});
        expect_a_whole_sequence<kv::int8<>, kv::int8<>, kv::int8<>, kv::int8<>>(
            {.page_tokens = page_tokens, .window = 400, .sinks = 4, .recent = 512, .step_tokens = 100});
    }
}

TEST(Old, PagesThatAreWrittenAgainGiveTheSameBits) {
    for (const std::uint32_t page_tokens : {1u, 8u, 16u, 32u}) {
        expect_a_whole_sequence<kv::f16, kv::f16, kv::int4<>, kv::int4<>>(
            {.page_tokens = page_tokens, .recent = 256, .old = true, .step_tokens = 64});
        expect_a_whole_sequence<kv::int8<>, kv::int4<>, kv::int4<>, kv::int8<>>(
            {.page_tokens = page_tokens, .window = 300, .recent = 256, .old = true, .step_tokens = 100});
    }
}

}  // namespace
