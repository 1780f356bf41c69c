// SPDX-License-Identifier: Apache-2.0
// Heavy hitters: the sums of attention weights against the formula, and the choice of tokens against sorting.
#include <attention/cache.hpp>

#include <zse/attention/weigh.hpp>
#include <zse/kv/retain.hpp>

#include <array>
#include <set>

namespace {

using cached::Sequence;
using cached::Shape;
namespace kv = zse::kv;
using zse::kernels::Isa;

constexpr std::uint32_t heavy = 32;
constexpr std::uint32_t ring = 64;
constexpr std::uint32_t boundary = 128;  // recent tokens from here on; heavy slots hold tokens 0 to 31

template <class C>
struct Heavy {
    Shape shape{32, 32, 2, 3};
    std::uint32_t page_tokens;
    kv::PageLayout layout;
    std::vector<std::byte> pool;
    std::vector<kv::PageIndex> old_pages, pages;

    explicit Heavy(std::uint32_t tokens_of_page)
        : page_tokens(tokens_of_page), layout(kv::PageLayout::of<C, C>(tokens_of_page, 1, 2, 32, 32)) {
        const kv::PageIndex old = heavy / page_tokens;
        for (kv::PageIndex i = 0; i < old; ++i) old_pages.push_back(old - 1 - i);
        // Entries of tokens before the boundary are the same pages as those a ring later.
        const kv::PageIndex round = ring / page_tokens;
        for (kv::PageIndex i = 0; i < 3 * round; ++i) pages.push_back(old + i % round);
        pool.resize((old + round) * layout.page_bytes());
    }
    kv::LayerCache cache() {
        return {{pool.data(), layout.page_bytes(), layout},
                kv::side_kernels<C>(Isa::portable),
                kv::side_kernels<C>(Isa::portable)};
    }
    void put(const std::vector<kv::PageIndex>& table, std::size_t token, const Sequence& from,
             std::size_t row) {
        for (std::size_t head = 0; head < 2; ++head) {
            cache().put_key(table[token / page_tokens], head, token % page_tokens,
                            from.k.data() + (row * 2 + head) * 32);
            cache().put_value(table[token / page_tokens], head, token % page_tokens,
                              from.v.data() + (row * 2 + head) * 32);
        }
    }
    std::vector<float> key(const std::vector<kv::PageIndex>& table, std::size_t token, std::size_t head) {
        std::vector<float> row(32);
        cache().get_key(table[token / page_tokens], head, token % page_tokens, row.data());
        if (C::rotates) kv::rotate(row.data(), 32);
        return row;
    }
    std::vector<float> value(const std::vector<kv::PageIndex>& table, std::size_t token, std::size_t head) {
        std::vector<float> row(32);
        cache().get_value(table[token / page_tokens], head, token % page_tokens, row.data());
        return row;
    }
};

/// The sums after rows [first, last), in chunks of `step`.
template <class C>
std::vector<float> weigh(Heavy<C>& h, const Sequence& sequence, std::size_t last, std::size_t step, Isa isa) {
    std::vector<float> sums(2 * (heavy + ring), 0.25f);
    const std::vector<std::uint32_t> segment_of_row(last, 0);
    for (std::size_t first = boundary; first < last; first += step) {
        const std::size_t end = std::min(first + step, last);
        const kv::Segment segment{0,
                                  static_cast<std::uint32_t>(end - first),
                                  static_cast<std::uint32_t>(first),
                                  h.pages.data(),
                                  h.old_pages.data(),
                                  boundary,
                                  0,
                                  heavy,
                                  sums.data()};
        zse::attention::Weigh op;
        op.arguments.batch = {{&segment, 1}, segment_of_row.data(), nullptr, end - first};
        op.arguments.cache = op.arguments.old_cache = h.cache();
        op.arguments.kernels = zse::attention::cache_kernels<C, C>(isa);
        op.arguments.q = sequence.q.data() + first * 6 * 32;
        op.arguments.q_stride = 6 * 32;
        op.arguments.heads = 6;
        op.mass = {heavy, ring};
        std::vector<double> scratch(zse::ceil_div(op.thread_bytes(), sizeof(double)) + 1, std::nan(""));
        EXPECT_EQ(op.items(), 2u);
        for (std::size_t item = 0; item < op.items(); ++item) {
            op.run(item, {0, reinterpret_cast<std::byte*>(scratch.data())});
        }
        EXPECT_TRUE(std::isnan(scratch.back())) << "more scratch was used than asked for";
    }
    return sums;
}

template <class C>
void sums_are_the_formula(double tolerance) {
    for (const std::uint32_t page : {8u, 16u, 32u}) {
        Heavy<C> h(page);
        const std::size_t last = boundary + 50;
        const Sequence sequence(h.shape, last, 5);
        for (std::size_t t = 0; t < heavy; ++t) h.put(h.old_pages, t, sequence, t);
        for (std::size_t t = boundary; t < last; ++t) h.put(h.pages, t, sequence, t);
        std::vector<double> expected(2 * (heavy + ring), 0.25);
        for (std::size_t row = boundary; row < last; ++row) {
            for (std::size_t head = 0; head < 6; ++head) {
                std::vector<std::pair<std::size_t, double>> scores;  // where to add, what
                const auto score = [&](const std::vector<float>& key, std::size_t at) {
                    double sum = 0;
                    for (std::size_t i = 0; i < 32; ++i) {
                        sum += static_cast<double>(sequence.q[(row * 6 + head) * 32 + i]) *
                               static_cast<double>(key[i]);
                    }
                    scores.emplace_back(at, sum / std::sqrt(32.0));
                };
                for (std::size_t t = 0; t < heavy; ++t) score(h.key(h.old_pages, t, head / 3), t);
                for (std::size_t t = boundary; t <= row; ++t)
                    score(h.key(h.pages, t, head / 3), heavy + t % ring);
                double total = 0;
                for (const auto& [at, s] : scores) total += std::exp(s);
                for (const auto& [at, s] : scores)
                    expected[head / 3 * (heavy + ring) + at] += std::exp(s) / total;
            }
        }
        support::on_each_isa([&](Isa isa) {
            const auto sums = weigh(h, sequence, last, 1000, isa);
            for (std::size_t i = 0; i < sums.size(); ++i) {
                ASSERT_NEAR(sums[i], expected[i], tolerance) << C::name << " pages of " << page << ", " << i;
            }
            EXPECT_EQ(weigh(h, sequence, last, 1, isa), sums) << "row by row";
            EXPECT_EQ(weigh(h, sequence, last, 7, isa), sums);
        });
    }
}

TEST(Heavy, SumsAreThoseOfTheFormula) {
    sums_are_the_formula<kv::f32>(1e-4);
    // Queries in 8 bits: 1/254 of their greatest value a step, which moves a weight by a few percent; 50 rows of 3
    // heads add up.
    sums_are_the_formula<kv::int8<16>>(0.05);
}

// Each head keeps the tokens with the greatest sums, of those that it kept and those that come; the first ones always.
TEST(Heavy, TheHeaviestStay) {
    for (const std::uint32_t page : {1u, 8u, 32u}) {
        for (const std::uint32_t sinks : {0u, 3u}) {
            Heavy<kv::int4<16>> h(page);
            const Sequence sequence(h.shape, 512, 6);
            std::mt19937 random(page + sinks);
            std::vector<float> sums(2 * (heavy + ring), 0.0f);
            // What each head holds, as the test keeps it: the token and its sum, by slot.
            std::array<std::vector<std::pair<std::size_t, float>>, 2> model;
            std::uint32_t kept = 0;
            for (std::uint32_t first = 0; first < 256; first += ring) {
                for (std::uint32_t t = first; t < first + ring; ++t)
                    h.put(h.pages, t % ring + ring, sequence, t);
                for (std::size_t head = 0; head < 2; ++head) {
                    for (std::uint32_t t = first; t < first + ring; ++t) {
                        const auto sum = static_cast<float>(random() % 1000);
                        sums[head * (heavy + ring) + heavy + t % ring] = sum;
                        model[head].emplace_back(t, t < sinks ? 1e30f : sum);
                    }
                    std::stable_sort(model[head].begin(), model[head].end(),
                                     [](const auto& a, const auto& b) { return a.second > b.second; });
                    // Sums are distinct but for chance: compare as multisets where the last one that stays has equals.
                    model[head].resize(std::min<std::size_t>(model[head].size(), heavy));
                }
                kv::Retain op;
                op.recent = op.old = h.cache();
                // The ring's pages again and again: entries of the stretch.
                std::vector<kv::PageIndex> table;
                for (std::uint32_t i = 0; i < (first + ring) / page; ++i)
                    table.push_back(h.pages[i % (ring / page)]);
                op.recent_pages = table.data();
                op.old_pages = h.old_pages.data();
                op.sums = sums.data();
                op.mass = {heavy, ring};
                op.first = first;
                op.count = ring;
                op.kept = kept;
                op.sinks = sinks;
                ASSERT_EQ(op.items(), 2u);
                for (std::size_t item = 0; item < 2; ++item) op.run(item, {0, nullptr});
                kept = heavy;
                for (std::size_t head = 0; head < 2; ++head) {
                    std::multiset<float> wanted, got;
                    for (const auto& [token, sum] : model[head]) wanted.insert(sum);
                    for (std::size_t slot = 0; slot < heavy; ++slot) {
                        const float sum = sums[head * (heavy + ring) + slot];
                        got.insert(std::isinf(sum) ? 1e30f : sum);
                    }
                    EXPECT_EQ(got, wanted) << first;
                    for (std::uint32_t t = 0; t < ring; ++t)
                        EXPECT_EQ(sums[head * (heavy + ring) + heavy + t], 0.0f);
                    // Every slot holds the key and the value of one token with its sum.
                    for (std::size_t slot = 0; slot < heavy; ++slot) {
                        const auto key = h.key(h.old_pages, slot, head);
                        const auto value = h.value(h.old_pages, slot, head);
                        bool found = false;
                        for (std::uint32_t t = 0; t < first + ring && !found; ++t) {
                            Heavy<kv::int4<16>> one(page);
                            one.put(one.old_pages, slot, sequence, t);
                            found = one.key(one.old_pages, slot, head) == key &&
                                    one.value(one.old_pages, slot, head) == value;
                        }
                        EXPECT_TRUE(found) << slot;
                    }
                }
            }
        }
    }
}

}  // namespace
