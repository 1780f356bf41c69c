// SPDX-License-Identifier: Apache-2.0
// Activations as rows of halves, which products over many tokens read: each row brought into range by an exact power
// of two.
#pragma once

#include <zse/exec/cuda/thread.hpp>

namespace zse::inline v1 {
namespace kernels {
namespace cuda {

/// Rows of halves, `[rows, stride]`, with what each row has to be multiplied with: x = half * factor. The padding of a
/// row is zero, so a product may read whole slabs of any codec.
struct HalfRows {
    static constexpr std::uint32_t padding = 128;  ///< columns of the longest slab of a packed matrix

    std::byte* halves = nullptr;  ///< at a multiple of 16 bytes
    float* factors = nullptr;     ///< `[rows]`
    std::uint32_t columns = 0;    ///< of the rows that these were made from

    /// Halves from row to row.
    static constexpr std::uint32_t stride(std::uint32_t columns) noexcept {
        return (columns + padding - 1) / padding * padding;
    }
    static constexpr Bytes bytes(std::uint32_t columns, std::uint64_t rows) noexcept {
        const Bytes halves = saturating_mul(rows, Bytes{2} * stride(columns));
        return saturating_add(halves, round_up(saturating_mul(rows, sizeof(float)), alignment));
    }
    /// Rows in a buffer of bytes(columns, rows), which begins at a multiple of 16 bytes.
    static HalfRows in(std::byte* buffer, std::uint32_t columns, std::uint64_t rows) noexcept {
        return {buffer, reinterpret_cast<float*>(buffer + rows * 2 * stride(columns)), columns};
    }
    /// Chunk `index` (8 halves) of all rows.
    ZSE_DEVICE const exec::gpu::Chunk* chunk(std::uint32_t index) const {
        return reinterpret_cast<const exec::gpu::Chunk*>(halves) + index;
    }

    static constexpr Bytes alignment = 64;
};

/// The power of two, and its inverse, that bring the greatest magnitude of some values into [2^14, 2^15): below the
/// greatest half (65504), and as far as can be above the halves that lose bits (below 2^-14). So a value is rounded to 11
/// bits unless it is below 2^-28 of the greatest.
struct HalfRange {
    float up;
    float down;

    /// From the bits of the greatest magnitude. Zeros and tiny numbers stay finite, and infinities stay.
    static constexpr HalfRange of(std::uint32_t greatest) noexcept {
        constexpr std::uint32_t bias = 127;
        constexpr std::uint32_t wanted = 14;
        constexpr std::uint32_t most = 2 * bias - 1;  // the inverse has to be a normal number, too
        const std::uint32_t exponent = (greatest >> 23) & 0xffu;
        std::uint32_t field = 2 * bias + wanted - exponent;
        if (field > most) field = most;
        return {__builtin_bit_cast(float, field << 23), __builtin_bit_cast(float, (2 * bias - field) << 23)};
    }
};

/// Writes HalfRows. One block a row; a thread makes 8 halves, one 16-byte store of two 16-byte loads.
struct HalvesKernel {
    static constexpr unsigned threads = 128;

    const float* x = nullptr;                 ///< `[rows, columns]`, dense, at a multiple of 16 bytes
    const std::uint32_t* greatest = nullptr;  ///< `[rows]`: bits of each row's greatest magnitude
    std::uint32_t rows = 0;
    HalfRows out;

    [[nodiscard]] exec::gpu::Launch launch() const noexcept { return {{rows, 1, 1}, threads, 0}; }

    template <class T>
    ZSE_DEVICE void operator()(T& t) const {
        const unsigned row = t.block().x;
        const HalfRange range = HalfRange::of(t.load(greatest + row));
        const float* from = x + static_cast<std::size_t>(row) * out.columns;
        const unsigned chunks = HalfRows::stride(out.columns) / 8;
        auto* to = reinterpret_cast<exec::gpu::Chunk*>(out.halves) + static_cast<std::size_t>(row) * chunks;
        for (unsigned chunk = t.thread(); chunk < chunks; chunk += threads) {
            float values[8];
            read(t, from, chunk * 8, values);
            exec::gpu::Chunk halves;
            ZSE_UNROLL
            for (unsigned i = 0; i < 4; ++i) {
                halves.words[i] = t.to_halves(values[2 * i] * range.up, values[2 * i + 1] * range.up);
            }
            to[chunk] = halves;
        }
        if (t.thread() == 0) out.factors[row] = range.down;
    }

private:
    /// Eight columns from `first` on, zeros past the end.
    template <class T>
    ZSE_DEVICE void read(T& t, const float* from, unsigned first, float (&values)[8]) const {
        if (out.columns % 4 == 0 && first + 8 <= out.columns) {
            ZSE_UNROLL
            for (unsigned part = 0; part < 2; ++part) {
                const auto four =
                    t.load_once(reinterpret_cast<const exec::gpu::Chunk*>(from + first + part * 4));
                ZSE_UNROLL
                for (unsigned i = 0; i < 4; ++i) {
                    values[part * 4 + i] = __builtin_bit_cast(float, four.words[i]);
                }
            }
            return;
        }
        ZSE_UNROLL
        for (unsigned i = 0; i < 8; ++i)
            values[i] = first + i < out.columns ? t.load(from + first + i) : 0.0f;
    }
};

}  // namespace cuda
}  // namespace kernels
}  // namespace zse::inline v1
