// SPDX-License-Identifier: Apache-2.0
// Numbers of the kernel vocabulary on the host: halves, bfloats, 8-bit floats, bytes, and functions of float.
#pragma once

#include <zse/core/dtype.hpp>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace zse::inline v1 {
namespace exec {
namespace gpu {

/// What EmulatedThread knows of numbers: see DeviceThread.
struct EmulatedNumbers {
    static std::uint32_t to_halves(float low, float high) noexcept {
        return f16(low).bits | static_cast<std::uint32_t>(f16(high).bits) << 16;
    }
    static std::uint32_t to_bfloats(float low, float high) noexcept {
        return bf16(low).bits | static_cast<std::uint32_t>(bf16(high).bits) << 16;
    }
    static float low(std::uint32_t pair) noexcept { return static_cast<float>(half(pair & 0xffffu)); }
    static float high(std::uint32_t pair) noexcept { return static_cast<float>(half(pair >> 16)); }
    static std::uint32_t half_fma(std::uint32_t a, std::uint32_t b, std::uint32_t c) noexcept {
        // Rounded once: where double does not hold the sum, the product is far less than half a unit of c.
        return to_halves(once(double{low(a)} * double{low(b)} + double{low(c)}),
                         once(double{high(a)} * double{high(b)} + double{high(c)}));
    }
    static std::uint32_t half_add(std::uint32_t a, std::uint32_t b) noexcept {
        return to_halves(low(a) + low(b), high(a) + high(b));
    }
    static std::uint32_t half_mul(std::uint32_t a, std::uint32_t b) noexcept {
        return to_halves(low(a) * low(b), high(a) * high(b));
    }
    static std::uint32_t e4m3_to_halves(std::uint16_t codes) noexcept {
        return to_halves(e4m3(codes & 0xffu), e4m3(static_cast<unsigned>(codes) >> 8));
    }
    static float exp(float v) noexcept { return std::exp(v); }
    static double log(double v) noexcept { return std::log(v); }
    static std::uint32_t pick_bytes(std::uint32_t a, std::uint32_t b, std::uint32_t selector) noexcept {
        const std::uint64_t both = std::uint64_t{b} << 32 | a;
        std::uint32_t picked = 0;
        for (unsigned i = 0; i < 4; ++i) {
            const unsigned from = selector >> (4 * i) & 7u;
            picked |= static_cast<std::uint32_t>(both >> (8 * from) & 0xffu) << (8 * i);
        }
        return picked;
    }
    static std::uint32_t pick_bytes_or_signs(std::uint32_t a, std::uint32_t b,
                                             std::uint32_t selector) noexcept {
        std::uint32_t picked = pick_bytes(a, b, selector);
        for (unsigned i = 0; i < 4; ++i) {
            if ((selector >> (4 * i + 3) & 1u) == 0) continue;
            const std::uint32_t ones = 0xffu << (8 * i);
            picked = (picked >> (8 * i + 7) & 1u) != 0 ? picked | ones : picked & ~ones;
        }
        return picked;
    }
    static float nearest(float v) noexcept { return std::nearbyint(v); }
    static float exp2(float v) noexcept { return std::exp2(v); }
    static float log2(float v) noexcept { return std::log2(v); }
    static float rsqrt(float v) noexcept { return 1.0f / std::sqrt(v); }

private:
    static f16 half(std::uint32_t bits) noexcept {
        return std::bit_cast<f16>(static_cast<std::uint16_t>(bits));
    }
    /// To float by rounding to odd, so that rounding the result to a half is rounding the double.
    static float once(double v) noexcept {
        auto f = static_cast<float>(v);
        const double back = f;
        if (back == v || !std::isfinite(f)) return f;
        auto bits = std::bit_cast<std::uint32_t>(f);
        if ((bits & 1u) == 0) {
            const bool away = std::fabs(back) < std::fabs(v);
            bits = away ? bits + 1 : bits - 1;
        }
        return std::bit_cast<float>(bits);
    }
    static float e4m3(unsigned code) noexcept {
        const unsigned magnitude = code & 0x7fu;
        if (magnitude == 0x7f) return std::numeric_limits<float>::quiet_NaN();
        const float value = magnitude >= 8 ? std::ldexp(static_cast<float>(8 + magnitude % 8),
                                                        static_cast<int>(magnitude / 8) - 10)
                                           : std::ldexp(static_cast<float>(magnitude), -9);
        return (code & 0x80u) != 0 ? -value : value;
    }
};

}  // namespace gpu
}  // namespace exec
}  // namespace zse::inline v1
