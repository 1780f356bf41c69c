// SPDX-License-Identifier: Apache-2.0
// A cache of one layer and the sequences in it, for tests of attention.
#pragma once

#include <zse/attention/flash.hpp>
#include <zse/attention/reference.hpp>

#include <gtest/gtest.h>
#include <support/activation_rows.hpp>
#include <support/instruction_sets.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <type_traits>
#include <vector>

namespace cached {

namespace kv = zse::kv;
using zse::attention::Arguments;
using zse::attention::flash;
using zse::attention::reference;
using zse::kernels::Isa;

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

/// Rows of one sequence in a step: its tokens [first, last).
struct Part {
    std::size_t index;
    const Sequence* sequence;
    std::size_t first;
    std::size_t last;
};

/// How a step is run.
struct Run {
    Isa isa = Isa::portable;
    std::size_t threads = 1;
    std::size_t most_tokens = 0;              ///< that were planned for, where more than there are
    std::vector<std::byte>* codes = nullptr;  ///< takes the outputs in 8 bits
};

/// A query as kernels read it for keys in K: keys in integers are multiplied with queries in 8 bits, one scale for what
/// shares a scale in the key, at most 32 values, after the query was scaled and, where keys are, turned. The reference
/// does both again, so both are undone here; that costs it a few units in the last place.
template <class K>
std::vector<float> as_read(std::vector<float> q, std::size_t dim) {
    if constexpr (K::group != 1 && K::name != kv::fp8<>::name) {
        constexpr std::size_t stretch = K::group < 32 ? K::group : 32;
        const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
        for (std::size_t first = 0; first < q.size(); first += dim) {
            float* query = q.data() + first;
            for (std::size_t i = 0; i < dim; ++i) query[i] *= scale;
            if (K::rotates) kv::rotate(query, dim);
            for (std::size_t i = 0; i < dim; i += stretch) {
                const support::Quantised part({query + i, stretch});
                for (std::size_t j = 0; j < stretch; ++j) query[i + j] = part.value(j);
            }
            if (K::rotates) kv::rotate(query, dim);
            for (std::size_t i = 0; i < dim; ++i) query[i] /= scale;
        }
    }
    return q;
}

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
        // What was never written must change nothing: not a number shows it, where codes can say it.
        pool_.assign(order.size() * layout_.page_bytes(), std::byte{0xff});
    }

    /// Codes tokens [first, last) of a sequence, as its codecs do, on whatever instruction set.
    void append(std::size_t index, const Sequence& sequence, std::size_t first, std::size_t last) {
        const kv::LayerCache cache = layer();
        for (std::size_t t = first; t < last; ++t) {
            const kv::PageIndex page = pages_[index][t / layout_.page_tokens];
            const std::size_t slot = t % layout_.page_tokens;
            for (std::size_t head = 0; head < shape_.kv_heads; ++head) {
                const std::size_t row = t * shape_.kv_heads + head;
                cache.put_key(page, head, slot, sequence.k.data() + row * shape_.k_dim);
                cache.put_value(page, head, slot, sequence.v.data() + row * shape_.v_dim);
            }
        }
    }

    /// One step. Outputs one sequence after the other.
    template <class Attention>
    std::vector<float> attend(const Run& run, const std::vector<Part>& parts) {
        std::vector<kv::Segment> segments;
        std::vector<std::uint32_t> segment_of_row, positions;
        std::vector<float> q;
        Arguments arguments;
        const std::size_t width = shape_.heads() * shape_.k_dim;
        arguments.most_tokens = run.most_tokens;
        for (const Part& part : parts) {
            segments.push_back({static_cast<std::uint32_t>(positions.size()),
                                static_cast<std::uint32_t>(part.last - part.first),
                                static_cast<std::uint32_t>(part.first), pages_[part.index].data()});
            for (std::size_t t = part.first; t < part.last; ++t) {
                segment_of_row.push_back(static_cast<std::uint32_t>(segments.size() - 1));
                positions.push_back(static_cast<std::uint32_t>(t));
                std::vector<float> row(
                    part.sequence->q.begin() + static_cast<std::ptrdiff_t>(t * width),
                    part.sequence->q.begin() + static_cast<std::ptrdiff_t>((t + 1) * width));
                if constexpr (std::is_same_v<Attention, reference>) row = as_read<K>(row, shape_.k_dim);
                q.insert(q.end(), row.begin(), row.end());
                q.insert(q.end(), 5, 77.0f);  // the stride is wider than a row
            }
            arguments.most_tokens = std::max(arguments.most_tokens, part.last);
            arguments.most_rows = std::max(arguments.most_rows, part.last - part.first);
        }
        const std::size_t columns = shape_.heads() * shape_.v_dim;
        std::vector<float> out(positions.size() * columns, 77.0f);
        arguments.batch = {segments, segment_of_row.data(), positions.data(), positions.size()};
        arguments.cache = layer();
        arguments.kernels = zse::attention::cache_kernels<K, V>(run.isa);
        arguments.q = q.data();
        arguments.q_stride = width + 5;
        arguments.out = out.data();
        arguments.heads = shape_.heads();
        arguments.threads = run.threads;
        typename Attention::Attend op{arguments};
        static_assert(zse::exec::PlainOperation<typename Attention::Attend>);
        // Exactly the memory that was asked for, and dirty: nothing may depend on what it held.
        std::vector<float> partials(op.partials_floats() + 1, std::nanf(""));
        op.arguments.partials = partials.data();
        std::vector<double> scratch(zse::ceil_div(op.thread_bytes(), sizeof(double)) + 1, std::nan(""));
        for (std::size_t item = op.items(); item-- > 0;) {
            std::fill(scratch.begin(), scratch.end() - 1, std::nan(""));
            op.run(item, {0, reinterpret_cast<std::byte*>(scratch.data())});
        }
        EXPECT_TRUE(std::isnan(scratch.back())) << "more scratch was used than asked for";
        EXPECT_TRUE(std::isnan(partials.back())) << "more room for partial states was used than asked for";
        zse::attention::Finish<typename Attention::Attend> finish{op, {}};
        finish.out.tokens = positions.size();
        finish.out.columns = columns;
        finish.out.floats = out.data();
        if (run.codes != nullptr) {
            run.codes->resize(positions.size() * zse::kernels::CodedActivations::bytes(columns));
            finish.out.codes = run.codes->data();
        }
        EXPECT_EQ(finish.thread_bytes(), 0u);
        for (std::size_t row = finish.items(); row-- > 0;) finish.run(row, {0, nullptr});
        spread_ = op.spreads();
        return out;
    }
    /// Whether the last step spread single rows over several items.
    [[nodiscard]] bool spread() const { return spread_; }

