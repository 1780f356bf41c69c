// SPDX-License-Identifier: Apache-2.0
// The bits of flash attention on every instruction set: the same whatever the chunks, the pages, the mates of a batch,
// and the threads that one sequence is spread over.
// rows: 40 48
#include <attention/cache.hpp>

namespace {

using namespace cached;
using support::on_each_isa;

/// Flash outputs of all rows of a sequence, cached and attended to in chunks.
template <class K, class V>
std::vector<float> in_chunks(Isa isa, const Shape& shape, const Sequence& sequence, std::size_t chunk,
                             std::uint32_t page_tokens, bool shuffled) {
    Cache<K, V> cache(shape, page_tokens, 1, sequence.tokens, shuffled);
    std::vector<float> out;
    for (std::size_t first = 0; first < sequence.tokens; first += chunk) {
        const std::size_t last = std::min(first + chunk, sequence.tokens);
        cache.append(0, sequence, first, last);
        const auto part = cache.template attend<flash<>>({isa}, {{0, &sequence, first, last}});
        out.insert(out.end(), part.begin(), part.end());
    }
    return out;
}

template <class K, class V>
void expect_bits_of_rows_alone(const Shape& shape) {
    const Sequence sequence(shape, 300, 7);
    on_each_isa([&](Isa isa) {
        const auto whole = in_chunks<K, V>(isa, shape, sequence, 300, 16, false);
        for (const std::size_t chunk : {1u, 7u, 64u}) {
            EXPECT_TRUE(same_bits(whole, in_chunks<K, V>(isa, shape, sequence, chunk, 16, false)))
                << "chunks of " << chunk;
        }
        for (const std::uint32_t page_tokens : {1u, 8u, 32u}) {
            EXPECT_TRUE(same_bits(whole, in_chunks<K, V>(isa, shape, sequence, 64, page_tokens, false)))
                << "pages of " << page_tokens;
            EXPECT_TRUE(same_bits(whole, in_chunks<K, V>(isa, shape, sequence, 300, page_tokens, true)))
                << "shuffled pages of " << page_tokens;
        }
    });
}

TEST(Flash, BitsDependOnNeitherChunksNorPages) {
    expect_bits_of_rows_alone<kv::f16, kv::f16>({32, 32, 2, 3});
    expect_bits_of_rows_alone<kv::f32, kv::f32>({20, 20, 1, 8});
}

TEST(Flash, BitsDependOnNeitherChunksNorPagesWhereTheyAreCoded) {
    expect_bits_of_rows_alone<kv::int8<>, kv::int4<>>({32, 32, 1, 1});
    expect_bits_of_rows_alone<kv::int4<>, kv::int8<>>({64, 96, 1, 3});
    expect_bits_of_rows_alone<kv::fp8<>, kv::fp8<>>({64, 32, 1, 3});
}

TEST(Flash, BitsDependNotOnBatchMates) {
    const Shape shape{32, 32, 2, 3};
    const std::vector<std::size_t> lengths{290, 1, 70, 258};
    Cache<kv::f16, kv::f16> cache(shape, 8, lengths.size(), 290, true);
    std::vector<Sequence> sequences;
    for (std::size_t s = 0; s < lengths.size(); ++s) {
        sequences.emplace_back(shape, lengths[s], static_cast<unsigned>(s + 20));
        cache.append(s, sequences[s], 0, lengths[s]);
    }
    // A long part, a single token, a whole prompt, and a token behind a split.
    const std::vector<std::size_t> firsts{250, 0, 0, 257};
    on_each_isa([&](Isa isa) {
        std::vector<Part> parts;
        std::vector<float> alone;
        for (std::size_t s = 0; s < lengths.size(); ++s) {
            parts.push_back({s, &sequences[s], firsts[s], lengths[s]});
            const auto out = cache.attend<flash<>>({isa}, {parts.back()});
            alone.insert(alone.end(), out.begin(), out.end());
        }
        EXPECT_TRUE(same_bits(cache.attend<flash<>>({isa}, parts), alone));
        EXPECT_TRUE(same_bits(cache.attend<flash<>>({isa, 8}, parts), alone))
            << "with threads, of which none is needed";
    });
}

/// Single rows of several sequences, on one thread and spread over several.
template <class K, class V>
void expect_bits_of_one_thread(const Shape& shape, std::uint32_t page_tokens) {
    // One split, its end, a token behind it, many splits, and a first token.
    const std::vector<std::size_t> lengths{100, 256, 257, 900, 1};
    Cache<K, V> cache(shape, page_tokens, lengths.size(), 900, true);
    std::vector<Sequence> sequences;
    std::vector<Part> parts;
    for (std::size_t s = 0; s < lengths.size(); ++s) {
        sequences.emplace_back(shape, lengths[s], static_cast<unsigned>(s + 40));
        cache.append(s, sequences[s], 0, lengths[s]);
    }
    for (std::size_t s = 0; s < lengths.size(); ++s) {
        parts.push_back({s, &sequences[s], lengths[s] - 1, lengths[s]});
    }
    on_each_isa([&](Isa isa) {
        for (std::size_t count = 1; count <= parts.size(); ++count) {
            const std::vector<Part> some(parts.begin(), parts.begin() + static_cast<std::ptrdiff_t>(count));
            const auto alone = cache.template attend<flash<>>({isa}, some);
            EXPECT_FALSE(cache.spread());
            for (const std::size_t threads : {2u, 3u, 16u}) {
                const auto out = cache.template attend<flash<>>({isa, threads, 4000}, some);
                // Few rows are spread: four items of a row and a key head would feed each thread.
                EXPECT_EQ(cache.spread(), count <= (4 * threads + shape.kv_heads - 1) / shape.kv_heads);
                EXPECT_TRUE(same_bits(out, alone)) << count << " sequences on " << threads << " threads";
            }
        }
        // The longest alone.
        const auto alone = cache.template attend<flash<>>({isa}, {parts[3]});
        EXPECT_TRUE(same_bits(cache.template attend<flash<>>({isa, 4}, {parts[3]}), alone));
        EXPECT_TRUE(cache.spread());
    });
}

TEST(Flash, SpreadOverThreadsHasTheBitsOfOneThread) {
    expect_bits_of_one_thread<kv::f16, kv::f16>({32, 40, 3, 3}, 16);
    expect_bits_of_one_thread<kv::f32, kv::f32>({20, 20, 1, 8}, 8);
    expect_bits_of_one_thread<kv::int8<>, kv::int4<>>({32, 64, 2, 1}, 32);
    expect_bits_of_one_thread<kv::int4<>, kv::int8<>>({64, 32, 2, 5}, 1);
    expect_bits_of_one_thread<kv::fp8<>, kv::fp8<>>({32, 64, 2, 2}, 16);
}

TEST(Flash, SpreadsSingleRowsAlone) {
    const Shape shape{32, 32, 2, 2};
    const Sequence sequence(shape, 600, 3);
    Cache<kv::f16, kv::f16> cache(shape, 16, 1, 600, false);
    cache.append(0, sequence, 0, 600);
    const auto one = cache.attend<flash<>>({Isa::portable}, {{0, &sequence, 598, 600}});
    EXPECT_TRUE(same_bits(cache.attend<flash<>>({Isa::portable, 8}, {{0, &sequence, 598, 600}}), one));
    EXPECT_FALSE(cache.spread()) << "two rows";
}

TEST(Flash, RoomForPartialStatesIsThatOfTheRowsThatMayBeSpread) {
    Arguments arguments;
    arguments.cache.pages.layout = kv::PageLayout::of<kv::f16, kv::f16>(16, 1, 3, 64, 40);
    arguments.heads = 9;
    arguments.most_tokens = 1000;
    EXPECT_EQ(flash<>::Attend{arguments}.partials_floats(), 0u) << "one thread";
    arguments.threads =
        4;  // 16 items of 3 key heads: 6 rows; 4 splits; values of 40, padded, with two numbers
    EXPECT_EQ(flash<>::Attend{arguments}.partials_floats(), 6u * 9u * 4u * (48u + 2u));
    EXPECT_EQ(reference::Attend{arguments}.partials_floats(), 0u);
}

TEST(Finish, BringsOutputsToTheFormThatTheNextProductReads) {
    const Shape shape{32, 32, 1, 3};
    const Sequence sequence(shape, 300, 3);
    Cache<kv::f16, kv::f16> cache(shape, 16, 1, 300, false);
    cache.append(0, sequence, 0, 300);
    on_each_isa([&](Isa isa) {
        for (const std::size_t threads : {1u, 4u}) {
            for (const std::size_t rows : {1u, 11u}) {
                std::vector<std::byte> codes;
                const auto out =
                    cache.attend<flash<>>({isa, threads, 0, &codes}, {{0, &sequence, 300 - rows, 300}});
                EXPECT_EQ(cache.spread(), threads > 1 && rows == 1);
                const support::ActivationRows expected(isa, rows, 96, out.data());
                ASSERT_EQ(codes.size(), rows * zse::kernels::CodedActivations::bytes(96));
                EXPECT_EQ(std::memcmp(codes.data(), expected->codes, codes.size()), 0);
            }
        }
    });
}

}  // namespace
