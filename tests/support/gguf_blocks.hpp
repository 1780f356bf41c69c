// SPDX-License-Identifier: Apache-2.0
// Plain encoders from float rows to GGUF element types, written apart from zse's codecs so that tests check
// those.
#pragma once

#include <zse/core/dtype.hpp>
#include <zse/io/ggml_type.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <stdexcept>
#include <vector>

namespace support {
namespace detail {

template <class T>
void put(std::vector<std::byte>& bytes, const T& value) {
    const std::size_t at = bytes.size();
    bytes.resize(at + sizeof value);
    std::memcpy(bytes.data() + at, &value, sizeof value);
}

inline void put_nibbles(std::vector<std::byte>& bytes, const int (&codes)[32]) {
    for (std::size_t i = 0; i < 16; ++i)
        put(bytes, static_cast<std::uint8_t>(codes[i] | (codes[i + 16] << 4)));
}

/// d * (q - 8): the value of greatest magnitude becomes code 0.
inline void put_q4_0(std::vector<std::byte>& bytes, const float* values) {
    const float peak =
        *std::max_element(values, values + 32, [](float a, float b) { return std::abs(a) < std::abs(b); });
    const float scale = peak / -8.0f;
    const float inverse = scale != 0.0f ? 1.0f / scale : 0.0f;
    int codes[32];
    for (int i = 0; i < 32; ++i) codes[i] = std::min(15, static_cast<int>(values[i] * inverse + 8.5f));
    put(bytes, zse::f16(scale));
    put_nibbles(bytes, codes);
}

/// d * q + m: least and greatest value become codes 0 and 15.
inline void put_q4_1(std::vector<std::byte>& bytes, const float* values) {
    const auto [low, high] = std::minmax_element(values, values + 32);
    const float scale = (*high - *low) / 15.0f;
    const float inverse = scale != 0.0f ? 1.0f / scale : 0.0f;
    int codes[32];
    for (int i = 0; i < 32; ++i)
        codes[i] = std::min(15, static_cast<int>((values[i] - *low) * inverse + 0.5f));
    put(bytes, zse::f16(scale));
    put(bytes, zse::f16(*low));
    put_nibbles(bytes, codes);
}

/// d * q with q in -127 ... 127.
inline void put_q8_0(std::vector<std::byte>& bytes, const float* values) {
    float peak = 0.0f;
    for (int i = 0; i < 32; ++i) peak = std::max(peak, std::abs(values[i]));
    const float scale = peak / 127.0f;
    const float inverse = scale != 0.0f ? 1.0f / scale : 0.0f;
    put(bytes, zse::f16(scale));
    for (int i = 0; i < 32; ++i) put(bytes, static_cast<std::int8_t>(std::round(values[i] * inverse)));
}

}  // namespace detail

/// The bytes of `values` stored as `type` (f32, f16, bf16, q4_0, q4_1, q8_0), rounding to nearest.
/// Throws std::invalid_argument for another type, or where rows of `columns` do not fill whole blocks.
inline std::vector<std::byte> encode_blocks(zse::io::GgmlType type, std::span<const float> values,
                                            std::size_t columns) {
    using zse::io::GgmlType;
    const std::size_t block = zse::io::block_elements(type);
    if (block == 0 || columns % block != 0 || columns == 0 || values.size() % columns != 0) {
        throw std::invalid_argument("encode_blocks: rows do not fill whole blocks");
    }
    std::vector<std::byte> bytes;
    bytes.reserve(values.size() / block * zse::io::block_bytes(type));
    for (std::size_t i = 0; i < values.size(); i += block) {
        const float* const at = values.data() + i;
        switch (type) {
            case GgmlType::f32: detail::put(bytes, *at); break;
            case GgmlType::f16: detail::put(bytes, zse::f16(*at)); break;
            case GgmlType::bf16: detail::put(bytes, zse::bf16(*at)); break;
            case GgmlType::q4_0: detail::put_q4_0(bytes, at); break;
            case GgmlType::q4_1: detail::put_q4_1(bytes, at); break;
            case GgmlType::q8_0: detail::put_q8_0(bytes, at); break;
            default: throw std::invalid_argument("encode_blocks: no encoder for this type");
        }
    }
    return bytes;
}

}  // namespace support
