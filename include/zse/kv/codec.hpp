// SPDX-License-Identifier: Apache-2.0
// What a KV codec is: one token of one head, coded without state; and the codecs f32, f16, int8 and int4.
#pragma once

#include <zse/core/bytes.hpp>
#include <zse/core/dtype.hpp>
#include <zse/policy/family.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

namespace zse::inline v1 {
namespace kv {

/// A row is one token of one head, `[dim]` float32. Codes and scales lie apart, so that each part of a page
/// is dense. `rotates` says that rows are turned by a Hadamard matrix before they are coded: queries (for
/// keys) and outputs (for values) have to be turned as well. `piece` is how many bytes of a token's codes stay together
/// where the tokens of a page are interleaved (see PageLayout): what one vector lane reads at once.
// clang-format off
template <class C>
concept KvCodec = requires(const float* row, std::byte* codes, std::byte* scales, const std::byte* stored,
                           float* out, std::size_t dim) {
    { C::code_bytes(dim) } noexcept -> std::same_as<Bytes>;
    { C::scale_bytes(dim) } noexcept -> std::same_as<Bytes>;
    { C::encode(row, dim, codes, scales) } noexcept;
    { C::decode(stored, stored, dim, out) } noexcept;
    { C::rotates } -> std::convertible_to<bool>;
    { C::group } -> std::convertible_to<std::size_t>;
    { C::piece } -> std::convertible_to<std::size_t>;
};
// clang-format on

/// The side of the Hadamard matrix that turns rows of `dim`: its greatest power-of-two divisor, at most 512.
constexpr std::size_t rotation_block(std::size_t dim) noexcept {
    std::size_t block = 1;
    while (block < 512 && dim % (block * 2) == 0) block *= 2;
    return block;
}

/// Turns a row in place by an orthonormal Hadamard matrix, block by block. It is its own inverse.
inline void rotate(float* row, std::size_t dim) noexcept {
    const std::size_t block = rotation_block(dim);
    const float norm = 1.0f / std::sqrt(static_cast<float>(block));
    for (std::size_t first = 0; first < dim; first += block) {
        float* part = row + first;
        for (std::size_t half = 1; half < block; half *= 2) {
            for (std::size_t i = 0; i < block; i += 2 * half) {
                for (std::size_t j = i; j < i + half; ++j) {
                    const float a = part[j];
                    const float b = part[j + half];
                    part[j] = a + b;
                    part[j + half] = a - b;
                }
            }
        }
        for (std::size_t i = 0; i < block; ++i) part[i] *= norm;
    }
}

/// A choice for kv::int8 and kv::int4: rows are turned before they are coded, or not.
struct rotated {
    static constexpr bool value = true;
    static constexpr policy::Sentence suffix{", kv::rotated"};
};
struct plain {
    static constexpr bool value = false;
    static constexpr policy::Sentence suffix{", kv::plain"};
};

namespace detail {

/// Values without scales.
template <class T>
struct Dense {
    static constexpr auto policy_family = policy::Family::kv;
    static constexpr bool rotates = false;
    static constexpr std::size_t group = 1;
    static constexpr std::size_t piece = sizeof(T);

