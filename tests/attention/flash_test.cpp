// SPDX-License-Identifier: Apache-2.0
// Flash attention: near the formula in double precision; equal bits whatever the chunks, pages and mates of a
// batch; scratch that does not grow with the context.
// rows: 40
#include <zse/attention/flash.hpp>
#include <zse/attention/reference.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

namespace {

using zse::attention::Arguments;
using zse::attention::flash;
using zse::attention::reference;
namespace kv = zse::kv;

struct Shape {
    std::uint32_t k_dim = 64;
    std::uint32_t v_dim = 64;
    std::uint32_t kv_heads = 2;
    std::size_t group = 3;

    [[nodiscard]] std::size_t heads() const { return kv_heads * group; }
};

/// Queries, keys and values of one sequence, token by token.
struct Sequence {
    std::size_t tokens;
    std::vector<float> q, k, v;

    Sequence(const Shape& shape, std::size_t count, unsigned seed)
        : tokens(count),
          q(count * shape.heads() * shape.k_dim),
          k(count * shape.kv_heads * shape.k_dim),
          v(count * shape.kv_heads * shape.v_dim) {
        std::mt19937 random(seed);
        std::uniform_real_distribution<float> uniform(-1.7f, 1.7f);
        for (auto* values : {&q, &k, &v}) {
            for (float& value : *values) value = uniform(random);
        }
    }
};

/// A cache of one layer and the sequences in it.
template <class K, class V>
class Cache {
public:
    Cache(const Shape& shape, std::uint32_t page_tokens, std::size_t sequences, std::size_t most_tokens,
          bool shuffled)
        : shape_(shape),
          layout_(kv::PageLayout::of<K, V>(page_tokens, 1, shape.kv_heads, shape.k_dim, shape.v_dim)) {
        const std::size_t each = layout_.pages(most_tokens);
        std::vector<kv::PageIndex> order(each * sequences);
        for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<kv::PageIndex>(i);
        if (shuffled) std::shuffle(order.begin(), order.end(), std::mt19937(99));
        for (std::size_t s = 0; s < sequences; ++s) {
            pages_.emplace_back(order.begin() + static_cast<std::ptrdiff_t>(s * each),
                                order.begin() + static_cast<std::ptrdiff_t>((s + 1) * each));
        }
        // What was never written must not be read: not a number shows it, where codes can say it.
        pool_.assign(order.size() * layout_.page_bytes(), std::byte{0xff});
    }

    [[nodiscard]] kv::LayerCache layer() {
        return {{pool_.data(), layout_.page_bytes(), layout_}, &kv::side_kernels<K>, &kv::side_kernels<V>};
    }

    /// Codes tokens [first, last) of a sequence.
    void append(std::size_t index, const Sequence& sequence, std::size_t first, std::size_t last) {
        const kv::LayerCache cache = layer();
        for (std::size_t t = first; t < last; ++t) {
            for (std::size_t head = 0; head < shape_.kv_heads; ++head) {
                std::byte* at = cache.pages.head(pages_[index][t / layout_.page_tokens], head);
                const std::size_t slot = t % layout_.page_tokens;
                cache.k->encode(sequence.k.data() + (t * shape_.kv_heads + head) * shape_.k_dim, shape_.k_dim,
                                at + slot * layout_.k_code,
                                at + layout_.k_scales_at() + slot * layout_.k_scale);
                cache.v->encode(sequence.v.data() + (t * shape_.kv_heads + head) * shape_.v_dim, shape_.v_dim,
                                at + layout_.v_codes_at() + slot * layout_.v_code,
                                at + layout_.v_scales_at() + slot * layout_.v_scale);
            }
        }
    }

    /// One step: rows of sequence i are its tokens [parts[i].first, parts[i].last). Outputs one sequence
    /// after the other.
    struct Part {
        std::size_t index;
        const Sequence* sequence;
        std::size_t first;
        std::size_t last;
    };
    template <class Attention>
    std::vector<float> attend(const std::vector<Part>& parts) {
        std::vector<kv::Segment> segments;
        std::vector<std::uint32_t> segment_of_row, positions;
        std::vector<float> q;
        Arguments arguments;
        const std::size_t width = shape_.heads() * shape_.k_dim;
        for (const Part& part : parts) {
            segments.push_back({static_cast<std::uint32_t>(positions.size()),
                                static_cast<std::uint32_t>(part.last - part.first),
                                static_cast<std::uint32_t>(part.first), pages_[part.index].data()});
            for (std::size_t t = part.first; t < part.last; ++t) {
                segment_of_row.push_back(static_cast<std::uint32_t>(segments.size() - 1));
                positions.push_back(static_cast<std::uint32_t>(t));
                q.insert(q.end(), part.sequence->q.begin() + static_cast<std::ptrdiff_t>(t * width),
                         part.sequence->q.begin() + static_cast<std::ptrdiff_t>((t + 1) * width));
                q.insert(q.end(), 5, 77.0f);  // the stride is wider than a row
            }
            arguments.most_tokens = std::max(arguments.most_tokens, part.last);
            arguments.most_rows = std::max(arguments.most_rows, part.last - part.first);
        }
        std::vector<float> out(positions.size() * shape_.heads() * shape_.v_dim, 77.0f);
        arguments.batch = {segments, segment_of_row.data(), positions.data(), positions.size()};
        arguments.cache = layer();
        arguments.q = q.data();
        arguments.q_stride = width + 5;
        arguments.out = out.data();
        arguments.heads = shape_.heads();
        const typename Attention::Attend op{arguments};
        static_assert(zse::exec::Operation<typename Attention::Attend>);
        // Exactly the scratch that was asked for, and dirty: nothing may depend on what it held.
        std::vector<double> scratch(zse::ceil_div(op.thread_bytes(), sizeof(double)) + 1, std::nan(""));
        for (std::size_t item = op.items(); item-- > 0;) {
            op.run(item, {0, reinterpret_cast<std::byte*>(scratch.data())});
        }
        EXPECT_TRUE(std::isnan(scratch.back())) << "more scratch was used than asked for";
        return out;
    }

private:
    Shape shape_;
    kv::PageLayout layout_;
    std::vector<std::vector<kv::PageIndex>> pages_;
    std::vector<std::byte> pool_;
};

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

template <class Attention, class K, class V>
void expect_near_reference(const Shape& shape, std::size_t tokens, std::size_t rows,
                           std::uint32_t page_tokens = 16) {
    Cache<K, V> cache(shape, page_tokens, 1, tokens, true);
    const Sequence sequence(shape, tokens, static_cast<unsigned>(tokens));
    cache.append(0, sequence, 0, tokens);
    const std::size_t first = tokens - std::min(rows, tokens);
    const auto out = cache.template attend<Attention>({{0, &sequence, first, tokens}});
    const auto truth = cache.template attend<reference>({{0, &sequence, first, tokens}});
    ASSERT_EQ(out.size(), truth.size());
    for (std::size_t i = 0; i < out.size(); ++i) {
        ASSERT_NEAR(out[i], truth[i], 1e-5f) << "dim " << shape.k_dim << " group " << shape.group
                                             << " tokens " << tokens << " rows " << rows << " value " << i;
    }
}

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
    for (const std::size_t group : {1u, 3u, 8u}) {
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
            expect_near_reference<flash<>, kv::int8<>, kv::int4<>>(shape, tokens, 3);
            expect_near_reference<flash<>, kv::int4<>, kv::int8<>>(shape, tokens, 3);
        }
    }
    expect_near_reference<flash<>, kv::int8<16>, kv::int4<16>>({80, 80, 2, 3}, 300, 3);
}

