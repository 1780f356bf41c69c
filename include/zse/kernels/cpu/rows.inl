// SPDX-License-Identifier: Apache-2.0
// Row operations for one instruction set. See kernels/rows.hpp.
namespace zse::inline v1 {
namespace kernels {
namespace ZSE_ISA {

inline constexpr std::size_t block_vectors = CodedActivations::block / lanes;

/// One block of 32 values as codes.
ZSE_INLINE void quantise_block(const Vec* values, const CodedToken& to) {
    Vec most = zero();
#pragma GCC unroll 8
    for (std::size_t i = 0; i < block_vectors; ++i) most = max_magnitude(most, values[i]);
    const float scale = greatest_magnitude(most) / 127.0f;
    const float inverse = 1.0f / scale;
    const Vec steps = broadcast(std::isfinite(inverse) ? inverse : 0.0f);
    Int sums = broadcast_int(0);
#pragma GCC unroll 8
    for (std::size_t i = 0; i < block_vectors; ++i) {
        const Int codes = code_of(values[i], steps);
        store_s8(to.codes + i * lanes, codes);
        sums = add(sums, codes);
    }
    *to.scale = scale;
    *to.sum = sum(sums);
    *to.scaled_sum = scale * static_cast<float>(*to.sum);
}

inline void quantise(const float* x, std::size_t count, CodedToken codes) noexcept {
    for (std::size_t first = 0, block = 0; first < count; first += CodedActivations::block, ++block) {
        Vec values[block_vectors];
#pragma GCC unroll 8
        for (std::size_t i = 0; i < block_vectors; ++i) {
            const std::size_t at = first + i * lanes;
            values[i] = at < count ? load_up_to(x + at, count - at) : zero();
        }
        quantise_block(values, codes.block(block));
    }
}

inline void rms_norm(const float* x, const float* weight, std::size_t count, float epsilon, float* floats,
                     CodedToken codes) noexcept {
    Vec squares = zero();
    for (std::size_t i = 0; i < count; i += lanes) {
        const Vec v = load_up_to(x + i, count - i);
        squares = fma(v, v, squares);
    }
    const float mean = sum(squares) / static_cast<float>(count);
    const Vec scale = broadcast(1.0f / std::sqrt(mean + epsilon));
    for (std::size_t first = 0, block = 0; first < count; first += CodedActivations::block, ++block) {
        Vec values[block_vectors];
#pragma GCC unroll 8
        for (std::size_t i = 0; i < block_vectors; ++i) {
            const std::size_t at = first + i * lanes;
            if (at >= count) {
                values[i] = zero();
                continue;
            }
            values[i] = mul(mul(load_up_to(x + at, count - at), scale), load_up_to(weight + at, count - at));
            if (floats != nullptr) store_up_to(floats + at, values[i], count - at);
        }
        if (codes.codes != nullptr) quantise_block(values, codes.block(block));
    }
}

inline void swiglu(float* gate, const float* up, std::size_t count) noexcept {
    for (std::size_t i = 0; i < count; i += lanes) {
        const Vec g = load_up_to(gate + i, count - i);
        // By exp(-|g|), which cannot overflow: g / (1 + e^-g), or g e^g / (1 + e^g) below zero.
        const Vec e = exp(sub(zero(), abs(g)));
        const Vec silu = div(if_negative(g, mul(g, e), g), add(broadcast(1.0f), e));
        store_up_to(gate + i, mul(silu, load_up_to(up + i, count - i)), count - i);
    }
}

inline void put(const float* from, std::size_t from_stride, std::size_t tokens, const float* bias, bool accumulate,
                float* to, std::size_t to_stride) noexcept {
    for (std::size_t t = 0; t < tokens; ++t, from += from_stride, to += to_stride) {
#pragma GCC unroll 4
        for (std::size_t i = 0; i < 16; i += lanes) {
            Vec v = load(from + i);
            if (bias != nullptr) v = add(v, load(bias + i));
            if (accumulate) v = add(load(to + i), v);
            store(to + i, v);
        }
    }
}

inline void rope(float* head, std::size_t dim, const float* cosines, const float* sines, RopePairs order) noexcept {
    if (order == RopePairs::neighbours) {
        for (std::size_t i = 0; i < dim; i += lanes) {
            const std::size_t left = dim - i;
            const Vec v = load_up_to(head + i, left);
            const Vec turned = mul(swap_pairs(v), load_up_to(sines + i, left));
            store_up_to(head + i, fma(v, load_up_to(cosines + i, left), turned), left);
        }
        return;
    }
    const std::size_t half = dim / 2;
    for (std::size_t i = 0; i < half; i += lanes) {
        const std::size_t left = half - i;
        const Vec a = load_up_to(head + i, left);
        const Vec b = load_up_to(head + half + i, left);
        const Vec cosine = load_up_to(cosines + i, left);
        const Vec sine = load_up_to(sines + half + i, left);
        store_up_to(head + i, fma(a, cosine, sub(zero(), mul(b, sine))), left);
        store_up_to(head + half + i, fma(b, cosine, mul(a, sine)), left);
    }
}

inline constexpr RowKernels row_kernels{&rms_norm, &quantise, &swiglu, &put, &rope};

}  // namespace ZSE_ISA
}  // namespace kernels
}  // namespace zse::inline v1