    static constexpr Bytes code_bytes(std::size_t dim) noexcept { return dim * sizeof(T); }
    static constexpr Bytes scale_bytes(std::size_t /*dim*/) noexcept { return 0; }
    static void encode(const float* row, std::size_t dim, std::byte* codes, std::byte* /*scales*/) noexcept {
        for (std::size_t i = 0; i < dim; ++i) {
            const T value(row[i]);
            std::memcpy(codes + i * sizeof(T), &value, sizeof value);
        }
    }
    static void decode(const std::byte* codes, const std::byte* /*scales*/, std::size_t dim,
                       float* row) noexcept {
        for (std::size_t i = 0; i < dim; ++i) {
            T value{};
            std::memcpy(&value, codes + i * sizeof(T), sizeof value);
            row[i] = static_cast<float>(value);
        }
    }
};

inline float load_scale(const std::byte* scales, std::size_t group) noexcept {
    v1::f16 scale;
    std::memcpy(&scale, scales + group * sizeof scale, sizeof scale);
    return static_cast<float>(scale);
}

/// Stores the scale and returns what a reader will see: codes are chosen for the rounded scale. A group with a value
/// that is no number, or is too large, has a scale that is none: so has all that is computed from it.
inline float store_scale(std::byte* scales, std::size_t group, float value) noexcept {
    v1::f16 scale(value);
    if (!std::isfinite(static_cast<float>(scale))) scale = v1::f16(std::numeric_limits<float>::quiet_NaN());
    std::memcpy(scales + group * sizeof scale, &scale, sizeof scale);
    return static_cast<float>(scale);
}

/// Compared as integers, in whose order what is no number comes after infinity.
inline float greatest_magnitude(const float* values, std::size_t count) noexcept {
    std::uint32_t greatest = 0;
    for (std::size_t i = 0; i < count; ++i) {
        greatest = std::max(greatest, std::bit_cast<std::uint32_t>(values[i]) & 0x7fffffffu);
    }
    return std::bit_cast<float>(greatest);
}

template <std::size_t Group>
constexpr bool is_group = Group == 16 || Group == 32 || Group == 64 || Group == 128;

}  // namespace detail

struct f32 : detail::Dense<float> {
    static constexpr policy::Sentence spelling{"kv::f32"};
    static constexpr std::string_view name = "f32";
};

/// The default.
struct f16 : detail::Dense<v1::f16> {
    static constexpr policy::Sentence spelling{"kv::f16"};
    static constexpr std::string_view name = "f16";
};

/// Symmetric 8-bit codes, one half-precision scale for `Group` values: 8 + 16 / Group bits per value.
template <std::size_t Group = 32, class Rotation = rotated>
struct int8 {
    static_assert(policy::require<"zse: kv::int8<" + policy::decimal<Group>() +
                                      "> needs a group of 16, 32, 64 or 128 values; use kv::int8<32>",
                                  detail::is_group<Group>>());
    static constexpr auto policy_family = policy::Family::kv;
    static constexpr auto spelling = "kv::int8<" + policy::decimal<Group>() + Rotation::suffix + ">";
    static constexpr std::string_view name = Rotation::value ? "int8" : "int8-plain";
    static constexpr bool rotates = Rotation::value;
    static constexpr std::size_t group = Group;
    static constexpr std::size_t piece = 4;

    static constexpr Bytes code_bytes(std::size_t dim) noexcept { return dim; }
    static constexpr Bytes scale_bytes(std::size_t dim) noexcept { return dim / Group * sizeof(v1::f16); }

    static void encode(const float* row, std::size_t dim, std::byte* codes, std::byte* scales) noexcept {
        for (std::size_t g = 0; g < dim / Group; ++g) {
            const float* values = row + g * Group;
            const float scale =
                detail::store_scale(scales, g, detail::greatest_magnitude(values, Group) / 127.0f);
            if (!std::isfinite(scale)) {
                std::memset(codes + g * Group, 0, Group);
                continue;
            }
            const float inverse = scale > 0 ? 1.0f / scale : 0.0f;
            for (std::size_t i = 0; i < Group; ++i) {
                const float code = std::clamp(std::nearbyintf(values[i] * inverse), -127.0f, 127.0f);
                codes[g * Group + i] = static_cast<std::byte>(static_cast<std::int8_t>(code));
            }
        }
    }
    static void decode(const std::byte* codes, const std::byte* scales, std::size_t dim,
                       float* row) noexcept {
        for (std::size_t i = 0; i < dim; ++i) {
            row[i] = detail::load_scale(scales, i / Group) *
                     static_cast<float>(static_cast<std::int8_t>(codes[i]));
        }
    }
};

/// 4-bit codes, value = scale * (code - 8), one half-precision scale for `Group` values: 4 + 16 / Group bits
/// per value. Byte j of a group holds value j below and value j + Group / 2 above. The scale is the one of a few
/// candidates, each refitted by least squares, that leaves the least squared error.
template <std::size_t Group = 32, class Rotation = rotated>
struct int4 {
    static_assert(policy::require<"zse: kv::int4<" + policy::decimal<Group>() +
                                      "> needs a group of 16, 32, 64 or 128 values; use kv::int4<32>",
                                  detail::is_group<Group>>());
    static constexpr auto policy_family = policy::Family::kv;
    static constexpr auto spelling = "kv::int4<" + policy::decimal<Group>() + Rotation::suffix + ">";
    static constexpr std::string_view name = Rotation::value ? "int4" : "int4-plain";
    static constexpr bool rotates = Rotation::value;
    static constexpr std::size_t group = Group;
    static constexpr std::size_t piece = 4;

