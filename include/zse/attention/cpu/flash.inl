// SPDX-License-Identifier: Apache-2.0
// Scores and weighted sums over coded keys and values for one instruction set. See attention/kernels.hpp.
namespace zse::inline v1 {
namespace attention {
namespace ZSE_ISA {

namespace simd = kernels::ZSE_ISA;

// A score is one lane, fed in order of the head's values; a weighted sum is one lane, fed in order of tokens. So
// neither the number of queries at once nor the size of a page changes a bit.

/// What a stored scale is multiplied with for the values that simd loads: it loads 8-bit floats divided by 256.
template <class C>
inline constexpr float scale_unit = 1;
template <std::size_t Group>
inline constexpr float scale_unit<kv::fp8<Group>> = 256;

/// Keys as floats of 32, 16 or 8 bits against queries in float32.
template <class C>
struct FloatKeys {
    static constexpr bool scaled = C::group != 1;

    static Bytes query_bytes(std::size_t dim) noexcept { return dim * sizeof(float); }
    static void prepare(const float* query, std::size_t dim, std::byte* prepared) noexcept {
        std::memcpy(prepared, query, dim * sizeof(float));
    }

    template <std::size_t V, std::size_t T>
    ZSE_INLINE static void score(const KeyBlock& keys, std::size_t first, const std::byte* queries, float* scores,
                                 std::size_t stride) {
        simd::Vec sums[V][T];
#pragma GCC unroll 4
        for (std::size_t v = 0; v < V; ++v) {
#pragma GCC unroll 8
            for (std::size_t t = 0; t < T; ++t) sums[v][t] = simd::zero();
        }
        const std::byte* piece = keys.codes + first * simd::lanes * C::piece;
        const auto* query = reinterpret_cast<const float*>(queries);
        [[maybe_unused]] const std::byte* scale = keys.scales + first * simd::lanes * 2;
        for (std::size_t d = 0; d < keys.dim;) {
            [[maybe_unused]] simd::Vec scales[V];
            if constexpr (scaled) {
#pragma GCC unroll 4
                for (std::size_t v = 0; v < V; ++v) {
                    scales[v] = simd::mul(simd::load_f16(scale + v * simd::lanes * 2), simd::broadcast(scale_unit<C>));
                }
                scale += keys.scale_stride;
            }
            for (const std::size_t end = scaled ? d + C::group : keys.dim; d < end; ++d, piece += keys.piece_stride) {
#pragma GCC unroll 4
                for (std::size_t v = 0; v < V; ++v) {
                    simd::Vec k = load(piece + v * simd::lanes * C::piece);
                    if constexpr (scaled) k = simd::mul(k, scales[v]);
#pragma GCC unroll 8
                    for (std::size_t t = 0; t < T; ++t) {
                        sums[v][t] = simd::fma(k, simd::broadcast(query[t * keys.dim + d]), sums[v][t]);
                    }
                }
            }
        }
#pragma GCC unroll 4
        for (std::size_t v = 0; v < V; ++v) {
#pragma GCC unroll 8
            for (std::size_t t = 0; t < T; ++t) {
                simd::store(scores + t * stride + (first + v) * simd::lanes, sums[v][t]);
            }
        }
    }

private:
    ZSE_INLINE static simd::Vec load(const std::byte* at) {
        if constexpr (C::piece == 4) {
            return simd::load(reinterpret_cast<const float*>(at));
        } else if constexpr (C::piece == 2) {
            return simd::load_f16(at);
        } else {
            return simd::load_e4m3(at);
        }
    }
};

/// Keys in 8 or 4 bits against queries in 8 bits, with a scale for every stretch of columns that a key has a scale
/// for, at most 32. A prepared query is `{codes [dim] int8 | scales [stretches] float32 | sums [stretches] int32}`.
template <class C, bool Nibbles>
struct CodedKeys {
    using Sum = std::conditional_t<Nibbles, simd::Sum4, simd::Sum8>;
    using Factors = simd::Factors<Sum, C::group, Nibbles>;
    static constexpr std::int32_t offset = Nibbles ? 8 : 0;
    static constexpr std::size_t columns = Factors::columns;
    /// Bytes of the codes of one block of a key.
    static constexpr std::size_t block_bytes = Nibbles ? C::group / 2 : C::group;

