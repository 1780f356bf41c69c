// SPDX-License-Identifier: Apache-2.0
// Vectors of four in the compilers' own vector types, which become what the program's level has. See vector.hpp.

inline constexpr std::size_t lanes = 4;
inline constexpr std::size_t registers = 16;

using Vec = float __attribute__((vector_size(16)));
using Int = std::int32_t __attribute__((vector_size(16)));
using Codes = std::int8_t __attribute__((vector_size(16)));

ZSE_INLINE Vec broadcast(float value) { return Vec{value, value, value, value}; }
ZSE_INLINE Vec zero() { return broadcast(0); }
ZSE_INLINE Vec load(const float* from) {
    Vec v;
    std::memcpy(&v, from, sizeof v);
    return v;
}
ZSE_INLINE void store(float* to, Vec v) { std::memcpy(to, &v, sizeof v); }
ZSE_INLINE Vec add(Vec a, Vec b) { return a + b; }
ZSE_INLINE Vec sub(Vec a, Vec b) { return a - b; }
ZSE_INLINE Vec mul(Vec a, Vec b) { return a * b; }
ZSE_INLINE Vec div(Vec a, Vec b) { return a / b; }
/// Two roundings: without the instruction, one costs a call.
ZSE_INLINE Vec fma(Vec a, Vec b, Vec c) { return a * b + c; }
ZSE_INLINE Vec max(Vec a, Vec b) { return a > b ? a : b; }
ZSE_INLINE Vec min(Vec a, Vec b) { return a < b ? a : b; }
ZSE_INLINE Vec abs(Vec v) {
    return std::bit_cast<Vec>(std::bit_cast<Int>(v) & Int{0x7fffffff, 0x7fffffff, 0x7fffffff, 0x7fffffff});
}
/// As integers, in whose order what is no number comes after infinity.
ZSE_INLINE Vec max_magnitude(Vec most, Vec v) {
    const auto a = std::bit_cast<Int>(most);
    const auto b = std::bit_cast<Int>(abs(v));
    return std::bit_cast<Vec>(a > b ? a : b);
}
ZSE_INLINE Vec swap_pairs(Vec v) { return __builtin_shufflevector(v, v, 1, 0, 3, 2); }
template <std::size_t Distance>
ZSE_INLINE Vec swap_lanes(Vec v) {
    return Distance == 2 ? __builtin_shufflevector(v, v, 2, 3, 0, 1) : swap_pairs(v);
}
ZSE_INLINE Vec if_negative(Vec test, Vec yes, Vec no) { return std::bit_cast<Int>(test) < Int{} ? yes : no; }

template <class T>
ZSE_INLINE Vec load_as(const std::byte* from) {
    T values[lanes];
    std::memcpy(values, from, sizeof values);
    return Vec{static_cast<float>(values[0]), static_cast<float>(values[1]), static_cast<float>(values[2]),
               static_cast<float>(values[3])};
}
ZSE_INLINE Vec load_f16(const std::byte* from) { return load_as<v1::f16>(from); }
ZSE_INLINE Vec load_bf16(const std::byte* from) { return load_as<v1::bf16>(from); }
ZSE_INLINE Vec broadcast_f16(const std::byte* from) {
    v1::f16 value;
    std::memcpy(&value, from, sizeof value);
    return broadcast(static_cast<float>(value));
}
ZSE_INLINE void store_f16(std::byte* to, Vec v) {
    const v1::f16 values[lanes]{v1::f16(v[0]), v1::f16(v[1]), v1::f16(v[2]), v1::f16(v[3])};
    std::memcpy(to, values, sizeof values);
}

/// 8-bit floats (see kv::e4m3) divided by 256: a half has the same fields at the same places, but another bias.
ZSE_INLINE Vec load_e4m3(const std::byte* from) {
    v1::f16 values[lanes];
    for (std::size_t l = 0; l < lanes; ++l) {
        const auto code = static_cast<unsigned>(from[l]);
        values[l].bits = static_cast<std::uint16_t>((code & 0x80u) << 8 | (code & 0x7fu) << 7);
    }
    return load_f16(reinterpret_cast<const std::byte*>(values));
}

