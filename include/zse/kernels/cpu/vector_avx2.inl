// SPDX-License-Identifier: Apache-2.0
// AVX2 with FMA and F16C. See vector.hpp.

inline constexpr std::size_t lanes = 8;
inline constexpr std::size_t registers = 16;

using Vec = __m256;
/// A type of its own beside Codes: both are bytes to the processor.
struct Int {
    __m256i v;
};
using Codes = __m256i;

ZSE_INLINE Vec zero() { return _mm256_setzero_ps(); }
ZSE_INLINE Vec broadcast(float value) { return _mm256_set1_ps(value); }
ZSE_INLINE Vec load(const float* from) { return _mm256_loadu_ps(from); }
ZSE_INLINE void store(float* to, Vec v) { _mm256_storeu_ps(to, v); }
ZSE_INLINE Vec add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
ZSE_INLINE Vec sub(Vec a, Vec b) { return _mm256_sub_ps(a, b); }
ZSE_INLINE Vec mul(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
ZSE_INLINE Vec div(Vec a, Vec b) { return _mm256_div_ps(a, b); }
ZSE_INLINE Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
ZSE_INLINE Vec max(Vec a, Vec b) { return _mm256_max_ps(a, b); }
ZSE_INLINE Vec min(Vec a, Vec b) { return _mm256_min_ps(a, b); }
ZSE_INLINE Vec abs(Vec v) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v); }
/// As integers, in whose order what is no number comes after infinity.
ZSE_INLINE Vec max_magnitude(Vec most, Vec v) {
    return _mm256_castsi256_ps(_mm256_max_epi32(_mm256_castps_si256(most), _mm256_castps_si256(abs(v))));
}
ZSE_INLINE Vec swap_pairs(Vec v) { return _mm256_permute_ps(v, 0xb1); }
template <std::size_t Distance>
ZSE_INLINE Vec swap_lanes(Vec v) {
    if constexpr (Distance == 4) {
        return _mm256_permute2f128_ps(v, v, 1);
    } else {
        return _mm256_permute_ps(v, Distance == 2 ? 0x4e : 0xb1);
    }
}
ZSE_INLINE Vec if_negative(Vec test, Vec yes, Vec no) { return _mm256_blendv_ps(no, yes, test); }

ZSE_INLINE Vec load_f16(const std::byte* from) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}
ZSE_INLINE Vec broadcast_f16(const std::byte* from) {
    std::int16_t half;
    std::memcpy(&half, from, sizeof half);
    return _mm256_cvtph_ps(_mm_set1_epi16(half));
}
ZSE_INLINE void store_f16(std::byte* to, Vec v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
/// 8-bit floats (see kv::e4m3) divided by 256: a half has the same fields at the same places, but another bias.
ZSE_INLINE Vec load_e4m3(const std::byte* from) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
    const __m128i moved = _mm_srai_epi16(_mm_unpacklo_epi8(_mm_setzero_si128(), bytes), 1);
    return _mm256_cvtph_ps(_mm_and_si128(moved, _mm_set1_epi16(-0x4001)));
}
ZSE_INLINE Vec load_bf16(const std::byte* from) {
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}

