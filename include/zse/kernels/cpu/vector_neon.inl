// SPDX-License-Identifier: Apache-2.0
// Armv8.2 with dot products and half precision. See vector.hpp.

inline constexpr std::size_t lanes = 4;
inline constexpr std::size_t registers = 32;

using Vec = float32x4_t;
using Int = int32x4_t;
using Codes = int8x16_t;

ZSE_INLINE Vec zero() { return vdupq_n_f32(0); }
ZSE_INLINE Vec broadcast(float value) { return vdupq_n_f32(value); }
ZSE_INLINE Vec load(const float* from) { return vld1q_f32(from); }
ZSE_INLINE void store(float* to, Vec v) { vst1q_f32(to, v); }
ZSE_INLINE Vec add(Vec a, Vec b) { return vaddq_f32(a, b); }
ZSE_INLINE Vec sub(Vec a, Vec b) { return vsubq_f32(a, b); }
ZSE_INLINE Vec mul(Vec a, Vec b) { return vmulq_f32(a, b); }
ZSE_INLINE Vec div(Vec a, Vec b) { return vdivq_f32(a, b); }
ZSE_INLINE Vec fma(Vec a, Vec b, Vec c) { return vfmaq_f32(c, a, b); }
ZSE_INLINE Vec max(Vec a, Vec b) { return vmaxq_f32(a, b); }
ZSE_INLINE Vec min(Vec a, Vec b) { return vminq_f32(a, b); }
ZSE_INLINE Vec abs(Vec v) { return vabsq_f32(v); }
ZSE_INLINE Vec max_magnitude(Vec most, Vec v) { return vmaxq_f32(most, vabsq_f32(v)); }
ZSE_INLINE Vec swap_pairs(Vec v) { return vrev64q_f32(v); }
template <std::size_t Distance>
ZSE_INLINE Vec swap_lanes(Vec v) {
    return Distance == 2 ? vextq_f32(v, v, 2) : vrev64q_f32(v);
}
ZSE_INLINE Vec if_negative(Vec test, Vec yes, Vec no) {
    const uint32x4_t negative = vcltq_s32(vreinterpretq_s32_f32(test), vdupq_n_s32(0));
    return vbslq_f32(negative, yes, no);
}

ZSE_INLINE Vec load_f16(const std::byte* from) {
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(reinterpret_cast<const std::uint16_t*>(from))));
}
ZSE_INLINE Vec broadcast_f16(const std::byte* from) {
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_dup_u16(reinterpret_cast<const std::uint16_t*>(from))));
}
ZSE_INLINE void store_f16(std::byte* to, Vec v) {
    vst1_u16(reinterpret_cast<std::uint16_t*>(to), vreinterpret_u16_f16(vcvt_f16_f32(v)));
}
/// 8-bit floats (see kv::e4m3) divided by 256: a half has the same fields at the same places, but another bias.
ZSE_INLINE Vec load_e4m3(const std::byte* from) {
    std::uint32_t word;
    std::memcpy(&word, from, sizeof word);
    const uint16x8_t bytes = vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(word)));
    const int16x4_t moved = vshr_n_s16(vreinterpret_s16_u16(vshl_n_u16(vget_low_u16(bytes), 8)), 1);
    return vcvt_f32_f16(vreinterpret_f16_s16(vand_s16(moved, vdup_n_s16(-0x4001))));
}
ZSE_INLINE Vec load_bf16(const std::byte* from) {
    const uint32x4_t words = vmovl_u16(vld1_u16(reinterpret_cast<const std::uint16_t*>(from)));
    return vreinterpretq_f32_u32(vshlq_n_u32(words, 16));
}

ZSE_INLINE Int broadcast_int(std::int32_t value) { return vdupq_n_s32(value); }
ZSE_INLINE Int add(Int a, Int b) { return vaddq_s32(a, b); }
ZSE_INLINE Int sub(Int a, Int b) { return vsubq_s32(a, b); }
ZSE_INLINE Vec to_float(Int i) { return vcvtq_f32_s32(i); }
ZSE_INLINE Int to_int(Vec v) { return vcvtnq_s32_f32(v); }
ZSE_INLINE Int half_of(Int i) { return vshrq_n_s32(i, 1); }
ZSE_INLINE Vec power_of_two(Int i) {
    return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(i, vdupq_n_s32(127)), 23));
}
ZSE_INLINE Int load_s8(const std::int8_t* from) {
    std::int32_t word;
    std::memcpy(&word, from, sizeof word);
    const int8x8_t bytes = vreinterpret_s8_s32(vdup_n_s32(word));
    return vmovl_s16(vget_low_s16(vmovl_s8(bytes)));
}
ZSE_INLINE Int load_u8(const std::uint8_t* from) {
    std::uint32_t word;
    std::memcpy(&word, from, sizeof word);
    const uint8x8_t bytes = vreinterpret_u8_u32(vdup_n_u32(word));
    return vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(bytes))));
}
ZSE_INLINE void store_s8(std::int8_t* to, Int i) {
    const int16x4_t words = vmovn_s32(i);
    const int8x8_t bytes = vmovn_s16(vcombine_s16(words, words));
    const std::int32_t word = vget_lane_s32(vreinterpret_s32_s8(bytes), 0);
    std::memcpy(to, &word, sizeof word);
}
template <int Bits>
ZSE_INLINE Int shift_right(Int i) {
    return vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_s32(i), Bits));
}
ZSE_INLINE Int bit_and(Int a, Int b) { return vandq_s32(a, b); }
ZSE_INLINE Int as_int(Vec v) { return vreinterpretq_s32_f32(v); }
ZSE_INLINE Vec as_float(Int i) { return vreinterpretq_f32_s32(i); }
ZSE_INLINE Int low_four(Int i) { return vandq_s32(i, vdupq_n_s32(15)); }
ZSE_INLINE Int high_four(Int i) { return vshrq_n_s32(i, 4); }

ZSE_INLINE float sum(Vec v) { return vaddvq_f32(v); }
ZSE_INLINE float greatest(Vec v) { return vmaxvq_f32(v); }
ZSE_INLINE float greatest_magnitude(Vec v) { return vmaxvq_f32(v); }
ZSE_INLINE std::int32_t sum(Int i) { return vaddvq_s32(i); }

ZSE_INLINE Codes load_codes(const std::byte* from) {
    return vld1q_s8(reinterpret_cast<const std::int8_t*>(from));
}
ZSE_INLINE Codes four_bytes(const std::int8_t* from) {
    std::int32_t word;
    std::memcpy(&word, from, sizeof word);
    return vreinterpretq_s8_s32(vdupq_n_s32(word));
}
ZSE_INLINE Codes low_nibbles(Codes c) { return vandq_s8(c, vdupq_n_s8(15)); }
ZSE_INLINE Codes high_nibbles(Codes c) {
    return vreinterpretq_s8_u8(vshrq_n_u8(vreinterpretq_u8_s8(c), 4));
}
ZSE_INLINE Codes look_up(Codes c, const std::int8_t* table) {
    return vqtbl1q_s8(vld1q_s8(table), vreinterpretq_u8_s8(c));
}

/// Signed products fit codes of both kinds.
struct Sum8 {
    using Weights = Codes;
    Int sums;

    ZSE_INLINE static Weights weights(Codes c) { return c; }
    ZSE_INLINE void begin(std::int32_t first, std::int32_t /*activations*/) { sums = broadcast_int(first); }
    ZSE_INLINE void step(Weights w, Codes x) { sums = vdotq_s32(sums, w, x); }
    ZSE_INLINE Int total() const { return sums; }
};
using Sum4 = Sum8;