ZSE_INLINE Int broadcast_int(std::int32_t value) { return Int{value, value, value, value}; }
ZSE_INLINE Int add(Int a, Int b) { return a + b; }
ZSE_INLINE Int sub(Int a, Int b) { return a - b; }
ZSE_INLINE Vec to_float(Int i) { return __builtin_convertvector(i, Vec); }
/// Adding 1.5 * 2^23 rounds to the nearest integer, ties to even, for magnitudes up to 2^22. The bounds stand between
/// that sum and a product before it: compilers for processors with fused products would round both at once.
ZSE_INLINE Int to_int(Vec v) {
    const Vec bounded = min(max(v, broadcast(-0x1p22f)), broadcast(0x1p22f));
    return __builtin_convertvector((bounded + broadcast(0x1.8p23f)) - broadcast(0x1.8p23f), Int);
}
ZSE_INLINE Int half_of(Int i) { return i >> 1; }
ZSE_INLINE Vec power_of_two(Int i) { return std::bit_cast<Vec>((i + broadcast_int(127)) << 23); }
ZSE_INLINE Int load_s8(const std::int8_t* from) { return Int{from[0], from[1], from[2], from[3]}; }
ZSE_INLINE Int load_u8(const std::uint8_t* from) { return Int{from[0], from[1], from[2], from[3]}; }
ZSE_INLINE void store_s8(std::int8_t* to, Int i) {
    for (std::size_t l = 0; l < lanes; ++l) to[l] = static_cast<std::int8_t>(i[l]);
}
template <int Bits>
ZSE_INLINE Int shift_right(Int i) {
    using Words = std::uint32_t __attribute__((vector_size(16)));
    return std::bit_cast<Int>(std::bit_cast<Words>(i) >> Bits);
}
ZSE_INLINE Int bit_and(Int a, Int b) { return a & b; }
ZSE_INLINE Int as_int(Vec v) { return std::bit_cast<Int>(v); }
ZSE_INLINE Vec as_float(Int i) { return std::bit_cast<Vec>(i); }
ZSE_INLINE Int low_four(Int i) { return i & broadcast_int(15); }
ZSE_INLINE Int high_four(Int i) { return i >> 4; }

ZSE_INLINE float sum(Vec v) { return (v[0] + v[2]) + (v[1] + v[3]); }
ZSE_INLINE float greatest(Vec v) { return std::max(std::max(v[0], v[2]), std::max(v[1], v[3])); }
/// Of magnitudes.
ZSE_INLINE float greatest_magnitude(Vec v) {
    const auto i = std::bit_cast<Int>(v);
    return std::bit_cast<float>(std::max(std::max(i[0], i[2]), std::max(i[1], i[3])));
}
ZSE_INLINE std::int32_t sum(Int i) { return (i[0] + i[2]) + (i[1] + i[3]); }

ZSE_INLINE Codes load_codes(const std::byte* from) {
    Codes c;
    std::memcpy(&c, from, sizeof c);
    return c;
}
ZSE_INLINE Codes four_bytes(const std::int8_t* from) {
    std::int32_t word;
    std::memcpy(&word, from, sizeof word);
    return std::bit_cast<Codes>(broadcast_int(word));
}
/// As 32-bit words, where every processor can shift.
ZSE_INLINE Codes low_nibbles(Codes c) {
    return std::bit_cast<Codes>(std::bit_cast<Int>(c) & broadcast_int(0x0f0f0f0f));
}
ZSE_INLINE Codes high_nibbles(Codes c) {
    return std::bit_cast<Codes>((std::bit_cast<Int>(c) >> 4) & broadcast_int(0x0f0f0f0f));
}
ZSE_INLINE Codes look_up(Codes c, const std::int8_t* table) {
    Codes result;
    for (std::size_t i = 0; i < 4 * lanes; ++i) result[i] = table[c[i]];
    return result;
}

/// In vectors of 16 bits: a product is at most 128 * 127 = 16,256.
struct Sum8 {
    using Words = std::int16_t __attribute__((vector_size(16)));
    struct Weights {
        Words low, high;
    };
    Int sums;

    ZSE_INLINE static Weights weights(Codes c) { return {low_words(c), high_words(c)}; }
    /// Begins at `first`. `activations` is the sum of all activations that will follow.
    ZSE_INLINE void begin(std::int32_t first, std::int32_t /*activations*/) { sums = broadcast_int(first); }
    ZSE_INLINE void step(Weights w, Codes x) {
        const Words four = low_words(x);  // the same four activations twice
        const Int low = pair_sums(w.low * four);
        const Int high = pair_sums(w.high * four);
        sums += __builtin_shufflevector(low, high, 0, 2, 4, 6) + __builtin_shufflevector(low, high, 1, 3, 5, 7);
    }
    ZSE_INLINE Int total() const { return sums; }

private:
    /// Each byte beside itself, shifted down with its sign.
    ZSE_INLINE static Words low_words(Codes c) {
        return std::bit_cast<Words>(
                   __builtin_shufflevector(c, c, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7)) >> 8;
    }
    ZSE_INLINE static Words high_words(Codes c) {
        return std::bit_cast<Words>(
                   __builtin_shufflevector(c, c, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13, 14, 14, 15, 15)) >> 8;
    }
    ZSE_INLINE static Int pair_sums(Words products) {
        const auto both = std::bit_cast<Int>(products);
        return ((both << 16) >> 16) + (both >> 16);
    }
};
using Sum4 = Sum8;
