// SPDX-License-Identifier: Apache-2.0
// A weight matrix as kernels see it: bytes, shape, and the functions that were bound for its format at open.
#pragma once

#include <zse/weights/format.hpp>

#include <cstddef>

namespace zse::inline v1 {
namespace kernels {

struct Matrix;

/// A tile of y = x W^T: rows [first, last) of W, all tokens.
struct LinearTile {
    const float* x = nullptr;  ///< `[tokens, columns]`
    float* y = nullptr;        ///< `[tokens, rows]` of W, with `y_stride` floats from token to token
    std::size_t tokens = 0;
    std::size_t y_stride = 0;
    std::size_t first = 0;
    std::size_t last = 0;
    bool accumulate = false;  ///< add to y instead of replacing it
    float* panel = nullptr;   ///< panel_floats(columns) floats for decoded weights
};

/// The kernels of one codec. The order of summation over columns belongs to the codec, so a row of y has the
/// same bits whatever the number of tokens, the tiling and the threads.
struct MatrixKernels {
    void (*linear)(const Matrix& weights, const LinearTile& tile) noexcept;
    void (*decode_row)(const std::byte* row, std::size_t columns, float* values) noexcept;
};

/// `[rows, columns]`, row by row.
struct Matrix {
    const std::byte* data = nullptr;
    std::uint32_t rows = 0;
    std::uint32_t columns = 0;
    weights::Format format;
    const MatrixKernels* kernels = nullptr;

    [[nodiscard]] constexpr Bytes row_bytes() const noexcept { return format.row_bytes(columns); }
    [[nodiscard]] constexpr Bytes bytes() const noexcept { return saturating_mul(row_bytes(), rows); }
    [[nodiscard]] const std::byte* row(std::size_t index) const noexcept {
        return data + index * row_bytes();
    }
};

/// Weight rows that are decoded at a time: as many as keep the panel within 256 KiB, a part of a level-2
/// cache.
constexpr std::size_t panel_rows(std::size_t columns) noexcept {
    return columns <= 4096 ? 16 : (columns <= 8192 ? 8 : 4);
}
/// Rows of the panel begin at multiples of a cache line.
constexpr std::size_t panel_stride(std::size_t columns) noexcept {
    return round_up(columns, 16);
}
constexpr std::size_t panel_floats(std::size_t columns) noexcept {
    return panel_rows(columns) * panel_stride(columns);
}

}  // namespace kernels
}  // namespace zse::inline v1
