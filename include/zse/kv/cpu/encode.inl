// SPDX-License-Identifier: Apache-2.0
// Encoding of keys and values for one instruction set, bit for bit as the codecs' own encode. See kv/kernels.hpp.
namespace zse::inline v1 {
namespace kv {
namespace ZSE_ISA {

namespace simd = kernels::ZSE_ISA;

/// What has no vector form goes through the codec itself.
template <class C>
struct Encode {
    static void row(const float* from, std::size_t dim, std::byte* codes, std::byte* scales) noexcept {
        C::encode(from, dim, codes, scales);
    }
};

template <>
struct Encode<f16> {
    static void row(const float* from, std::size_t dim, std::byte* codes, std::byte* scales) noexcept {
        std::size_t i = 0;
        for (; i + simd::lanes <= dim; i += simd::lanes) simd::store_f16(codes + i * 2, simd::load(from + i));
        f16::encode(from + i, dim - i, codes + i * 2, scales);
    }
};

ZSE_INLINE float greatest_magnitude(const float* values, std::size_t count) {
    simd::Vec most = simd::zero();
    for (std::size_t i = 0; i < count; i += simd::lanes) most = simd::max_magnitude(most, simd::load(values + i));
    return simd::greatest_magnitude(most);
}

template <std::size_t Group, class Rotation>
struct Encode<int8<Group, Rotation>> {
    static void row(const float* from, std::size_t dim, std::byte* codes, std::byte* scales) noexcept {
        for (std::size_t g = 0; g < dim / Group; ++g) {
            const float scale = detail::store_scale(scales, g, greatest_magnitude(from + g * Group, Group) / 127.0f);
            if (!std::isfinite(scale)) {
                std::memset(codes + g * Group, 0, Group);
                continue;
            }
            const simd::Vec inverse = simd::broadcast(scale > 0 ? 1.0f / scale : 0.0f);
            for (std::size_t i = 0; i < Group; i += simd::lanes) {
                simd::store_s8(reinterpret_cast<std::int8_t*>(codes) + g * Group + i,
                               simd::code_of(simd::load(from + g * Group + i), inverse));
            }
        }
    }
};

/// As e4m3 rounds, of numbers; as bytes with a sign.
ZSE_INLINE simd::Int e4m3_of(simd::Vec v) {
    const simd::Vec magnitude = simd::min(simd::abs(v), simd::broadcast(e4m3::greatest));
    const simd::Int bits = simd::as_int(magnitude);
    const simd::Int odd = simd::bit_and(simd::shift_right<20>(bits), simd::broadcast_int(1));
    const simd::Int rebiased = simd::sub(bits, simd::broadcast_int((120 << 23) - 0x7ffff));
    const simd::Int normal = simd::shift_right<20>(simd::add(rebiased, odd));
    const simd::Int subnormal = simd::sub(simd::as_int(simd::add(magnitude, simd::broadcast(0x1p14f))),
                                          simd::as_int(simd::broadcast(0x1p14f)));
    const simd::Vec below = simd::sub(magnitude, simd::broadcast(0x1p-6f));
    const simd::Vec code = simd::if_negative(below, simd::as_float(subnormal), simd::as_float(normal));
    const simd::Int sign = simd::bit_and(simd::shift_right<24>(simd::as_int(v)), simd::broadcast_int(0x80));
    return simd::sub(simd::as_int(code), sign);
}

template <std::size_t Group>
struct Encode<fp8<Group>> {
    static void row(const float* from, std::size_t dim, std::byte* codes, std::byte* scales) noexcept {
        for (std::size_t g = 0; g < dim / Group; ++g) {
            const float scale =
                detail::store_scale(scales, g, greatest_magnitude(from + g * Group, Group) / e4m3::greatest);
            if (!std::isfinite(scale)) {
                std::memset(codes + g * Group, e4m3::no_number, Group);
                continue;
            }
            const simd::Vec inverse = simd::broadcast(scale > 0 ? 1.0f / scale : 0.0f);
            for (std::size_t i = 0; i < Group; i += simd::lanes) {
                simd::store_s8(reinterpret_cast<std::int8_t*>(codes) + g * Group + i,
                               e4m3_of(simd::mul(simd::load(from + g * Group + i), inverse)));
            }
        }
    }
};

/// The steps of codec int4 over a whole group. Sums are whole numbers below 2^24, so any order gives the same.
template <std::size_t Group, class Rotation>
struct Encode<int4<Group, Rotation>> {
    using Codec = int4<Group, Rotation>;

    static void row(const float* from, std::size_t dim, std::byte* codes, std::byte* scales) noexcept {
        // Both values of a byte come from whole vectors.
        if constexpr (Group / 2 % simd::lanes != 0) return Codec::encode(from, dim, codes, scales);
        for (std::size_t g = 0; g < dim / Group; ++g) {
            const float* values = from + g * Group;
            std::byte* bytes = codes + g * Group / 2;
            const float scale = detail::store_scale(scales, g, fitted_scale(values));
            if (!std::isfinite(scale)) {
                std::memset(bytes, 0, Group / 2);
                continue;
            }
            const simd::Vec inverse = simd::broadcast(scale != 0 ? 1.0f / scale : 0.0f);
            for (std::size_t j = 0; j < Group / 2; j += simd::lanes) {
                const simd::Vec low = nearest_step(simd::mul(simd::load(values + j), inverse));
                const simd::Vec high = nearest_step(simd::mul(simd::load(values + j + Group / 2), inverse));
                // (low + 8) + 16 * (high + 8) as a byte with a sign.
                const simd::Vec upper = simd::if_negative(high, simd::add(high, simd::broadcast(8)),
                                                          simd::sub(high, simd::broadcast(8)));
                const simd::Vec byte = simd::add(simd::add(low, simd::broadcast(8)),
                                                 simd::mul(upper, simd::broadcast(16)));
                simd::store_s8(reinterpret_cast<std::int8_t*>(bytes) + j, simd::to_int(byte));
            }
        }
    }

private:
    static constexpr std::size_t vectors = (Group + simd::lanes - 1) / simd::lanes;

