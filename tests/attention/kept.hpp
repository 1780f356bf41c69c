// SPDX-License-Identifier: Apache-2.0
// One sequence whose tokens are not all kept alike: a window, tokens that were dropped, and old tokens in another
// codec; and attention over it as the formula says, in double precision over tokens that no page ever held.
#pragma once

#include <attention/cache.hpp>
#include <zse/kv/keeping.hpp>
#include <zse/kv/recode.hpp>

#include <optional>

namespace kept {

namespace kv = zse::kv;
using cached::Shape;
using zse::attention::Arguments;
using zse::attention::flash;
using zse::attention::reference;
using zse::kernels::Isa;

/// What rows see of the tokens up to their own.
struct Seen {
    std::uint32_t window = 0;    ///< 0: all
    std::uint32_t boundary = 0;  ///< tokens below are old or dropped
    std::uint32_t sinks = 0;     ///< of the dropped ones these are there
};

struct Run {
    Isa isa = Isa::portable;
    std::size_t threads = 1;
};

/// A row as codec C gives it back, in the basis in which it was coded.
template <class C>
std::vector<float> coded(std::vector<float> row) {
    if (C::rotates) kv::rotate(row.data(), row.size());
    std::vector<std::byte> codes(C::code_bytes(row.size())), scales(C::scale_bytes(row.size()));
    C::encode(row.data(), row.size(), codes.data(), scales.data());
    C::decode(codes.data(), scales.data(), row.size(), row.data());
    return row;
}
/// The same, turned back: what coding it anew begins with.
template <class C>
std::vector<float> decoded(std::vector<float> row) {
    row = coded<C>(std::move(row));
    if (C::rotates) kv::rotate(row.data(), row.size());
    return row;
}

/// The rotation as a matrix, [from][to].
inline std::vector<std::vector<float>> rotation(std::size_t dim) {
    std::vector<std::vector<float>> matrix(dim, std::vector<float>(dim, 0.0f));
    for (std::size_t i = 0; i < dim; ++i) {
        matrix[i][i] = 1.0f;
        kv::rotate(matrix[i].data(), dim);
    }
    return matrix;
}

inline std::vector<float> part(const std::vector<float>& values, std::size_t index, std::size_t dim) {
    const auto first = values.begin() + static_cast<std::ptrdiff_t>(index * dim);
    return {first, first + static_cast<std::ptrdiff_t>(dim)};
}

/// Keys in K and values in V; old ones in OldK and OldV.
template <class K, class V, class OldK = K, class OldV = V>
class Sequence {
public:
    Sequence(const Shape& shape, std::size_t tokens, unsigned seed)
        : shape_(shape), input_(shape, tokens, seed) {
        for (std::size_t i = 0; i < tokens * shape.kv_heads; ++i) {
            const std::vector<float> key = part(input_.k, i, shape.k_dim);
            const std::vector<float> value = part(input_.v, i, shape.v_dim);
            recent_.k.push_back(coded<K>(key));
            recent_.v.push_back(coded<V>(value));
            old_.k.push_back(coded<OldK>(decoded<K>(key)));
            old_.v.push_back(coded<OldV>(decoded<V>(value)));
        }
    }
    [[nodiscard]] const Shape& shape() const { return shape_; }
    [[nodiscard]] const cached::Sequence& input() const { return input_; }