    static Bytes query_bytes(std::size_t dim) noexcept { return dim + dim / columns * 8; }
    static void prepare(const float* query, std::size_t dim, std::byte* prepared) noexcept {
        auto* codes = reinterpret_cast<std::int8_t*>(prepared);
        auto* scales = reinterpret_cast<float*>(prepared + dim);
        auto* sums = reinterpret_cast<std::int32_t*>(prepared + dim + dim / columns * 4);
        for (std::size_t part = 0; part < dim / columns; ++part) {
            const float* values = query + part * columns;
            simd::Vec most = simd::zero();
            for (std::size_t i = 0; i < columns; i += simd::lanes) {
                most = simd::max_magnitude(most, simd::load(values + i));
            }
            scales[part] = simd::greatest_magnitude(most) / 127.0f;
            const float inverse = 1.0f / scales[part];
            const simd::Vec steps = simd::broadcast(std::isfinite(inverse) ? inverse : 0.0f);
            simd::Int sum = simd::broadcast_int(0);
            for (std::size_t i = 0; i < columns; i += simd::lanes) {
                const simd::Int code = simd::code_of(simd::load(values + i), steps);
                simd::store_s8(codes + part * columns + i, code);
                sum = simd::add(sum, code);
            }
            sums[part] = simd::sum(sum);
        }
    }

