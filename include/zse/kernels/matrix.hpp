// SPDX-License-Identifier: Apache-2.0
// A weight matrix as kernels see it: packed bytes, shape, and the functions that were bound for its format at open.
#pragma once

#include <zse/kernels/activations.hpp>
#include <zse/weights/packing.hpp>

#include <algorithm>
#include <cstddef>

namespace zse::inline v1 {
namespace kernels {
namespace cuda {
struct MatrixLaunches;
}

/// A tile of y = W x: one or two groups of 16 rows of W by the tokens of one tile of activations.
struct LinearTile {
    const std::byte* groups[2] = {};  ///< packed rows; the second may be null
    const void* x = nullptr;   ///< the tile, coded or `[tokens, columns]` float32, as the codec reads it
    std::uint32_t tokens = 0;  ///< 1 to 8
    std::uint32_t columns = 0;
    float* y = nullptr;  ///< `[8][2][16]`: token, group, row
};

/// The kernels of one codec for one instruction set. The order of summation over columns belongs to the codec, so
/// a row of y has the same bits whatever the number of tokens, the tiling and the threads.
struct MatrixKernels {
    void (*multiply)(const LinearTile& tile) noexcept;
    /// Row r of a group to float32, exactly as the codec decodes it.
    void (*decode_row)(const std::byte* group, std::size_t r, std::size_t columns, float* values) noexcept;
    /// Where the matrix lies in a GPU's memory; the two above are null then.
    const cuda::MatrixLaunches* device = nullptr;
};

/// `[rows, columns]`, packed. The groups of rows are shared out to as many parts as there are threads, each part in
/// the memory that its thread reads.
struct Matrix {
    const std::byte* const* parts = nullptr;  ///< `[part_count]`
    std::uint32_t part_count = 1;
    std::uint32_t rows = 0;
    std::uint32_t columns = 0;
    weights::Format format;
    weights::Packing packing = weights::Packing::cpu_r16k4;
    const MatrixKernels* kernels = nullptr;

    static constexpr std::size_t group_rows = weights::PackedLayout::rows;

    [[nodiscard]] constexpr weights::PackedLayout layout() const noexcept { return {format, columns}; }
    [[nodiscard]] constexpr bool on_device() const noexcept {
        return packing == weights::Packing::cuda_mma16;
    }
    /// Bytes of 16 rows, and of all.
    [[nodiscard]] constexpr Bytes group_bytes() const noexcept {
        return weights::group_bytes(packing, format, columns);
    }
    [[nodiscard]] constexpr Bytes bytes() const noexcept { return saturating_mul(groups(), group_bytes()); }
    [[nodiscard]] constexpr std::size_t groups() const noexcept { return ceil_div(rows, group_rows); }
    /// The first group of rows of a part, always an even one; that of part_count is one past the last.
    [[nodiscard]] constexpr std::size_t first_group(std::size_t part) const noexcept {
        return std::min(ceil_div(groups(), 2) * part / part_count * 2, groups());
    }
    [[nodiscard]] constexpr std::size_t part_groups(std::size_t part) const noexcept {
        return first_group(part + 1) - first_group(part);
    }
    [[nodiscard]] constexpr Bytes part_bytes(std::size_t part) const noexcept {
        return part_groups(part) * group_bytes();
    }
    /// Group `index` of a part.
    [[nodiscard]] const std::byte* group(std::size_t part, std::size_t index) const noexcept {
        return parts[part] + index * group_bytes();
    }
    /// Row `row` as float32, `[columns]`.
    void decode_row(std::size_t row, float* values) const noexcept {
        const std::size_t wanted = row / group_rows;
        std::size_t part = 0;
        while (first_group(part + 1) <= wanted) ++part;
        kernels->decode_row(group(part, wanted - first_group(part)), row % group_rows, columns, values);
    }
    /// Whether products with this matrix read activations in 8 bits; known from the format, for the plan.
    [[nodiscard]] constexpr bool reads_codes() const noexcept { return format.group != 1 && !on_device(); }
};

}  // namespace kernels
}  // namespace zse::inline v1