    /// Outputs of rows [first, last) by the formula. `as_read`: with queries as kernels read them for each codec.
    [[nodiscard]] std::vector<double> truth(std::size_t first, std::size_t last, const Seen& seen,
                                            bool as_read) const {
        std::vector<double> out;
        for (std::size_t row = first; row < last; ++row) {
            for (std::size_t head = 0; head < shape_.heads(); ++head) {
                const std::size_t kv_head = head / shape_.group;
                const std::vector<float> query_in = part(input_.q, row * shape_.heads() + head, shape_.k_dim);
                const std::vector<float> recent_query = query<K>(query_in, as_read);
                const std::vector<float> old_query = query<OldK>(query_in, as_read);
                std::vector<double> scores;
                std::vector<std::size_t> tokens;
                for (std::size_t t = 0; t <= row; ++t) {
                    if (seen.window != 0 && t + seen.window <= row) continue;
                    if (!has_old && t < seen.boundary && t >= seen.sinks) continue;
                    const bool old = has_old && t < seen.boundary;
                    const std::vector<float>& key = (old ? old_ : recent_).k[t * shape_.kv_heads + kv_head];
                    const std::vector<float>& query = old ? old_query : recent_query;
                    double score = 0;
                    for (std::size_t i = 0; i < shape_.k_dim; ++i) {
                        score += static_cast<double>(query[i]) * static_cast<double>(key[i]);
                    }
                    tokens.push_back(t);
                    scores.push_back(score / std::sqrt(static_cast<double>(shape_.k_dim)));
                }
                const double greatest = *std::max_element(scores.begin(), scores.end());
                double sum = 0;
                std::vector<double> straight(shape_.v_dim, 0.0), turned(shape_.v_dim, 0.0);
                for (std::size_t n = 0; n < tokens.size(); ++n) {
                    const bool old = has_old && tokens[n] < seen.boundary;
                    const double weight = std::exp(scores[n] - greatest);
                    sum += weight;
                    const std::vector<float>& value =
                        (old ? old_ : recent_).v[tokens[n] * shape_.kv_heads + kv_head];
                    std::vector<double>& to = (old ? OldV::rotates : V::rotates) ? turned : straight;
                    for (std::size_t i = 0; i < shape_.v_dim; ++i)
                        to[i] += weight * static_cast<double>(value[i]);
                }
                for (std::size_t i = 0; (V::rotates || OldV::rotates) && i < shape_.v_dim; ++i) {
                    for (std::size_t j = 0; j < shape_.v_dim; ++j) {
                        straight[j] += turned[i] * static_cast<double>(rotation_[i][j]);
                    }
                }
                for (const double value : straight) out.push_back(value / sum);
            }
        }
        return out;
    }

    static constexpr bool has_old = !std::is_same_v<K, OldK> || !std::is_same_v<V, OldV>;

private:
    /// A query in the basis of keys in C.
    template <class C>
    [[nodiscard]] std::vector<float> query(std::vector<float> values, bool as_read) const {
        if (as_read) values = cached::as_read<C>(std::move(values), shape_.k_dim);
        if (C::rotates) kv::rotate(values.data(), values.size());
        return values;
    }

    struct Tokens {
        std::vector<std::vector<float>> k, v;  ///< of each token and head
    };
    Shape shape_;
    cached::Sequence input_;
    Tokens recent_, old_;
    std::vector<std::vector<float>> rotation_ = rotation(shape_.v_dim);
};

/// The pages of such a sequence. Entries that are one page where `keeping` says so, or all apart.
template <class K, class V, class OldK = K, class OldV = V>
class Cache {
public:
    using Tokens = Sequence<K, V, OldK, OldV>;

    Cache(const Tokens& sequence, std::uint32_t page_tokens,
          const std::optional<kv::Keeping>& keeping = std::nullopt)
        : sequence_(&sequence),
          layout_(layout<K, V>(page_tokens)),
          old_layout_(layout<OldK, OldV>(page_tokens)) {
        const std::size_t entries = layout_.pages(sequence.input().tokens);
        std::vector<kv::PageIndex> order(entries);
        for (std::size_t i = 0; i < entries; ++i) order[i] = static_cast<kv::PageIndex>(i);
        std::shuffle(order.begin(), order.end(), std::mt19937(99));
        old_pages_ = order;
        for (std::size_t i = 0; i < entries; ++i) {
            const bool own = !keeping || keeping->own(i);
            pages_.push_back(own ? order[i] : pages_[i - keeping->ring()]);
        }
        // Not a number, where codes can say it: what nobody wrote changes nothing.
        pool_.assign(entries * layout_.page_bytes(), std::byte{0xff});
        old_pool_.assign(entries * old_layout_.page_bytes(), std::byte{0xff});
    }

