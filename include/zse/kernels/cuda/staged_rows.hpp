// SPDX-License-Identifier: Apache-2.0
// Activations in shared memory as operands of a tensor core, in one part or split into two.
#pragma once

#include <zse/kernels/cuda/fragment.hpp>

namespace zse::inline v1 {
namespace kernels {
namespace cuda {

/// Up to 32 of some rows of activations, brought into the range of halves by a power of two each (HalfRange) and written to
/// shared memory as operands B of mma.m16n8k16: `[pairs of steps][fragment columns][4][16 bytes]`, so that a lane's
/// operands of two steps are one load, and the loads of a warp are one stretch.
///
/// Where rows are split, token t has the fragment columns 2t, its value rounded to a half, and 2t + 1, the rest of
/// that times split_rest: then lane l of a result has both sums of one token (values[0] and [1] of row l / 4, values[2] and
/// [3] of row l / 4 + 8), and 22 bits of each activation take part. Else token t has column t, and 11 bits do. For
/// bfloat16 the parts have 8 bits, and the rest is not scaled, as it needs no help to stay in range.
///
/// With `Sums`, the sums of the parts over each pair of steps (32 columns) follow: `[pairs][fragment columns]` float32.
template <bool Bfloat, bool Sums>
struct StagedRows {
    const float* x = nullptr;                 ///< `[tokens, columns]`
    const std::uint32_t* greatest = nullptr;  ///< `[tokens]`
    std::uint32_t tokens = 0;
    std::uint32_t columns = 0;
    std::uint32_t width = 0;  ///< fragment columns, 2 to 32
    bool split = false;

    static constexpr unsigned pair_columns = 32;
    static constexpr float rest = Bfloat ? 1.0f : split_rest;

    /// Bytes of a pair of steps.
    static constexpr unsigned pair_bytes(unsigned width) noexcept {
        return width * (4 * sizeof(exec::gpu::Chunk) + (Sums ? sizeof(float) : 0));
    }
    /// Which chunk lane l loads for fragment column `column`.
    ZSE_DEVICE static constexpr unsigned chunk_at(unsigned width, unsigned pair, unsigned column,
                                                  unsigned l) noexcept {
        return (pair * width + column) * 4 + l % 4;
    }

    /// Columns `first` to `first` + 32 * `pairs` of as many rows from `first_token` on as have room, zeros past their end
    /// and after the last row. Threads of a block share the work; all take part.
    template <unsigned Threads, class T, class Chunks, class Floats>
    ZSE_DEVICE void stage(T& t, unsigned first_token, unsigned first, unsigned pairs, const Chunks& chunks,
                          const Floats& sums) const {
        // Four lanes have the same token and, of each 8 columns, two neighbours each: one sector of memory.
        const unsigned room = split ? width / 2 : width;  // places of tokens
        unsigned shift = 0;
        while ((1u << shift) < room) ++shift;
        const unsigned items = pairs << shift;
        const unsigned quad = t.thread() % 4;
        // Several turns are loaded at once: latency is what this takes.
        for (unsigned first_item = 0; first_item < items; first_item += turns * (Threads / 4)) {
            float values[turns][8];
            float up[turns];
            ZSE_UNROLL
            for (unsigned turn = 0; turn < turns; ++turn) {
                const unsigned item = first_item + turn * (Threads / 4) + t.thread() / 4;
                const unsigned token = item & ((1u << shift) - 1);
                const bool inside = token < room && first_token + token < tokens && item < items;
                const unsigned row = inside ? first_token + token : 0;
                const float* const from = x + static_cast<std::size_t>(row) * columns;
                up[turn] = HalfRange::of(inside ? t.load(greatest + row) : 0).up;
                read(t, from, first + (item >> shift) * pair_columns + quad * 2, inside, values[turn]);
            }
            ZSE_UNROLL
            for (unsigned turn = 0; turn < turns; ++turn) {
                const unsigned item = first_item + turn * (Threads / 4) + t.thread() / 4;
                const unsigned token = item & ((1u << shift) - 1);
                write(t, item >> shift, token, quad, item < items && token < room, up[turn], values[turn],
                      chunks, sums);
            }
        }
    }

private:
    static constexpr unsigned turns = 4;

    /// The values of one lane: two neighbours of every 8 columns.
    template <class T>
    ZSE_DEVICE void read(T& t, const float* from, unsigned column, bool inside, float (&values)[8]) const {
        const bool aligned = columns % 2 == 0;
        ZSE_UNROLL
        for (unsigned i = 0; i < 4; ++i, column += 8) {
            if (aligned) {
                const bool valid = inside && column < columns;
                const auto two = valid ? t.load(reinterpret_cast<const exec::gpu::HalfChunk*>(from + column))
                                       : exec::gpu::HalfChunk{};
                values[2 * i] = __builtin_bit_cast(float, two.words[0]);
                values[2 * i + 1] = __builtin_bit_cast(float, two.words[1]);
            } else {
                values[2 * i] = inside && column < columns ? t.load(from + column) : 0.0f;
                values[2 * i + 1] = inside && column + 1 < columns ? t.load(from + column + 1) : 0.0f;
            }
        }
    }
    template <class T, class Chunks, class Floats>
    ZSE_DEVICE void write(T& t, unsigned pair, unsigned token, unsigned quad, bool inside, float up,
                          float (&values)[8], const Chunks& chunks, const Floats& sums) const {
        const unsigned parts = split ? 2 : 1;
        float scale = up;
        for (unsigned part = 0; part < parts; ++part, scale = rest) {
            exec::gpu::Chunk chunk;
            float sum = 0;
            ZSE_UNROLL
            for (unsigned i = 0; i < 4; ++i) {
                float& a = values[2 * i];
                float& b = values[2 * i + 1];
                a *= scale;
                b *= scale;
                chunk.words[i] = Bfloat ? t.to_bfloats(a, b) : t.to_halves(a, b);
                const float low = lower(t, chunk.words[i]);
                const float high = upper(t, chunk.words[i]);
                a -= low;
                b -= high;
                sum += low + high;
            }
            const unsigned column = token * parts + part;
            if (inside) chunks[chunk_at(width, pair, column, quad)] = chunk;
            if constexpr (Sums) {
                sum += t.shuffle_xor(sum, 1);
                sum += t.shuffle_xor(sum, 2);
                if (inside && quad == 0) sums[pair * width + column] = sum;
            }
        }
    }
    template <class T>
    ZSE_DEVICE static float lower(T& t, std::uint32_t pair) {
        return Bfloat ? __builtin_bit_cast(float, pair << 16) : t.low(pair);
    }
    template <class T>
    ZSE_DEVICE static float upper(T& t, std::uint32_t pair) {
        return Bfloat ? __builtin_bit_cast(float, pair & 0xffff0000u) : t.high(pair);
    }
};

}  // namespace cuda
}  // namespace kernels
}  // namespace zse::inline v1