    ZSE_INLINE static simd::Vec nearest(simd::Vec v) { return simd::to_float(simd::to_int(v)); }
    ZSE_INLINE static simd::Vec nearest_step(simd::Vec v) {
        // Within the bounds first: what is far beyond them is no 32-bit integer.
        return nearest(simd::min(simd::max(v, simd::broadcast(-8)), simd::broadcast(7)));
    }
    ZSE_INLINE static float fitted_scale(const float* values) {
        const float most = greatest_magnitude(values, Group);
        if (!(most >= Codec::least)) return most == most ? 0.0f : most;
        if (!std::isfinite(most)) return most;
        simd::Vec greatest = simd::load(values);
        for (std::size_t v = 1; v < vectors; ++v) {
            greatest = simd::max(greatest, simd::load(values + v * simd::lanes));
        }
        const float sign = simd::greatest(greatest) == most ? -1.0f : 1.0f;
        const simd::Vec factor = simd::broadcast(sign * (Codec::grid / most));
        simd::Vec whole[vectors];
        for (std::size_t v = 0; v < vectors; ++v) {
            whole[v] = nearest(simd::mul(simd::load(values + v * simd::lanes), factor));
        }
        float best = -1;
        float fitted = 0;
        for (const float steps : Codec::candidates) {
            const simd::Vec to_steps = simd::broadcast(steps / Codec::grid);
            simd::Vec products = simd::zero();
            simd::Vec squares = simd::zero();
            for (std::size_t v = 0; v < vectors; ++v) {
                const simd::Vec step = nearest_step(simd::mul(whole[v], to_steps));
                products = simd::fma(whole[v], step, products);
                squares = simd::fma(step, step, squares);
            }
            Codec::take_better(simd::sum(products), simd::sum(squares), best, fitted);
        }
        return fitted * (sign * (most / Codec::grid));
    }
};

/// a + b and a - b of lanes a and b that lie `Distance` apart, in place of them.
template <std::size_t Distance>
ZSE_INLINE simd::Vec butterfly(simd::Vec v) {
    if constexpr (Distance < simd::lanes) {
        alignas(64) static constexpr auto signs = [] {
            std::array<float, simd::lanes> each{};
            for (std::size_t l = 0; l < simd::lanes; ++l) each[l] = (l & Distance) == 0 ? 1.0f : -1.0f;
            return each;
        }();
        return simd::fma(v, simd::load(signs.data()), simd::swap_lanes<Distance>(v));
    } else {
        return v;
    }
}

/// Turns within each of N vectors, then between them.
template <std::size_t N>
ZSE_INLINE void turn_vectors(float* part, simd::Vec norm) {
    simd::Vec v[N];
#pragma GCC unroll 16
    for (std::size_t i = 0; i < N; ++i) {
        const simd::Vec near = butterfly<2>(butterfly<1>(simd::load(part + i * simd::lanes)));
        v[i] = butterfly<8>(butterfly<4>(near));
    }
#pragma GCC unroll 4
    for (std::size_t half = 1; half < N; half *= 2) {
#pragma GCC unroll 16
        for (std::size_t i = 0; i < N; ++i) {
            if ((i & half) != 0) continue;
            const simd::Vec a = v[i];
            v[i] = simd::add(a, v[i + half]);
            v[i + half] = simd::sub(a, v[i + half]);
        }
    }
#pragma GCC unroll 16
    for (std::size_t i = 0; i < N; ++i) simd::store(part + i * simd::lanes, simd::mul(v[i], norm));
}

/// As kv::rotate(): the same sums in the same order.
inline void rotate(float* row, std::size_t dim) noexcept {
    const std::size_t block = rotation_block(dim);
    const simd::Vec norm = simd::broadcast(1.0f / std::sqrt(static_cast<float>(block)));
    for (std::size_t first = 0; first < dim; first += block) {
        switch (block) {
            case simd::lanes: turn_vectors<1>(row + first, norm); break;
            case 2 * simd::lanes: turn_vectors<2>(row + first, norm); break;
            case 4 * simd::lanes: turn_vectors<4>(row + first, norm); break;
            case 8 * simd::lanes: turn_vectors<8>(row + first, norm); break;
            case 16 * simd::lanes: turn_vectors<16>(row + first, norm); break;
            default: return kv::rotate(row, dim);  // less than a vector, or far more than registers hold
        }
    }
}

template <class C>
void encode(const float* row, std::size_t dim, std::byte* codes, std::byte* scales) noexcept {
    if constexpr (C::rotates) {
        float turned[most_head_dim];
        std::memcpy(turned, row, dim * sizeof(float));
        rotate(turned, dim);
        Encode<C>::row(turned, dim, codes, scales);
    } else {
        Encode<C>::row(row, dim, codes, scales);
    }
}

template <class C>
inline constexpr SideKernels side_kernels{&encode<C>, &C::decode, &rotate, C::rotates};

}  // namespace ZSE_ISA
}  // namespace kv
}  // namespace zse::inline v1
