// SPDX-License-Identifier: Apache-2.0
// One instruction set's vectors, and what is the same for all. See vector.hpp.
namespace zse::inline v1 {
namespace kernels {
namespace ZSE_ISA {

#include ZSE_ISA_VECTORS

inline constexpr Isa isa = Isa::ZSE_ISA;
/// Vectors that hold a group of 16 rows.
inline constexpr std::size_t row_vectors = 16 / lanes;

/// The same pointer, of which the compiler knows nothing more. In an unrolled loop it keeps one pointer with constant
/// offsets; g++ 12 otherwise keeps one pointer for each offset, on the stack.
template <class T>
ZSE_INLINE T* opaque(T* pointer) {
    __asm__("" : "+r"(pointer));
    return pointer;
}

/// `count` floats, zeros above.
ZSE_INLINE Vec load_up_to(const float* from, std::size_t count) {
    if (count >= lanes) return load(from);
    float whole[lanes]{};
    std::memcpy(whole, from, count * sizeof(float));
    return load(whole);
}
/// Stores the first `count` lanes.
ZSE_INLINE void store_up_to(float* to, Vec v, std::size_t count) {
    if (count >= lanes) return store(to, v);
    float whole[lanes];
    store(whole, v);
    std::memcpy(to, whole, count * sizeof(float));
}

/// v in steps, as codes -127..127. The bounds are for what is no number, which scales keep; they also keep 127.5 out.
ZSE_INLINE Int code_of(Vec v, Vec steps) {
    return to_int(min(max(mul(v, steps), broadcast(-127.0f)), broadcast(127.0f)));
}

/// e^v, 0 for values below -104 and for minus infinity, no number for what is none; within 2 units in the last place.
/// By e^v = 2^n e^r with |r| <= ln(2) / 2 (Cody and Waite's reduction) and a polynomial for e^r.
ZSE_INLINE Vec exp(Vec v) {
    // In this order what is no number stays: where one operand is none, x86 takes the second.
    v = min(broadcast(88.7f), max(broadcast(-110.0f), v));
    const Int n = to_int(mul(v, broadcast(0x1.715476p0f)));
    Vec r = fma(to_float(n), broadcast(-0x1.62e4p-1f), v);
    r = fma(to_float(n), broadcast(-0x1.7f7d1cp-20f), r);
    Vec p = broadcast(0x1.a01a02p-13f);
    p = fma(p, r, broadcast(0x1.6c16c2p-10f));
    p = fma(p, r, broadcast(0x1.111112p-7f));
    p = fma(p, r, broadcast(0x1.555556p-5f));
    p = fma(p, r, broadcast(0x1.555556p-3f));
    p = fma(p, r, broadcast(0.5f));
    p = fma(p, r, broadcast(1.0f));
    p = fma(p, r, broadcast(1.0f));
    // In two factors: 2^n alone would leave the exponents that a float has.
    const Int half = half_of(n);
    return mul(mul(p, power_of_two(half)), power_of_two(sub(n, half)));
}

}  // namespace ZSE_ISA
}  // namespace kernels
}  // namespace zse::inline v1