    template <std::size_t V, std::size_t T>
    ZSE_INLINE static void score(const KeyBlock& keys, std::size_t first, const std::byte* queries, float* scores,
                                 std::size_t stride) {
        const std::size_t bytes = query_bytes(keys.dim);
        simd::Vec results[V][T];
#pragma GCC unroll 4
        for (std::size_t v = 0; v < V; ++v) {
#pragma GCC unroll 8
            for (std::size_t t = 0; t < T; ++t) results[v][t] = simd::zero();
        }
        for (std::size_t block = 0, part = 0; block * C::group < keys.dim; ++block) {
            const std::byte* codes = keys.codes + block * (block_bytes / C::piece) * keys.piece_stride;
            simd::Vec scales[V];
#pragma GCC unroll 4
            for (std::size_t v = 0; v < V; ++v) {
                scales[v] = simd::load_f16(keys.scales + block * keys.scale_stride + (first + v) * simd::lanes * 2);
            }
            for (std::size_t within = 0; within < Factors::parts; ++within, ++part) {
#pragma GCC unroll 4
                for (std::size_t v = 0; v < V; ++v) {
                    typename Sum::Weights w[Factors::steps];
                    Factors::unpack(codes + (first + v) * simd::lanes * C::piece, keys.piece_stride, within, w);
                    Sum products[T];
#pragma GCC unroll 8
                    for (std::size_t t = 0; t < T; ++t) {
                        const std::int32_t sum = word<std::int32_t>(
                            queries + t * bytes + keys.dim + keys.dim / columns * 4 + part * 4);
                        products[t].begin(-offset * sum, sum);
                    }
#pragma GCC unroll 8
                    for (std::size_t s = 0; s < Factors::steps; ++s) {
#pragma GCC unroll 8
                        for (std::size_t t = 0; t < T; ++t) {
                            const auto* four = reinterpret_cast<const std::int8_t*>(queries + t * bytes);
                            products[t].step(w[s], simd::four_bytes(four + part * columns + s * 4));
                        }
                    }
#pragma GCC unroll 8
                    for (std::size_t t = 0; t < T; ++t) {
                        const float scale = word<float>(queries + t * bytes + keys.dim + part * 4);
                        results[v][t] = simd::fma(simd::to_float(products[t].total()),
                                                  simd::mul(scales[v], simd::broadcast(scale)), results[v][t]);
                    }
                }
            }
        }
#pragma GCC unroll 4
        for (std::size_t v = 0; v < V; ++v) {
#pragma GCC unroll 8
            for (std::size_t t = 0; t < T; ++t) {
                simd::store(scores + t * stride + (first + v) * simd::lanes, results[v][t]);
            }
        }
    }

private:
    template <class T>
    ZSE_INLINE static T word(const std::byte* at) {
        T value;
        std::memcpy(&value, at, sizeof value);
        return value;
    }
};

template <class C>
struct Keys;
template <>
struct Keys<kv::f32> : FloatKeys<kv::f32> {};
template <>
struct Keys<kv::f16> : FloatKeys<kv::f16> {};
template <std::size_t Group>
struct Keys<kv::fp8<Group>> : FloatKeys<kv::fp8<Group>> {};
template <std::size_t Group, class Rotation>
struct Keys<kv::int8<Group, Rotation>> : CodedKeys<kv::int8<Group, Rotation>, false> {};
template <std::size_t Group, class Rotation>
struct Keys<kv::int4<Group, Rotation>> : CodedKeys<kv::int4<Group, Rotation>, true> {};

template <class C, std::size_t T>
[[gnu::noinline]] void score_queries(const KeyBlock& keys, const std::byte* queries, float* scores,
                                     std::size_t stride) {
    constexpr std::size_t most = simd::registers * 3 / 8 / (2 * T);
    constexpr std::size_t v = most >= simd::row_vectors ? simd::row_vectors : (most >= 2 ? 2 : 1);
    for (std::size_t first = 0; first < simd::row_vectors; first += v) {
        Keys<C>::template score<v, T>(keys, first, queries, scores, stride);
    }
}

template <class C>
void score(const KeyBlock& keys, const std::byte* queries, std::size_t count, float* scores,
           std::size_t stride) noexcept {
    const std::size_t bytes = Keys<C>::query_bytes(keys.dim);
    std::size_t q = 0;
    if constexpr (simd::registers >= 32) {
        for (; q + 8 <= count; q += 8) score_queries<C, 8>(keys, queries + q * bytes, scores + q * stride, stride);
    }
    for (; q + 4 <= count; q += 4) score_queries<C, 4>(keys, queries + q * bytes, scores + q * stride, stride);
    if (count - q == 3) return score_queries<C, 3>(keys, queries + q * bytes, scores + q * stride, stride);
    if (count - q == 2) return score_queries<C, 2>(keys, queries + q * bytes, scores + q * stride, stride);
    if (count - q == 1) return score_queries<C, 1>(keys, queries + q * bytes, scores + q * stride, stride);
}

template <class C>
inline constexpr KeyKernels key_kernels{&Keys<C>::query_bytes, &Keys<C>::prepare, &score<C>};

/// `lanes` values of a row from value `at`, in steps of the scale that they share, if any.
ZSE_INLINE simd::Vec steps_at(const std::byte* codes, std::size_t at, const kv::f32*) {
    return simd::load(reinterpret_cast<const float*>(codes) + at);
}
ZSE_INLINE simd::Vec steps_at(const std::byte* codes, std::size_t at, const kv::f16*) {
    return simd::load_f16(codes + at * 2);
}
template <std::size_t Group>
ZSE_INLINE simd::Vec steps_at(const std::byte* codes, std::size_t at, const kv::fp8<Group>*) {
    return simd::load_e4m3(codes + at);
}
template <std::size_t Group, class Rotation>
ZSE_INLINE simd::Vec steps_at(const std::byte* codes, std::size_t at, const kv::int8<Group, Rotation>*) {
    return simd::to_float(simd::load_s8(reinterpret_cast<const std::int8_t*>(codes) + at));
}
template <std::size_t Group, class Rotation>
ZSE_INLINE simd::Vec steps_at(const std::byte* codes, std::size_t at, const kv::int4<Group, Rotation>*) {
    const std::size_t within = at % Group;
    const bool low = within < Group / 2;
    const auto* bytes =
        reinterpret_cast<const std::uint8_t*>(codes) + at / Group * (Group / 2) + (low ? within : within - Group / 2);
    const simd::Int both = simd::load_u8(bytes);
    const simd::Int code = low ? simd::low_four(both) : simd::high_four(both);
    return simd::to_float(simd::sub(code, simd::broadcast_int(8)));
}

/// Whether whole vectors of a row of `dim` lie within one group, and with nibbles on one side of its bytes.
template <class C>
constexpr bool whole_vectors(std::size_t dim) noexcept {
    const std::size_t run = C::group == 1 ? dim : (C::code_bytes(C::group) == C::group / 2 ? C::group / 2 : C::group);
    return dim % simd::lanes == 0 && run % simd::lanes == 0;
}

/// Tokens whose weights meet their scales at a time.
inline constexpr std::size_t scaled_tokens = 16;

/// T queries by W vectors of the values from dimension `first`.
template <class C, std::size_t T, std::size_t W>
ZSE_INLINE void accumulate_tile(const ValuePages& pages, std::size_t first, const float* weights,
                                std::size_t weight_stride, float* values, std::size_t value_stride) {
    constexpr bool scaled = C::group != 1;
    constexpr std::size_t width = W * simd::lanes;
    constexpr std::size_t groups = !scaled ? 1 : (width + C::group - 1) / C::group;
    const std::size_t code_bytes = C::code_bytes(pages.dim);
    const std::size_t ahead_bytes = pages.ahead != nullptr ? pages.ahead_bytes : 0;
    simd::Vec sums[T][W];
#pragma GCC unroll 8
    for (std::size_t q = 0; q < T; ++q) {
#pragma GCC unroll 4
        for (std::size_t w = 0; w < W; ++w) {
            sums[q][w] = simd::load(values + q * value_stride + first + w * simd::lanes);
        }
    }
    alignas(64) float with_scales[groups][T][scaled_tokens];
    for (std::size_t token = 0; token < pages.tokens;) {
        const std::size_t slot = token % pages.page_tokens;
        const std::size_t count =
            std::min({scaled_tokens, pages.page_tokens - slot, pages.tokens - token});
        const std::byte* page = pages.codes[token / pages.page_tokens];
        if constexpr (scaled) {
            for (std::size_t g = 0; g < groups; ++g) {
                alignas(64) std::byte scales[scaled_tokens * 2]{};
                const std::size_t group = first / C::group + g;
                const std::byte* from = page + pages.scales_at + (group * pages.page_tokens + slot) * 2;
                if (count == scaled_tokens) {
                    std::memcpy(scales, from, sizeof scales);
                } else {
                    std::memcpy(scales, from, count * 2);
                }
                for (std::size_t t = 0; t < scaled_tokens; t += simd::lanes) {
                    simd::Vec scale = simd::load_f16(scales + t * 2);
                    if constexpr (scale_unit<C> != 1) scale = simd::mul(scale, simd::broadcast(scale_unit<C>));
#pragma GCC unroll 8
                    for (std::size_t q = 0; q < T; ++q) {
                        const float* weight = weights + q * weight_stride + token + t;
                        simd::store(with_scales[g][q] + t, simd::mul(simd::load(weight), scale));
                    }
                }
            }
        }
        const std::byte* ahead = ahead_bytes != 0 ? pages.ahead[token / pages.page_tokens] : nullptr;
        if (ahead != nullptr && slot == 0) {
            touch(ahead);
            touch(ahead + ahead_bytes - 1);
        }
        const std::byte* codes = page + slot * code_bytes;
        for (std::size_t t = 0; t < count; ++t, codes += code_bytes) {
            // One or two lines a token: spread over the page, they delay nothing.
            for (std::size_t line = (slot + t) * 64; line < ahead_bytes; line += pages.page_tokens * 64) {
                __builtin_prefetch(ahead + line, 0, 2);
            }
#pragma GCC unroll 4
            for (std::size_t w = 0; w < W; ++w) {
                const simd::Vec v = steps_at(codes, first + w * simd::lanes, static_cast<const C*>(nullptr));
                const std::size_t g = scaled ? w * simd::lanes / C::group : 0;
#pragma GCC unroll 8
                for (std::size_t q = 0; q < T; ++q) {
                    const float weight = scaled ? with_scales[g][q][t] : weights[q * weight_stride + token + t];
                    sums[q][w] = simd::fma(simd::broadcast(weight), v, sums[q][w]);
                }
            }
        }
        token += count;
    }
#pragma GCC unroll 8
    for (std::size_t q = 0; q < T; ++q) {
#pragma GCC unroll 4
        for (std::size_t w = 0; w < W; ++w) {
            simd::store(values + q * value_stride + first + w * simd::lanes, sums[q][w]);
        }
    }
}

template <class C, std::size_t T>
[[gnu::noinline]] void accumulate_queries(const ValuePages& pages, const float* weights, std::size_t weight_stride,
                                          float* values, std::size_t value_stride) {
    constexpr std::size_t wide = simd::registers >= 32 ? 4 : 2;
    std::size_t first = 0;
    // A wide tile begins at a group, or lies in one.
    constexpr bool fits = C::group == 1 || wide * simd::lanes % C::group == 0 || C::group % (wide * simd::lanes) == 0;
    if constexpr (fits) {
        for (; first + wide * simd::lanes <= pages.dim; first += wide * simd::lanes) {
            accumulate_tile<C, T, wide>(pages, first, weights, weight_stride, values, value_stride);
        }
    }
    for (; first < pages.dim; first += simd::lanes) {
        accumulate_tile<C, T, 1>(pages, first, weights, weight_stride, values, value_stride);
    }
}

/// Heads that are no whole number of vectors, and groups of 16 nibbles: token by token, as the codec decodes them.
template <class C>
void accumulate_rows(const ValuePages& pages, const float* weights, std::size_t weight_stride, std::size_t queries,
                     float* values, std::size_t value_stride) {
    for (std::size_t token = 0; token < pages.tokens; ++token) {
        const std::size_t slot = token % pages.page_tokens;
        const std::byte* page = pages.codes[token / pages.page_tokens];
        std::byte scales[kv::most_head_dim / 16 * 2];
        for (std::size_t i = 0; i < C::scale_bytes(pages.dim); i += 2) {
            std::memcpy(scales + i, page + pages.scales_at + i * pages.page_tokens + slot * 2, 2);
        }
        float row[kv::most_head_dim];
        C::decode(page + slot * C::code_bytes(pages.dim), scales, pages.dim, row);
        for (std::size_t q = 0; q < queries; ++q) {
            float* value = values + q * value_stride;
            const simd::Vec weight = simd::broadcast(weights[q * weight_stride + token]);
            for (std::size_t d = 0; d < pages.dim; d += simd::lanes) {
                const simd::Vec v = simd::load_up_to(row + d, pages.dim - d);
                simd::store(value + d, simd::fma(weight, v, simd::load(value + d)));
            }
        }
    }
}

template <class C>
void accumulate(const ValuePages& pages, const float* weights, std::size_t weight_stride, std::size_t queries,
                float* values, std::size_t value_stride) noexcept {
    if (!whole_vectors<C>(pages.dim)) {
        return accumulate_rows<C>(pages, weights, weight_stride, queries, values, value_stride);
    }
    const auto run = [&](auto count, std::size_t q) {
        constexpr std::size_t t = decltype(count)::value;
        accumulate_queries<C, t>(pages, weights + q * weight_stride, weight_stride, values + q * value_stride,
                                 value_stride);
        return q + t;
    };
    std::size_t q = 0;
    while (q + 6 <= queries) q = run(std::integral_constant<std::size_t, 6>{}, q);
    if (q + 4 <= queries) q = run(std::integral_constant<std::size_t, 4>{}, q);
    if (queries - q == 3) run(std::integral_constant<std::size_t, 3>{}, q);
    if (queries - q == 2) run(std::integral_constant<std::size_t, 2>{}, q);
    if (queries - q == 1) run(std::integral_constant<std::size_t, 1>{}, q);
}

template <class C>
inline constexpr ValueKernels value_kernels{&accumulate<C>};

inline Partial softmax(float* scores, std::size_t count) noexcept {
    Partial state;
    if (count == 0) return state;
    const std::size_t whole = round_up(count, simd::lanes);
    // Beyond the end stand minus infinities, whose weight is zero: sums do not depend on where a part ends.
    for (std::size_t t = count; t < whole; ++t) scores[t] = -std::numeric_limits<float>::infinity();
    simd::Vec most = simd::load(scores);
    for (std::size_t t = simd::lanes; t < whole; t += simd::lanes) most = simd::max(most, simd::load(scores + t));
    state.greatest = simd::greatest(most);
    const simd::Vec greatest = simd::broadcast(state.greatest);
    simd::Vec sums = simd::zero();
    for (std::size_t t = 0; t < whole; t += simd::lanes) {
        const simd::Vec weight = simd::exp(simd::sub(simd::load(scores + t), greatest));
        simd::store(scores + t, weight);
        sums = simd::add(sums, weight);
    }
    state.sum = simd::sum(sums);
    return state;
}

inline void merge(Partial& state, float* value, const Partial& later, const float* later_value,
                  std::size_t width) noexcept {
    if (later.sum == 0) return;
    const float greatest = std::fmax(state.greatest, later.greatest);
    const float keep = std::exp(state.greatest - greatest);  // 0 for an empty state
    const float take = std::exp(later.greatest - greatest);
    for (std::size_t d = 0; d < width; d += simd::lanes) {
        const simd::Vec kept = simd::mul(simd::load(value + d), simd::broadcast(keep));
        simd::store(value + d, simd::fma(simd::load(later_value + d), simd::broadcast(take), kept));
    }
    state.sum = state.sum * keep + later.sum * take;
    state.greatest = greatest;
}

inline constexpr SoftmaxKernels softmax_kernels{&softmax, &merge};

}  // namespace ZSE_ISA
}  // namespace attention
}  // namespace zse::inline v1