ZSE_INLINE Int broadcast_int(std::int32_t value) { return {_mm256_set1_epi32(value)}; }
ZSE_INLINE Int add(Int a, Int b) { return {_mm256_add_epi32(a.v, b.v)}; }
ZSE_INLINE Int sub(Int a, Int b) { return {_mm256_sub_epi32(a.v, b.v)}; }
ZSE_INLINE Vec to_float(Int i) { return _mm256_cvtepi32_ps(i.v); }
ZSE_INLINE Int to_int(Vec v) { return {_mm256_cvtps_epi32(v)}; }
ZSE_INLINE Int half_of(Int i) { return {_mm256_srai_epi32(i.v, 1)}; }
ZSE_INLINE Vec power_of_two(Int i) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(i.v, _mm256_set1_epi32(127)), 23));
}
ZSE_INLINE Int load_s8(const std::int8_t* from) {
    return {_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)))};
}
ZSE_INLINE Int load_u8(const std::uint8_t* from) {
    return {_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)))};
}
/// For values -128..127.
ZSE_INLINE void store_s8(std::int8_t* to, Int i) {
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(i.v), _mm256_extracti128_si256(i.v, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm_packs_epi16(words, words));
}
template <int Bits>
ZSE_INLINE Int shift_right(Int i) {
    return {_mm256_srli_epi32(i.v, Bits)};
}
ZSE_INLINE Int bit_and(Int a, Int b) { return {_mm256_and_si256(a.v, b.v)}; }
ZSE_INLINE Int as_int(Vec v) { return {_mm256_castps_si256(v)}; }
ZSE_INLINE Vec as_float(Int i) { return _mm256_castsi256_ps(i.v); }
ZSE_INLINE Int low_four(Int i) { return {_mm256_and_si256(i.v, _mm256_set1_epi32(15))}; }
ZSE_INLINE Int high_four(Int i) { return {_mm256_srli_epi32(i.v, 4)}; }

ZSE_INLINE float sum(Vec v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
ZSE_INLINE float greatest(Vec v) {
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}
/// Of magnitudes.
ZSE_INLINE float greatest_magnitude(Vec v) {
    const __m256i i = _mm256_castps_si256(v);
    __m128i s = _mm_max_epi32(_mm256_castsi256_si128(i), _mm256_extracti128_si256(i, 1));
    s = _mm_max_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_cvtss_f32(_mm_castsi128_ps(_mm_max_epi32(s, _mm_shuffle_epi32(s, 0xb1))));
}
ZSE_INLINE std::int32_t sum(Int i) {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(i.v), _mm256_extracti128_si256(i.v, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

ZSE_INLINE Codes load_codes(const std::byte* from) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
}
ZSE_INLINE Codes four_bytes(const std::int8_t* from) {
    std::int32_t word;
    std::memcpy(&word, from, sizeof word);
    return _mm256_set1_epi32(word);
}
ZSE_INLINE Codes low_nibbles(Codes c) { return _mm256_and_si256(c, _mm256_set1_epi8(15)); }
ZSE_INLINE Codes high_nibbles(Codes c) {
    return _mm256_and_si256(_mm256_srli_epi16(c, 4), _mm256_set1_epi8(15));
}
ZSE_INLINE Codes look_up(Codes c, const std::int8_t* table) {
    const __m128i entries = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table));
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(entries), c);
}

struct Sum4 {
    using Weights = Codes;
    __m256i halves;
    std::int32_t start;

    ZSE_INLINE static Weights weights(Codes c) { return c; }
    ZSE_INLINE void begin(std::int32_t first, std::int32_t /*activations*/) {
        halves = _mm256_setzero_si256();
        start = first;
    }
    ZSE_INLINE void step(Weights w, Codes x) {
        halves = _mm256_add_epi16(halves, _mm256_maddubs_epi16(w, x));
    }
    ZSE_INLINE Int total() const {
        const __m256i words = _mm256_madd_epi16(halves, _mm256_set1_epi16(1));
        return {_mm256_add_epi32(words, _mm256_set1_epi32(start))};
    }
};
struct Sum8 {
    struct Weights {
        Codes magnitude;
        Codes codes;
    };
    __m256i sums;

    ZSE_INLINE static Weights weights(Codes c) { return {_mm256_abs_epi8(c), c}; }
    ZSE_INLINE void begin(std::int32_t first, std::int32_t /*activations*/) {
        sums = _mm256_set1_epi32(first);
    }
    ZSE_INLINE void step(Weights w, Codes x) {
        const __m256i pairs = _mm256_maddubs_epi16(w.magnitude, _mm256_sign_epi8(x, w.codes));
        sums = _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
    ZSE_INLINE Int total() const { return {sums}; }
};