    static constexpr Bytes code_bytes(std::size_t dim) noexcept { return dim / 2; }
    static constexpr Bytes scale_bytes(std::size_t dim) noexcept { return dim / Group * sizeof(v1::f16); }

    static void encode(const float* row, std::size_t dim, std::byte* codes, std::byte* scales) noexcept {
        for (std::size_t g = 0; g < dim / Group; ++g) {
            const float* values = row + g * Group;
            const float scale = detail::store_scale(scales, g, fitted_scale(values));
            std::byte* bytes = codes + g * Group / 2;
            if (!std::isfinite(scale)) {
                std::memset(bytes, 0, Group / 2);
                continue;
            }
            const float inverse = scale != 0 ? 1.0f / scale : 0.0f;
            for (std::size_t j = 0; j < Group / 2; ++j) {
                const auto low = static_cast<unsigned>(nearest_step(values[j] * inverse) + 8.0f);
                const auto high = static_cast<unsigned>(nearest_step(values[j + Group / 2] * inverse) + 8.0f);
                bytes[j] = static_cast<std::byte>(low | high << 4);
            }
        }
    }
    static void decode(const std::byte* codes, const std::byte* scales, std::size_t dim,
                       float* row) noexcept {
        for (std::size_t g = 0; g < dim / Group; ++g) {
            const float scale = detail::load_scale(scales, g);
            for (std::size_t j = 0; j < Group / 2; ++j) {
                const auto code = static_cast<unsigned>(codes[g * Group / 2 + j]);
                row[g * Group + j] = scale * (static_cast<float>(code & 0x0fu) - 8.0f);
                row[g * Group + j + Group / 2] = scale * (static_cast<float>(code >> 4u) - 8.0f);
            }
        }
    }

    // The choice of a scale is made on whole numbers up to `grid`, whose sums float32 holds exactly: so every
    // instruction set, in whatever order it adds, makes the same choice.
    static constexpr float grid = 16384;
    /// Steps from zero to the greatest magnitude, which lies at code 0 (-8) or beyond it. Finer or wider ones gain less
    /// than 1 % of the squared error of normal values.
    static constexpr float candidates[] = {7.25f, 7.75f, 8.25f, 8.75f};
    static constexpr float least = 0x1p-40f;  ///< scales of smaller groups round to zero

    /// Keeps the better of a fit and the best so far. The scale products / squares leaves the squared error that there is
    /// without codes, less products^2 / squares.
    static constexpr void take_better(float products, float squares, float& best, float& fitted) noexcept {
        const float gain = products * products / squares;
        if (gain > best) {
            best = gain;
            fitted = products / squares;
        }
    }

private:
    static float nearest_step(float value) noexcept {
        return std::clamp(std::nearbyintf(value), -8.0f, 7.0f);
    }
    static float fitted_scale(const float* values) noexcept {
        const float most = detail::greatest_magnitude(values, Group);
        if (!(most >= least)) return most == most ? 0.0f : most;
        if (!std::isfinite(most)) return most;
        // The greatest goes to the side that has eight steps.
        const float sign = *std::max_element(values, values + Group) == most ? -1.0f : 1.0f;
        const float factor = sign * (grid / most);
        float whole[Group];
        for (std::size_t i = 0; i < Group; ++i) whole[i] = std::nearbyintf(values[i] * factor);
        float best = -1;
        float fitted = 0;
        for (const float steps : candidates) {
            float products = 0;
            float squares = 0;
            for (std::size_t i = 0; i < Group; ++i) {
                const float step = nearest_step(whole[i] * (steps / grid));
                products += whole[i] * step;
                squares += step * step;
            }
            take_better(products, squares, best, fitted);
        }
        return fitted * (sign * (most / grid));
    }
};

/// Keys in one codec, values in another: pair<int8<>, int4<>> is what others call K8V4.
template <KvCodec K, KvCodec V>
struct pair {
    static constexpr auto policy_family = policy::Family::kv;
    static constexpr auto spelling = "kv::pair<" + K::spelling + ", " + V::spelling + ">";
    using Key = K;
    using Value = V;
};

/// The canonical form of a KV policy: a codec alone means both keys and values.
template <class P>
struct Canonical {
    using type = pair<P, P>;
};
template <class K, class V>
struct Canonical<pair<K, V>> {
    using type = pair<K, V>;
};

static_assert(KvCodec<f32> && KvCodec<f16> && KvCodec<int8<>> && KvCodec<int4<>>);

}  // namespace kv
}  // namespace zse::inline v1
