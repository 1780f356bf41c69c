// SPDX-License-Identifier: Apache-2.0
// y = W x for packed weights in any codec: integer products with 8-bit activations where the codec has scales,
// float32 products where it has none.
#pragma once

#include <zse/kernels/cpu/codes.hpp>
#include <zse/kernels/matrix.hpp>
#include <zse/weights/as_stored.hpp>

namespace zse::inline v1 {
namespace kernels {

/// A row of a packed group to float32, by the codec's own scalar truth.
template <class Codec>
void decode_packed_row(const std::byte* group, std::size_t r, std::size_t columns, float* values) noexcept {
    const weights::PackedLayout layout{Codec::format, static_cast<std::uint32_t>(columns)};
    constexpr std::size_t width = Codec::format.group;
    if constexpr (width == 1) {
        constexpr std::size_t size = sizeof(typename Codec::Block);
        for (std::size_t k = 0; k < columns; ++k) {
            Codec::decode_row(group + (k * weights::PackedLayout::rows + r) * size, 1, values + k);
        }
    } else {
        std::byte block[sizeof(typename Codec::Block)];
        for (std::size_t first = 0; first < columns; first += width) {
            layout.unpack_block(group, r, first / width, block);
            Codec::decode_row(block, columns - first < width ? columns - first : width, values + first);
        }
    }
}

}  // namespace kernels
}  // namespace zse::inline v1

#define ZSE_ISA_BODY <zse/kernels/cpu/linear.inl>
#include <zse/kernels/cpu/for_each_isa.inl>
