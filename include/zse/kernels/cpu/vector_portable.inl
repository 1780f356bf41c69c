// SPDX-License-Identifier: Apache-2.0
// Plain C++ in vectors of four, which compilers turn into what the program's own level has. See vector.hpp.

inline constexpr std::size_t lanes = 4;
inline constexpr std::size_t registers = 16;

struct Vec {
    float at[lanes];
};
struct Int {
    std::int32_t at[lanes];
};
struct Codes {
    std::int8_t at[4 * lanes];
};

template <class To, class Lane>
ZSE_INLINE To each(const Lane& lane) {
    To result;
    for (std::size_t i = 0; i < sizeof result.at / sizeof result.at[0]; ++i) {
        result.at[i] = static_cast<std::remove_reference_t<decltype(result.at[0])>>(lane(i));
    }
    return result;
}

ZSE_INLINE Vec broadcast(float value) {
    return each<Vec>([=](std::size_t) { return value; });
}
ZSE_INLINE Vec zero() { return broadcast(0); }
ZSE_INLINE Vec load(const float* from) {
    return each<Vec>([=](std::size_t i) { return from[i]; });
}
ZSE_INLINE void store(float* to, Vec v) { std::memcpy(to, v.at, sizeof v.at); }
ZSE_INLINE Vec add(Vec a, Vec b) {
    return each<Vec>([&](std::size_t i) { return a.at[i] + b.at[i]; });
}
ZSE_INLINE Vec sub(Vec a, Vec b) {
    return each<Vec>([&](std::size_t i) { return a.at[i] - b.at[i]; });
}
ZSE_INLINE Vec mul(Vec a, Vec b) {
    return each<Vec>([&](std::size_t i) { return a.at[i] * b.at[i]; });
}
ZSE_INLINE Vec div(Vec a, Vec b) {
    return each<Vec>([&](std::size_t i) { return a.at[i] / b.at[i]; });
}
/// Two roundings: without the instruction, one costs a call.
ZSE_INLINE Vec fma(Vec a, Vec b, Vec c) { return add(mul(a, b), c); }
ZSE_INLINE Vec max(Vec a, Vec b) {
    return each<Vec>([&](std::size_t i) { return a.at[i] > b.at[i] ? a.at[i] : b.at[i]; });
}
ZSE_INLINE Vec min(Vec a, Vec b) {
    return each<Vec>([&](std::size_t i) { return a.at[i] < b.at[i] ? a.at[i] : b.at[i]; });
}
ZSE_INLINE Vec abs(Vec v) {
    return each<Vec>([&](std::size_t i) { return std::fabs(v.at[i]); });
}
/// As integers, in whose order what is no number comes after infinity.
ZSE_INLINE Vec max_magnitude(Vec most, Vec v) {
    return each<Vec>([&](std::size_t i) {
        const auto a = std::bit_cast<std::int32_t>(most.at[i]);
        const auto b = std::bit_cast<std::int32_t>(std::fabs(v.at[i]));
        return std::bit_cast<float>(a > b ? a : b);
    });
}
ZSE_INLINE Vec swap_pairs(Vec v) {
    return each<Vec>([&](std::size_t i) { return v.at[i ^ 1]; });
}
ZSE_INLINE Vec if_negative(Vec test, Vec yes, Vec no) {
    return each<Vec>([&](std::size_t i) { return std::signbit(test.at[i]) ? yes.at[i] : no.at[i]; });
}

template <class T>
ZSE_INLINE Vec load_as(const std::byte* from) {
    T values[lanes];
    std::memcpy(values, from, sizeof values);
    return each<Vec>([&](std::size_t i) { return static_cast<float>(values[i]); });
}
ZSE_INLINE Vec load_f16(const std::byte* from) { return load_as<v1::f16>(from); }
ZSE_INLINE Vec load_bf16(const std::byte* from) { return load_as<v1::bf16>(from); }
ZSE_INLINE Vec broadcast_f16(const std::byte* from) {
    v1::f16 value;
    std::memcpy(&value, from, sizeof value);
    return broadcast(static_cast<float>(value));
}
ZSE_INLINE void store_f16(std::byte* to, Vec v) {
    for (std::size_t i = 0; i < lanes; ++i) {
        const v1::f16 value(v.at[i]);
        std::memcpy(to + i * sizeof value, &value, sizeof value);
    }
}