private:
    [[nodiscard]] kv::LayerCache layer() {
        return {{pool_.data(), layout_.page_bytes(), layout_},
                kv::side_kernels<K>(Isa::portable),
                kv::side_kernels<V>(Isa::portable)};
    }

    Shape shape_;
    kv::PageLayout layout_;
    std::vector<std::vector<kv::PageIndex>> pages_;
    std::vector<std::byte> pool_;
    bool spread_ = false;
};

inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

/// The last `rows` rows of a sequence, on every instruction set, near the formula in double precision.
template <class Attention, class K, class V>
void expect_near_reference(const Shape& shape, std::size_t tokens, std::size_t rows,
                           std::uint32_t page_tokens = 16) {
    Cache<K, V> cache(shape, page_tokens, 1, tokens, true);
    const Sequence sequence(shape, tokens, static_cast<unsigned>(tokens));
    cache.append(0, sequence, 0, tokens);
    const std::size_t first = tokens - std::min(rows, tokens);
    const auto truth = cache.template attend<reference>({}, {{0, &sequence, first, tokens}});
    support::on_each_isa([&](Isa isa) {
        const auto out = cache.template attend<Attention>({isa}, {{0, &sequence, first, tokens}});
        ASSERT_EQ(out.size(), truth.size());
        for (std::size_t i = 0; i < out.size(); ++i) {
            ASSERT_NEAR(out[i], truth[i], 1e-5f)
                << K::name << " " << V::name << " dim " << shape.k_dim << " group " << shape.group
                << " tokens " << tokens << " rows " << rows << " value " << i;
        }
    });
}

}  // namespace cached
