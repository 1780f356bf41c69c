// SPDX-License-Identifier: Apache-2.0
// AVX-512, with and without byte dot products. See vector.hpp.

inline constexpr std::size_t lanes = 16;
/// Vectors that kernels may keep in registers at once.
inline constexpr std::size_t registers = 32;

using Vec = __m512;
using Int = __m512i;
using Codes = __m512i;

/// g++ 12 warns of uninitialised values in the plain forms of some intrinsics; with this mask it makes the same code.
inline constexpr __mmask16 every_lane = 0xffff;

ZSE_INLINE Vec zero() { return _mm512_setzero_ps(); }
ZSE_INLINE Vec broadcast(float value) { return _mm512_set1_ps(value); }
ZSE_INLINE Vec load(const float* from) { return _mm512_loadu_ps(from); }
ZSE_INLINE void store(float* to, Vec v) { _mm512_storeu_ps(to, v); }
ZSE_INLINE Vec add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
ZSE_INLINE Vec sub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
ZSE_INLINE Vec mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
ZSE_INLINE Vec div(Vec a, Vec b) { return _mm512_div_ps(a, b); }
ZSE_INLINE Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
ZSE_INLINE Vec max(Vec a, Vec b) { return _mm512_max_ps(a, b); }
ZSE_INLINE Vec min(Vec a, Vec b) { return _mm512_min_ps(a, b); }
ZSE_INLINE Vec abs(Vec v) { return _mm512_abs_ps(v); }
/// As integers, in whose order what is no number comes after infinity.
ZSE_INLINE Vec max_magnitude(Vec most, Vec v) {
    return _mm512_castsi512_ps(_mm512_max_epi32(_mm512_castps_si512(most), _mm512_castps_si512(abs(v))));
}
ZSE_INLINE Vec swap_pairs(Vec v) { return _mm512_permute_ps(v, 0xb1); }
/// Each lane with the one that lies `Distance`, a power of two, beside it.
template <std::size_t Distance>
ZSE_INLINE Vec swap_lanes(Vec v) {
    if constexpr (Distance >= 4) {
        return _mm512_shuffle_f32x4(v, v, Distance == 8 ? 0x4e : 0xb1);
    } else {
        return _mm512_permute_ps(v, Distance == 2 ? 0x4e : 0xb1);
    }
}
ZSE_INLINE Vec if_negative(Vec test, Vec yes, Vec no) {
    return _mm512_mask_blend_ps(_mm512_movepi32_mask(_mm512_castps_si512(test)), no, yes);
}

ZSE_INLINE Vec load_f16(const std::byte* from) {
    return _mm512_maskz_cvtph_ps(every_lane, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}
ZSE_INLINE Vec broadcast_f16(const std::byte* from) {
    std::int16_t half;
    std::memcpy(&half, from, sizeof half);
    return _mm512_maskz_cvtph_ps(every_lane, _mm256_set1_epi16(half));
}
ZSE_INLINE void store_f16(std::byte* to, Vec v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
/// 8-bit floats (see kv::e4m3) divided by 256: a half has the same fields at the same places, but another bias.
ZSE_INLINE Vec load_e4m3(const std::byte* from) {
    const __m256i words = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
    const __m256i moved = _mm256_srai_epi16(_mm256_slli_epi16(words, 8), 1);
    return _mm512_maskz_cvtph_ps(every_lane, _mm256_and_si256(moved, _mm256_set1_epi16(-0x4001)));
}
ZSE_INLINE Vec load_bf16(const std::byte* from) {
    const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}

ZSE_INLINE Int broadcast_int(std::int32_t value) { return _mm512_set1_epi32(value); }
ZSE_INLINE Int add(Int a, Int b) { return _mm512_add_epi32(a, b); }
ZSE_INLINE Vec to_float(Int i) { return _mm512_maskz_cvtepi32_ps(every_lane, i); }
/// To the nearest, ties to even.
ZSE_INLINE Int to_int(Vec v) { return _mm512_cvtps_epi32(v); }
ZSE_INLINE Int half_of(Int i) { return _mm512_srai_epi32(i, 1); }
ZSE_INLINE Int sub(Int a, Int b) { return _mm512_sub_epi32(a, b); }
/// 2^i, for i in -126..127.
ZSE_INLINE Vec power_of_two(Int i) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(i, _mm512_set1_epi32(127)), 23));
}
ZSE_INLINE Int load_s8(const std::int8_t* from) {
    return _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}