    /// Writes tokens [first, last).
    void append(std::size_t first, std::size_t last) {
        const kv::LayerCache to = cache<K, V>(pool_, layout_);
        const cached::Sequence& input = sequence_->input();
        for (std::size_t t = first; t < last; ++t) {
            for (std::size_t head = 0; head < layout_.kv_heads; ++head) {
                const std::size_t row = t * layout_.kv_heads + head;
                const kv::PageIndex page = pages_[t / layout_.page_tokens];
                to.put_key(page, head, t % layout_.page_tokens, input.k.data() + row * layout_.k_dim);
                to.put_value(page, head, t % layout_.page_tokens, input.v.data() + row * layout_.v_dim);
            }
        }
    }
    /// Codes tokens [first, last), whole pages, anew as old ones.
    void recode(std::size_t first, std::size_t last) {
        const kv::Recode op{cache<K, V>(pool_, layout_),
                            cache<OldK, OldV>(old_pool_, old_layout_),
                            pages_.data(),
                            old_pages_.data(),
                            first / layout_.page_tokens,
                            last / layout_.page_tokens};
        for (std::size_t item = 0; item < op.items(); ++item) op.run(item, {0, nullptr});
    }
    /// Makes tokens [first, last) no numbers, or their keys alone.
    void forget(std::size_t first, std::size_t last, bool values = true) {
        const kv::LayerCache to = cache<K, V>(pool_, layout_);
        const std::vector<float> nan(std::max(layout_.k_dim, layout_.v_dim), std::nanf(""));
        for (std::size_t t = first; t < last; ++t) {
            const kv::PageIndex page = pages_[t / layout_.page_tokens];
            for (std::size_t head = 0; head < layout_.kv_heads; ++head) {
                to.put_key(page, head, t % layout_.page_tokens, nan.data());
                if (values) to.put_value(page, head, t % layout_.page_tokens, nan.data());
            }
        }
    }

