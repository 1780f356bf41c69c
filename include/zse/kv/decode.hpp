// SPDX-License-Identifier: Apache-2.0
// Vector decoding of cached tokens, bit for bit as the codecs' own decode.
#pragma once

#include <zse/kernels/cpu/unpack.hpp>
#include <zse/kv/codec.hpp>

#include <cstring>

namespace zse::inline v1 {
namespace kv {
namespace HWY_NAMESPACE {

namespace simd = kernels::HWY_NAMESPACE;
namespace hn = hwy::HWY_NAMESPACE;

/// Rows that the vectors below cannot take whole go through the codec itself.
template <KvCodec C>
HWY_INLINE bool decode_row(const std::byte* /*codes*/, const std::byte* /*scales*/, std::size_t /*dim*/,
                           float* /*row*/, const C* /*codec*/) {
    return false;
}

HWY_INLINE bool decode_row(const std::byte* codes, const std::byte* /*scales*/, std::size_t dim, float* row,
                           const f32* /*codec*/) {
    std::memcpy(row, codes, dim * sizeof(float));
    return true;
}

HWY_INLINE bool decode_row(const std::byte* codes, const std::byte* /*scales*/, std::size_t dim, float* row,
                           const f16* /*codec*/) {
    if (dim % simd::lanes != 0) return false;
    const hn::Rebind<hwy::float16_t, simd::F32> halves;
    for (std::size_t i = 0; i < dim; i += simd::lanes) {
        const auto* at = reinterpret_cast<const hwy::float16_t*>(codes + i * sizeof(v1::f16));
        hn::StoreU(hn::PromoteTo(simd::f32_tag, hn::LoadU(halves, at)), simd::f32_tag, row + i);
    }
    return true;
}

template <std::size_t Group>
HWY_INLINE bool decode_row(const std::byte* codes, const std::byte* scales, std::size_t dim, float* row,
                           const int8<Group>* /*codec*/) {
    for (std::size_t g = 0; g < dim; g += Group) {
        const auto scale = simd::half_scale(scales + g / Group * sizeof(v1::f16));
        for (std::size_t i = g; i < g + Group; i += simd::lanes) {
            const auto steps = simd::widen_signed(reinterpret_cast<const std::int8_t*>(codes + i));
            hn::StoreU(hn::Mul(scale, hn::ConvertTo(simd::f32_tag, steps)), simd::f32_tag, row + i);
        }
    }
    return true;
}

template <std::size_t Group, class Rotation>
HWY_INLINE bool decode_row(const std::byte* codes, const std::byte* scales, std::size_t dim, float* row,
                           const int4<Group, Rotation>* /*codec*/) {
    if (Group / 2 < simd::lanes) return false;
    const auto eight = hn::Set(simd::I32(), 8);
    for (std::size_t g = 0; g < dim; g += Group) {
        const auto scale = simd::half_scale(scales + g / Group * sizeof(v1::f16));
        const auto* bytes = reinterpret_cast<const std::uint8_t*>(codes + g / 2);
        for (std::size_t i = 0; i < Group; i += simd::lanes) {
            const auto steps = hn::Sub(simd::nibbles(bytes, i, Group / 2), eight);
            hn::StoreU(hn::Mul(scale, hn::ConvertTo(simd::f32_tag, steps)), simd::f32_tag, row + g + i);
        }
    }
    return true;
}

/// Decodes `tokens` consecutive tokens of a page to rows that are `stride` floats apart.
template <KvCodec C>
void decode_tokens(const std::byte* codes, const std::byte* scales, std::size_t tokens, std::size_t dim,
                   float* rows, std::size_t stride) noexcept {
    for (std::size_t t = 0; t < tokens; ++t) {
        const std::byte* code = codes + t * C::code_bytes(dim);
        const std::byte* scale = scales + t * C::scale_bytes(dim);
        if (!decode_row(code, scale, dim, rows + t * stride, static_cast<const C*>(nullptr))) {
            C::decode(code, scale, dim, rows + t * stride);
        }
    }
}

}  // namespace HWY_NAMESPACE

/// The instruction set of this translation unit.
namespace cpu = HWY_NAMESPACE;
}  // namespace kv
}  // namespace zse::inline v1
