// SPDX-License-Identifier: Apache-2.0
// Rows of a packed matrix as float32 on a GPU: the embedding of tokens.
#pragma once

#include <zse/core/dtype.hpp>
#include <zse/kernels/cuda/calls.hpp>
#include <zse/weights/mma_packed.hpp>
#include <zse/weights/nf4.hpp>

namespace zse::inline v1 {
namespace kernels {
namespace cuda {

/// out[i] = row tokens[i] of the table, with the bits that the codec's decode_row gives. One block a row; what a row takes
/// lies in pieces of two bytes or more, so a few tokens read little and many are rare.
template <class Codec>
struct EmbedKernel {
    static constexpr unsigned threads = 256;

    EmbedCall call;

    [[nodiscard]] exec::gpu::Launch launch() const noexcept { return {{call.count, 1, 1}, threads, 0}; }

    template <class T>
    ZSE_DEVICE void operator()(T& t) const {
        constexpr weights::MmaLayout shape{Codec::format, 0};
        const weights::MmaLayout layout{Codec::format, call.columns};
        const auto row = static_cast<std::uint32_t>(call.tokens[t.block().x]);
        const unsigned r = row % weights::MmaLayout::rows;
        const std::byte* const group = call.table + row / weights::MmaLayout::rows * layout.group_bytes();
        float* const out = call.out + static_cast<std::size_t>(t.block().x) * call.columns;
        for (unsigned k = t.thread(); k < call.columns; k += threads) {
            const unsigned column = k % shape.slab_columns();
            const std::byte* const slab = group + k / shape.slab_columns() * shape.slab_bytes();
            out[k] = value(t, slab, r, column);
        }
    }

private:
    template <class T>
    ZSE_DEVICE static float value(T& t, const std::byte* slab, unsigned r, unsigned column) {
        constexpr weights::MmaLayout shape{Codec::format, 0};
        const auto at = shape.code_place(r, column);
        const std::byte* const code = slab + at.byte;
        if constexpr (shape.bits() == 32) {
            return t.load(reinterpret_cast<const float*>(code));
        } else if constexpr (Codec::format.id == weights::FormatId::bf16) {
            const std::uint32_t bits = half_word(t, code);
            return __builtin_bit_cast(float, bits << 16);
        } else if constexpr (shape.bits() == 16) {
            return t.low(half_word(t, code));
        } else {
            const std::byte* const header = slab + shape.scale_place(r, column / Codec::format.group);
            const float scale = t.low(half_word(t, header));
            const auto byte = static_cast<std::uint8_t>(*code);
            if constexpr (shape.bits() == 8) {
                return scale * static_cast<float>(static_cast<std::int8_t>(byte));
            } else {
                const unsigned nibble = shape.kept_nibble((unsigned{byte} >> at.shift) & 0x0fu);
                if constexpr (Codec::format.id == weights::FormatId::nf4) {
                    return scale * level(nibble);
                } else if constexpr (shape.has_minimum()) {
                    const float minimum = t.low(half_word(t, header + shape.minimum_offset()));
                    return __builtin_fmaf(static_cast<float>(nibble), scale, minimum);
                } else {
                    return scale * (static_cast<float>(nibble) - 8.0f);
                }
            }
        }
    }
    template <class T>
    ZSE_DEVICE static std::uint16_t half_word(T& t, const std::byte* at) {
        return t.load(reinterpret_cast<const std::uint16_t*>(at));
    }
    /// weights::nf4_levels, chosen by comparisons: device code names no array of the host.
    ZSE_DEVICE static float level(unsigned code) {
        constexpr auto levels = weights::nf4_levels;
        float found = 0;
        ZSE_UNROLL
        for (unsigned i = 0; i < 16; ++i) {
            if (code == i) found = levels[i];
        }
        return found;
    }
};

}  // namespace cuda
}  // namespace kernels
}  // namespace zse::inline v1
