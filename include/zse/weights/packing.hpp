// SPDX-License-Identifier: Apache-2.0
// The families of packed layouts, by name where the compiler does not know which: both keep 16 rows together.
#pragma once

#include <zse/weights/mma_packed.hpp>
#include <zse/weights/packed.hpp>

namespace zse::inline v1 {
namespace weights {

enum class Packing : std::uint8_t { cpu_r16k4, cuda_mma16 };

static_assert(PackedLayout::rows == MmaLayout::rows && PackedLayout::alignment % MmaLayout::alignment == 0);

/// Bytes of 16 rows.
constexpr Bytes group_bytes(Packing packing, Format format, std::uint32_t columns) noexcept {
    return packing == Packing::cpu_r16k4 ? PackedLayout{format, columns}.group_bytes()
                                         : MmaLayout{format, columns}.group_bytes();
}

/// Packs up to 16 rows, which lie `row_bytes` apart as their codec stores them.
inline void pack(Packing packing, Format format, std::uint32_t columns, const std::byte* from,
                 Bytes row_bytes, std::size_t count, std::byte* group) noexcept {
    if (packing == Packing::cpu_r16k4) {
        PackedLayout{format, columns}.pack(from, row_bytes, count, group);
    } else {
        MmaLayout{format, columns}.pack(from, row_bytes, count, group);
    }
}

}  // namespace weights
}  // namespace zse::inline v1