ZSE_INLINE Int broadcast_int(std::int32_t value) {
    return each<Int>([=](std::size_t) { return value; });
}
ZSE_INLINE Int add(Int a, Int b) {
    return each<Int>([&](std::size_t i) { return a.at[i] + b.at[i]; });
}
ZSE_INLINE Int sub(Int a, Int b) {
    return each<Int>([&](std::size_t i) { return a.at[i] - b.at[i]; });
}
ZSE_INLINE Vec to_float(Int i) {
    return each<Vec>([&](std::size_t l) { return static_cast<float>(i.at[l]); });
}
ZSE_INLINE Int to_int(Vec v) {
    // Adding 1.5 * 2^23 rounds to the nearest integer, ties to even, for magnitudes up to 2^22.
    return each<Int>([&](std::size_t i) { return static_cast<std::int32_t>((v.at[i] + 0x1.8p23f) - 0x1.8p23f); });
}
ZSE_INLINE Int half_of(Int i) {
    return each<Int>([&](std::size_t l) { return i.at[l] >> 1; });
}
ZSE_INLINE Vec power_of_two(Int i) {
    return each<Vec>([&](std::size_t l) {
        return std::bit_cast<float>(static_cast<std::uint32_t>(i.at[l] + 127) << 23);
    });
}
ZSE_INLINE Int load_s8(const std::int8_t* from) {
    return each<Int>([=](std::size_t i) { return from[i]; });
}
ZSE_INLINE Int load_u8(const std::uint8_t* from) {
    return each<Int>([=](std::size_t i) { return from[i]; });
}
ZSE_INLINE void store_s8(std::int8_t* to, Int i) {
    for (std::size_t l = 0; l < lanes; ++l) to[l] = static_cast<std::int8_t>(i.at[l]);
}
ZSE_INLINE Int low_four(Int i) {
    return each<Int>([&](std::size_t l) { return i.at[l] & 15; });
}
ZSE_INLINE Int high_four(Int i) {
    return each<Int>([&](std::size_t l) { return i.at[l] >> 4; });
}

ZSE_INLINE float sum(Vec v) { return (v.at[0] + v.at[2]) + (v.at[1] + v.at[3]); }
ZSE_INLINE float greatest(Vec v) {
    return std::max(std::max(v.at[0], v.at[2]), std::max(v.at[1], v.at[3]));
}
/// Of magnitudes.
ZSE_INLINE float greatest_magnitude(Vec v) {
    const auto bits = [&](std::size_t i) { return std::bit_cast<std::int32_t>(v.at[i]); };
    return std::bit_cast<float>(std::max(std::max(bits(0), bits(2)), std::max(bits(1), bits(3))));
}
ZSE_INLINE std::int32_t sum(Int i) { return (i.at[0] + i.at[2]) + (i.at[1] + i.at[3]); }

ZSE_INLINE Codes load_codes(const std::byte* from) {
    Codes c;
    std::memcpy(c.at, from, sizeof c.at);
    return c;
}
ZSE_INLINE Codes four_bytes(const std::int8_t* from) {
    return each<Codes>([=](std::size_t i) { return from[i % 4]; });
}
ZSE_INLINE Codes low_nibbles(Codes c) {
    return each<Codes>([&](std::size_t i) { return c.at[i] & 15; });
}
ZSE_INLINE Codes high_nibbles(Codes c) {
    return each<Codes>([&](std::size_t i) { return static_cast<std::uint8_t>(c.at[i]) >> 4; });
}
ZSE_INLINE Codes look_up(Codes c, const std::int8_t* table) {
    return each<Codes>([&](std::size_t i) { return table[c.at[i]]; });
}

/// In vectors of 16 bits: a product is at most 128 * 127 = 16,256.
struct Sum8 {
    using Words = std::int16_t __attribute__((vector_size(16)));
    using Pairs = std::int32_t __attribute__((vector_size(16)));
    struct Weights {
        Words low, high;
    };
    Pairs lanes_;

    ZSE_INLINE static Weights weights(Codes c) { return {widened(c.at), widened(c.at + 8)}; }
    ZSE_INLINE void begin(std::int32_t first, std::int32_t /*activations*/) {
        lanes_ = Pairs{first, first, first, first};
    }
    ZSE_INLINE void step(Weights w, Codes x) {
        const Words four = widened(x.at);  // the same four activations twice
        const Pairs low = pair_sums(w.low * four);
        const Pairs high = pair_sums(w.high * four);
        lanes_ += __builtin_shufflevector(low, high, 0, 2, 4, 6) + __builtin_shufflevector(low, high, 1, 3, 5, 7);
    }
    ZSE_INLINE Int total() const { return std::bit_cast<Int>(lanes_); }

private:
    ZSE_INLINE static Words widened(const std::int8_t* bytes) {
        using Bytes8 = std::int8_t __attribute__((vector_size(8)));
        Bytes8 eight;
        std::memcpy(&eight, bytes, sizeof eight);
        return __builtin_convertvector(eight, Words);
    }
    ZSE_INLINE static Pairs pair_sums(Words products) {
        const auto both = std::bit_cast<Pairs>(products);
        return ((both << 16) >> 16) + (both >> 16);
    }
};
using Sum4 = Sum8;