ZSE_INLINE Int load_u8(const std::uint8_t* from) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}
ZSE_INLINE void store_s8(std::int8_t* to, Int i) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8(i));
}
/// With zeros from above.
template <int Bits>
ZSE_INLINE Int shift_right(Int i) {
    return _mm512_srli_epi32(i, Bits);
}
ZSE_INLINE Int bit_and(Int a, Int b) { return _mm512_and_si512(a, b); }
ZSE_INLINE Int as_int(Vec v) { return _mm512_castps_si512(v); }
ZSE_INLINE Vec as_float(Int i) { return _mm512_castsi512_ps(i); }
ZSE_INLINE Int low_four(Int i) { return _mm512_and_si512(i, _mm512_set1_epi32(15)); }
ZSE_INLINE Int high_four(Int i) { return _mm512_srli_epi32(i, 4); }

ZSE_INLINE float sum(Vec v) { return _mm512_reduce_add_ps(v); }
ZSE_INLINE float greatest(Vec v) { return _mm512_reduce_max_ps(v); }
/// Of magnitudes.
ZSE_INLINE float greatest_magnitude(Vec v) {
    return std::bit_cast<float>(_mm512_reduce_max_epi32(_mm512_castps_si512(v)));
}
ZSE_INLINE std::int32_t sum(Int i) { return _mm512_reduce_add_epi32(i); }

ZSE_INLINE Codes load_codes(const std::byte* from) { return _mm512_loadu_si512(from); }
ZSE_INLINE Codes four_bytes(const std::int8_t* from) {
    std::int32_t word;
    std::memcpy(&word, from, sizeof word);
    return _mm512_set1_epi32(word);
}
ZSE_INLINE Codes low_nibbles(Codes c) { return _mm512_and_si512(c, _mm512_set1_epi8(15)); }
ZSE_INLINE Codes high_nibbles(Codes c) {
    return _mm512_and_si512(_mm512_srli_epi16(c, 4), _mm512_set1_epi8(15));
}
/// table[c] for nibbles c; `table` is `[16]`.
ZSE_INLINE Codes look_up(Codes c, const std::int8_t* table) {
    const __m128i entries = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table));
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(entries), c);
}

#if defined(ZSE_ISA_VNNI)
struct Sum4 {
    using Weights = Codes;
    Int sums;

    ZSE_INLINE static Weights weights(Codes c) { return c; }
    /// Begins at `first`. `activations` is the sum of all activations that will follow.
    ZSE_INLINE void begin(std::int32_t first, std::int32_t /*activations*/) { sums = broadcast_int(first); }
    ZSE_INLINE void step(Weights w, Codes x) { sums = _mm512_dpbusd_epi32(sums, w, x); }
    ZSE_INLINE Int total() const { return sums; }
};
/// The unsigned factor is code + 128: what it adds is taken off at the start.
struct Sum8 {
    using Weights = Codes;
    Int sums;

    ZSE_INLINE static Weights weights(Codes c) { return _mm512_xor_si512(c, _mm512_set1_epi8(-128)); }
    ZSE_INLINE void begin(std::int32_t first, std::int32_t activations) {
        sums = broadcast_int(first - 128 * activations);
    }
    ZSE_INLINE void step(Weights w, Codes x) { sums = _mm512_dpbusd_epi32(sums, w, x); }
    ZSE_INLINE Int total() const { return sums; }
};
#else
struct Sum4 {
    using Weights = Codes;
    __m512i halves;
    std::int32_t start;

    ZSE_INLINE static Weights weights(Codes c) { return c; }
    ZSE_INLINE void begin(std::int32_t first, std::int32_t /*activations*/) {
        halves = _mm512_setzero_si512();
        start = first;
    }
    ZSE_INLINE void step(Weights w, Codes x) {
        halves = _mm512_add_epi16(halves, _mm512_maddubs_epi16(w, x));
    }
    ZSE_INLINE Int total() const {
        return _mm512_add_epi32(_mm512_madd_epi16(halves, _mm512_set1_epi16(1)), broadcast_int(start));
    }
};
/// The unsigned factor is the magnitude of the code, and the activation takes its sign.
struct Sum8 {
    struct Weights {
        Codes magnitude;
        __mmask64 negative;
    };
    Int sums;

    ZSE_INLINE static Weights weights(Codes c) { return {_mm512_abs_epi8(c), _mm512_movepi8_mask(c)}; }
    ZSE_INLINE void begin(std::int32_t first, std::int32_t /*activations*/) { sums = broadcast_int(first); }
    ZSE_INLINE void step(Weights w, Codes x) {
        const __m512i turned = _mm512_mask_sub_epi8(x, w.negative, _mm512_setzero_si512(), x);
        const __m512i pairs = _mm512_maddubs_epi16(w.magnitude, turned);
        sums = _mm512_add_epi32(sums, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
    }
    ZSE_INLINE Int total() const { return sums; }
};
#endif