TEST(Flash, KeysAndValuesMayHaveDifferentWidths) {
    expect_near_reference<flash<>, kv::f16, kv::f16>({80, 48, 2, 3}, 300, 20);
    expect_near_reference<flash<>, kv::f16, kv::f16>({40, 72, 2, 3}, 300, 20);
    expect_near_reference<flash<>, kv::f16, kv::f16>({2, 2, 2, 3}, 70, 20);
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
    const auto out = cache.attend<reference>({{0, &s, 0, tokens}});
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

/// Flash outputs of all rows of a sequence, cached and attended to in chunks.
template <class K, class V>
std::vector<float> in_chunks(const Shape& shape, const Sequence& sequence, std::size_t chunk,
                             std::uint32_t page_tokens, bool shuffled) {
    Cache<K, V> cache(shape, page_tokens, 1, sequence.tokens, shuffled);
    std::vector<float> out;
    for (std::size_t first = 0; first < sequence.tokens; first += chunk) {
        const std::size_t last = std::min(first + chunk, sequence.tokens);
        cache.append(0, sequence, first, last);
        const auto part = cache.template attend<flash<>>({{0, &sequence, first, last}});
        out.insert(out.end(), part.begin(), part.end());
    }
    return out;
}

template <class K, class V>
void expect_bits_of_rows_alone(const Shape& shape) {
    const Sequence sequence(shape, 300, 7);
    const auto whole = in_chunks<K, V>(shape, sequence, 300, 16, false);
    for (const std::size_t chunk : {1u, 7u, 64u}) {
        EXPECT_TRUE(same_bits(whole, in_chunks<K, V>(shape, sequence, chunk, 16, false)))
            << "chunks of " << chunk;
    }
    for (const std::uint32_t page_tokens : {1u, 8u, 32u}) {
        EXPECT_TRUE(same_bits(whole, in_chunks<K, V>(shape, sequence, 64, page_tokens, false)))
            << "pages of " << page_tokens;
        EXPECT_TRUE(same_bits(whole, in_chunks<K, V>(shape, sequence, 300, page_tokens, true)))
            << "shuffled pages of " << page_tokens;
    }
}

TEST(Flash, BitsDependOnNeitherChunksNorPages) {
    expect_bits_of_rows_alone<kv::f16, kv::f16>({32, 32, 2, 3});
    expect_bits_of_rows_alone<kv::int8<>, kv::int4<>>({32, 32, 1, 1});
    expect_bits_of_rows_alone<kv::f32, kv::f32>({20, 20, 1, 8});
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
    using Part = Cache<kv::f16, kv::f16>::Part;
    std::vector<Part> parts;
    std::vector<float> alone;
    for (std::size_t s = 0; s < lengths.size(); ++s) {
        parts.push_back({s, &sequences[s], firsts[s], lengths[s]});
        const auto out = cache.attend<flash<>>({parts.back()});
        alone.insert(alone.end(), out.begin(), out.end());
    }
    EXPECT_TRUE(same_bits(cache.attend<flash<>>(parts), alone));
}

TEST(Flash, GreatScoresDoNotOverflow) {
    const Shape shape{64, 64, 1, 1};
    Sequence sequence(shape, 300, 3);
    for (float& value : sequence.q) value *= 100.0f;
    for (float& value : sequence.k) value *= 100.0f;
    Cache<kv::f32, kv::f32> cache(shape, 16, 1, 300, false);
    cache.append(0, sequence, 0, 300);
    for (const float value : cache.attend<flash<>>({{0, &sequence, 280, 300}})) {
        ASSERT_TRUE(std::isfinite(value));
        ASSERT_LE(std::fabs(value), 1.71f) << "an average of values";
    }
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