    /// Outputs of rows [first, last), one segment.
    template <class Attention>
    std::vector<float> attend(const Run& run, std::size_t first, std::size_t last, const Seen& seen) {
        const Shape& shape = sequence_->shape();
        const std::size_t rows = last - first;
        kv::Segment segment;
        segment.rows = static_cast<std::uint32_t>(rows);
        segment.first_position = static_cast<std::uint32_t>(first);
        // Exactly the entries that a segment has.
        const std::vector<kv::PageIndex> pages = first_of(pages_, layout_.pages(last));
        const std::vector<kv::PageIndex> old_pages =
            first_of(old_pages_, seen.boundary / layout_.page_tokens);
        segment.pages = pages.data();
        segment.old_pages = Tokens::has_old ? old_pages.data() : nullptr;
        segment.boundary = seen.boundary;
        segment.sinks = seen.sinks;
        segment.old_tokens = Tokens::has_old ? seen.boundary : 0;
        const std::vector<std::uint32_t> segment_of_row(rows, 0);
        std::vector<std::uint32_t> positions;
        for (std::size_t t = first; t < last; ++t) positions.push_back(static_cast<std::uint32_t>(t));
        std::vector<float> out(rows * shape.heads() * shape.v_dim, 77.0f);
        Arguments arguments;
        arguments.batch = {{&segment, 1}, segment_of_row.data(), positions.data(), rows};
        arguments.cache = cache<K, V>(pool_, layout_);
        arguments.kernels = zse::attention::cache_kernels<K, V>(run.isa);
        if (Tokens::has_old) {
            arguments.old_cache = cache<OldK, OldV>(old_pool_, old_layout_);
            arguments.old_kernels = zse::attention::cache_kernels<OldK, OldV>(run.isa);
        }
        arguments.window = seen.window;
        arguments.q_stride = shape.heads() * shape.k_dim;
        arguments.q = sequence_->input().q.data() + first * arguments.q_stride;
        arguments.out = out.data();
        arguments.heads = shape.heads();
        arguments.most_tokens = sequence_->input().tokens;
        arguments.most_rows = rows;
        arguments.threads = run.threads;
        typename Attention::Attend op{arguments};
        std::vector<float> partials(op.partials_floats() + 1, std::nanf(""));
        op.arguments.partials = partials.data();
        std::vector<double> scratch(zse::ceil_div(op.thread_bytes(), sizeof(double)) + 1, std::nan(""));
        for (std::size_t item = op.items(); item-- > 0;) {
            std::fill(scratch.begin(), scratch.end() - 1, std::nan(""));
            op.run(item, {0, reinterpret_cast<std::byte*>(scratch.data())});
        }
        EXPECT_TRUE(std::isnan(scratch.back())) << "more scratch was used than asked for";
        EXPECT_TRUE(std::isnan(partials.back())) << "more room for partial states was used than asked for";
        EXPECT_EQ(op.spreads(), run.threads > 1 && rows == 1 && !(std::is_same_v<Attention, reference>));
        zse::attention::Finish<typename Attention::Attend> finish{op, {}};
        finish.out.tokens = rows;
        finish.out.columns = shape.heads() * shape.v_dim;
        finish.out.floats = out.data();
        for (std::size_t row = finish.items(); row-- > 0;) finish.run(row, {0, nullptr});
        return out;
    }

private:
    [[nodiscard]] static std::vector<kv::PageIndex> first_of(const std::vector<kv::PageIndex>& pages,
                                                             std::size_t count) {
        return {pages.begin(), pages.begin() + static_cast<std::ptrdiff_t>(count)};
    }
    template <class A, class B>
    [[nodiscard]] kv::PageLayout layout(std::uint32_t page_tokens) const {
        const Shape& shape = sequence_->shape();
        return kv::PageLayout::of<A, B>(page_tokens, 1, shape.kv_heads, shape.k_dim, shape.v_dim);
    }
    template <class A, class B>
    [[nodiscard]] static kv::LayerCache cache(std::vector<std::byte>& pool, const kv::PageLayout& layout) {
        return {{pool.data(), layout.page_bytes(), layout},
                kv::side_kernels<A>(Isa::portable),
                kv::side_kernels<B>(Isa::portable)};
    }

    const Tokens* sequence_;
    kv::PageLayout layout_, old_layout_;
    std::vector<kv::PageIndex> pages_, old_pages_;
    std::vector<std::byte> pool_, old_pool_;
};

inline void expect_near(const std::vector<float>& out, const std::vector<double>& truth,
                        const std::string& what) {
    ASSERT_EQ(out.size(), truth.size());
    for (std::size_t i = 0; i < out.size(); ++i) {
        ASSERT_NEAR(static_cast<double>(out[i]), truth[i], 1e-5) << what << ", value " << i;
    }
}

struct Rows {
    std::size_t first, last;
};

/// Rows on every instruction set near the formula; in a block, one by one and spread with the same bits.
template <class Tokens, class Pages>
void expect_rows(const Tokens& sequence, Pages& cache, const Rows& rows, const Seen& seen,
                 const std::string& what) {
    const auto truth = sequence.truth(rows.first, rows.last, seen, true);
    expect_near(cache.template attend<reference>({}, rows.first, rows.last, seen),
                sequence.truth(rows.first, rows.last, seen, false), what + " by the reference");
    support::on_each_isa([&](Isa isa) {
        const auto block = cache.template attend<flash<>>({isa}, rows.first, rows.last, seen);
        expect_near(block, truth, what);
        std::vector<float> single, spread;
        for (std::size_t row = rows.first; row < rows.last; ++row) {
            const auto one = cache.template attend<flash<>>({isa}, row, row + 1, seen);
            const auto two = cache.template attend<flash<>>({isa, 2}, row, row + 1, seen);
            single.insert(single.end(), one.begin(), one.end());
            spread.insert(spread.end(), two.begin(), two.end());
        }
        EXPECT_TRUE(cached::same_bits(single, block)) << what << ", one by one";
        EXPECT_TRUE(cached::same_bits(spread, block)) << what << ", spread";
    });
}

}  // namespace kept
