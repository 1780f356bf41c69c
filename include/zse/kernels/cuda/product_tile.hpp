// SPDX-License-Identifier: Apache-2.0
// A tile of a product of packed weights and rows of halves on tensor cores, for many tokens: the part that plain,
// gated and grouped products share.
#pragma once

#include <zse/kernels/cuda/fragment.hpp>
#include <zse/kernels/cuda/halves.hpp>

namespace zse::inline v1 {
namespace kernels {
namespace cuda {

/// How a block shares a tile out to its warps: `RowWarps` by `TokenWarps` of them, each with `RowTiles` groups of 16 rows
/// by `TokenTiles` times 8 tokens.
template <unsigned RowWarps, unsigned TokenWarps, unsigned RowTiles, unsigned TokenTiles,
          unsigned BlocksPerSm, unsigned SharedBytes, unsigned MostStages>
struct TileShape {
    static_assert(TokenTiles % 2 == 0, "one ldmatrix reads two tiles of tokens");
    static_assert(RowTiles % 2 == 0, "gated products pair a group of gate with one of up");
    static constexpr unsigned row_warps = RowWarps;
    static constexpr unsigned row_tiles = RowTiles;
    static constexpr unsigned token_tiles = TokenTiles;
    static constexpr unsigned warps = RowWarps * TokenWarps;
    static constexpr unsigned threads = warps * exec::gpu::warp_threads;
    static constexpr unsigned groups = RowWarps * RowTiles;
    static constexpr unsigned tokens = TokenWarps * TokenTiles * 8;
    static constexpr unsigned warp_tokens = TokenTiles * 8;
    static constexpr unsigned blocks_per_sm = BlocksPerSm;
    static constexpr unsigned shared_bytes = SharedBytes;
    static constexpr unsigned most_stages = MostStages;
    static_assert(groups % warps == 0, "warps fetch whole groups");
};

/// 128 rows by 128 tokens. For 16 columns a warp's 32 by 64 read 2 KiB of tokens for 16 mma of 2048 multiplications, so
/// that the shared memory of a multiprocessor (128 bytes a cycle) is busy for half as long as its tensor cores (1024
/// multiplications a cycle, compute capability 8.0), and what decoding an operand costs is shared by 8 mma. Shared
/// memory and registers let a multiprocessor of compute capability 8.0 (164 KiB) or 9.0 hold two blocks.
using WideTile = TileShape<4, 2, 2, 8, 2, 80 * 1024, 4>;
/// 64 by 64, for products that would leave multiprocessors without a wide tile.
using SmallTile = TileShape<2, 2, 2, 4, 4, 40 * 1024, 4>;
/// 128 by 16, for experts with few tokens, where memory is what takes time: more stages, as 25 KiB or more have to be
/// under way on each multiprocessor.
using NarrowTile = TileShape<4, 1, 2, 2, 4, 40 * 1024, 6>;

/// Sums over the columns of a tile of weights times a tile of tokens.
///
/// Weights are operands of mma as halves, their scales multiplied in: a weight is rounded once, to 11 bits, as
/// activations are, and scales cost 4 multiplications an operand, not 4 for each of its 8 products in float32. That
/// holds for every codec with scales: those and minima are halves, thus multiples of 2^-24, and codes are whole numbers,
/// so scale * code (+ minimum, in the same rounding) is exact wherever a half has fewer than 11 bits. nf4's 1/127 is
/// left to the end (`unit`). f32 and bf16 are rounded to halves, to 11 bits down to 2^-14 and to multiples of 2^-24
/// below. Weights beyond 65504 become infinite.
///
/// The order of summation over columns is the same for every shape, and an element of mma's result depends on its row
/// and column only, so the sums of a token do not depend on the other tokens.
template <class Codec, class Shape>
class ProductTile {
public:
    using Weights = Fragment<Codec>;
    using Sums = exec::gpu::FragmentD[Shape::row_tiles][Shape::token_tiles];

    /// What sums have to be multiplied with.
    static constexpr float unit = Weights::id == weights::FormatId::nf4 ? 1.0f / 127.0f : 1.0f;

private:
    static constexpr unsigned chunk = sizeof(exec::gpu::Chunk);
    static constexpr unsigned slab_chunks = Weights::slab_bytes / chunk;
    static constexpr unsigned row_chunks = Weights::columns * 2 / chunk;  ///< of a token, a slab of columns
    static constexpr unsigned token_chunks = Shape::tokens * row_chunks;
    static constexpr unsigned stage_chunks = token_chunks + Shape::groups * slab_chunks;
    static constexpr unsigned fitting = Shape::shared_bytes / (stage_chunks * chunk);
    static constexpr unsigned stages = fitting < 2                    ? 2
                                       : fitting > Shape::most_stages ? Shape::most_stages
                                                                      : fitting;

    static constexpr unsigned token_copies = token_chunks / Shape::threads;
    static constexpr unsigned group_copies = Shape::groups / Shape::warps;
    static constexpr unsigned lane_copies =
        (slab_chunks + exec::gpu::warp_threads - 1) / exec::gpu::warp_threads;
    static_assert(Weights::slab_bytes % chunk == 0 && token_chunks % Shape::threads == 0);
    static_assert(Shape::threads % row_chunks == 0);

    /// Behind the stages: where the groups of rows are, and at which chunk of x each token begins. Read for every slab,
    /// they cost no registers, which are what bounds a warp's share of a tile.
    static constexpr unsigned groups_at = stages * stage_chunks * chunk;
    static constexpr unsigned rows_at = groups_at + Shape::groups * sizeof(const std::byte*);

public:
    static constexpr unsigned shared_bytes = rows_at + Shape::tokens * sizeof(std::uint32_t);
    /// Where two stages do not fit as they should (f32, slabs of 128 columns), half as many blocks share a
    /// multiprocessor.
    static constexpr unsigned blocks_per_sm =
        shared_bytes > Shape::shared_bytes ? Shape::blocks_per_sm / 2 : Shape::blocks_per_sm;

    /// `group(g)` is the packed group of rows at place g of the tile; `row(i)` the row of `x` of token i of `tokens`, of
    /// which there is at least one. All threads of the block take part.
    template <class T, class Group, class Row>
    ZSE_DEVICE static void multiply(T& t, const HalfRows& x, const Group& group, const Row& row,
                                    unsigned tokens, Sums& sums) {
        const auto groups = t.template shared<const std::byte*>(groups_at, Shape::groups);
        const auto rows = t.template shared<std::uint32_t>(rows_at, Shape::tokens);
        for (unsigned i = t.thread(); i < Shape::groups; i += Shape::threads) groups[i] = group(i);
        for (unsigned i = t.thread(); i < Shape::tokens; i += Shape::threads) {
            // Past the end the last one stands in, here and for groups: sums that nobody stores.
            rows[i] = row(i < tokens ? i : tokens - 1) * (HalfRows::stride(x.columns) / 8);
        }
        t.sync();
        ZSE_UNROLL
        for (unsigned i = 0; i < Shape::row_tiles; ++i) {
            ZSE_UNROLL
            for (unsigned j = 0; j < Shape::token_tiles; ++j) sums[i][j] = {};
        }
        const unsigned slabs = (x.columns + Weights::columns - 1) / Weights::columns;
        const bool busy = first_token(t) < tokens;
        unsigned free = 0;  // the stage to fill next; the one after it was filled first
        for (unsigned ahead = 0; ahead < slabs + stages - 1; ++ahead) {
            const unsigned oldest = free + 1 == stages ? 0 : free + 1;
            const bool filled = ahead + 1 >= stages;
            if (filled) {
                t.template wait<stages - 2>();
                t.sync();  // nobody reads what is to be filled any more
            }
            if (ahead < slabs) fetch(t, x, ahead, free);
            t.commit();
            if (filled && busy) step_slab(t, oldest, sums);
            free = oldest;
        }
        t.template wait<0>();
    }

    /// Group `g` of the tile that begins at row `first_row` of a packed matrix; past its end, the last.
    ZSE_DEVICE static const std::byte* group_at(const std::byte* matrix, std::uint32_t columns,
                                                std::uint32_t rows, unsigned first_row, unsigned g) {
        const std::size_t wanted = first_row / weights::MmaLayout::rows + g;
        const std::size_t last = (rows - 1) / weights::MmaLayout::rows;
        const std::size_t group = wanted < last ? wanted : last;
        return matrix + group * weights::MmaLayout{Codec::format, columns}.group_bytes();
    }
    /// The first token of the tile that this warp has.
    template <class T>
    ZSE_DEVICE static unsigned first_token(T& t) {
        return t.warp() / Shape::row_warps * Shape::warp_tokens;
    }
    /// The place in the tile of the warp's group `i`.
    template <class T>
    ZSE_DEVICE static unsigned group_place(T& t, unsigned i) {
        return t.warp() % Shape::row_warps * Shape::row_tiles + i;
    }
    /// Row of its group, and token of the tile, of sums[i][j].values[v] of this lane.
    template <class T>
    ZSE_DEVICE static unsigned row_of(T& t, unsigned v) {
        return t.lane() / 4 + v / 2 * 8;
    }
    template <class T>
    ZSE_DEVICE static unsigned token_of(T& t, unsigned j, unsigned v) {
        return first_token(t) + j * 8 + t.lane() % 4 * 2 + v % 2;
    }

private:
    template <class T>
    ZSE_DEVICE static auto stage_memory(T& t, unsigned stage) {
        return t.template shared<exec::gpu::Chunk>(0, stages * stage_chunks).from(stage * stage_chunks);
    }
    /// Where a token's chunk lies: the eight rows that ldmatrix reads at once begin in eight different bank groups.
    ZSE_DEVICE static unsigned swizzled(unsigned token, unsigned chunk_of_row) {
        return token * row_chunks + (chunk_of_row ^ token % 8);
    }

    /// Begins to copy a slab of columns into a stage.
    template <class T>
    ZSE_DEVICE static void fetch(T& t, const HalfRows& x, unsigned slab, unsigned stage) {
        const auto memory = stage_memory(t, stage);
        const auto groups = t.template shared<const std::byte*>(groups_at, Shape::groups);
        const auto rows = t.template shared<std::uint32_t>(rows_at, Shape::tokens);
        const unsigned of_row = t.thread() % row_chunks;
        ZSE_UNROLL
        for (unsigned i = 0; i < token_copies; ++i) {
            const unsigned token = t.thread() / row_chunks + i * (Shape::threads / row_chunks);
            t.copy_async(memory.from(swizzled(token, of_row)),
                         x.chunk(rows[token] + slab * row_chunks + of_row));
        }
        ZSE_UNROLL
        for (unsigned i = 0; i < group_copies; ++i) {
            const unsigned g = t.warp() + i * Shape::warps;
            const auto to = memory.from(token_chunks + g * slab_chunks);
            const std::byte* from = groups[g];
            from += static_cast<std::size_t>(slab) * Weights::slab_bytes;
            ZSE_UNROLL
            for (unsigned j = 0; j < lane_copies; ++j) {
                const unsigned c = j * exec::gpu::warp_threads + t.lane();
                if (c < slab_chunks) t.copy_async(to.from(c), from + c * chunk);
            }
        }
    }

    template <class T>
    ZSE_DEVICE static void step_slab(T& t, unsigned stage, Sums& sums) {
        const auto memory = stage_memory(t, stage);
        typename Weights::Slab slabs[Shape::row_tiles];
        // Lanes 8m to 8m + 7 name the rows of matrix m: tokens 0 to 7 or, from 16 on, 8 to 15; the lower or the upper 8
        // columns of the step.
        const unsigned token = first_token(t) + t.lane() / 16 * 8 + t.lane() % 8;
        const unsigned half = t.lane() / 8 % 2;
        ZSE_UNROLL
        for (unsigned s = 0; s < Weights::steps; ++s) {
            // Keeps compilers from loading the second half of a slab before the first is done with its registers.
            if (s == Weights::steps / 2) t.sync_warp();
            exec::gpu::FragmentA a[Shape::row_tiles];
            ZSE_UNROLL
            for (unsigned i = 0; i < Shape::row_tiles; ++i) {
                read_step(t, slab_memory(t, memory, i), s, slabs[i]);
                a[i] = operand(t, slabs[i], s);
            }
            ZSE_UNROLL
            for (unsigned j = 0; j < Shape::token_tiles; j += 2) {
                const exec::gpu::FragmentA two =
                    t.ldmatrix(memory.from(swizzled(token + j * 8, s * 2 + half)));
                const exec::gpu::FragmentB lower{{two.pairs[0], two.pairs[1]}};
                const exec::gpu::FragmentB upper{{two.pairs[2], two.pairs[3]}};
                ZSE_UNROLL
                for (unsigned i = 0; i < Shape::row_tiles; ++i) {
                    t.mma(sums[i][j], a[i], lower);
                    t.mma(sums[i][j + 1], a[i], upper);
                }
            }
        }
    }

    template <class T, class Memory>
    ZSE_DEVICE static auto slab_memory(T& t, const Memory& memory, unsigned i) {
        return memory.from(token_chunks + group_place(t, i) * slab_chunks);
    }
    /// The chunks of codes, scales and minima that step `s` is the first to use: registers are what is scarce.
    template <class T, class Memory>
    ZSE_DEVICE static void read_step(T& t, const Memory& slab, unsigned s, typename Weights::Slab& to) {
        ZSE_UNROLL
        for (unsigned i = 0; i < Weights::chunks; ++i) {
            if (i * Weights::steps / Weights::chunks == s)
                to.codes[i] = slab[i * exec::gpu::warp_threads + t.lane()];
        }
        if constexpr (Weights::header_words > 0) {
            const auto words = slab.from(Weights::layout.code_bytes() / chunk)
                                   .template as<std::uint32_t>()
                                   .from(t.lane() / 4 * Weights::header_words);
            ZSE_UNROLL
            for (unsigned i = 0; i < Weights::header_words; ++i) {
                if (i % Weights::blocks * Weights::block_steps == s) to.header[i] = words[i];
            }
        }
    }

    /// Step `s` of a slab as halves, scales multiplied in.
    template <class T>
    ZSE_DEVICE static exec::gpu::FragmentA operand(T& t, const typename Weights::Slab& slab, unsigned s) {
        exec::gpu::FragmentA a;
        if constexpr (Weights::split_values) {
            ZSE_UNROLL
            for (unsigned p = 0; p < 4; ++p) {
                const exec::gpu::Chunk& c = slab.codes[s * 2 + p / 2];
                a.pairs[p] = t.to_halves(__builtin_bit_cast(float, c.words[p % 2 * 2]),
                                         __builtin_bit_cast(float, c.words[p % 2 * 2 + 1]));
            }
        } else if constexpr (Weights::bfloat) {
            ZSE_UNROLL
            for (unsigned p = 0; p < 4; ++p) {
                const std::uint32_t pair = slab.codes[s].words[p];
                a.pairs[p] = t.to_halves(__builtin_bit_cast(float, pair << 16),
                                         __builtin_bit_cast(float, pair & 0xffff0000u));
            }
        } else {
            a = Weights::step(t, slab, s);
            if constexpr (Weights::scaled) scale(t, slab, s / Weights::block_steps, a);
        }
        return a;
    }
    template <class T>
    ZSE_DEVICE static void scale(T& t, const typename Weights::Slab& slab, unsigned block,
                                 exec::gpu::FragmentA& a) {
        ZSE_UNROLL
        for (unsigned row = 0; row < 2; ++row) {  // pairs 0 and 2 are of the lower row
            const std::uint32_t by = of_row(slab.header[block], row);
            ZSE_UNROLL
            for (unsigned p = row; p < 4; p += 2) {
                if constexpr (Weights::has_minimum) {
                    a.pairs[p] =
                        t.half_fma(a.pairs[p], by, of_row(slab.header[Weights::blocks + block], row));
                } else {
                    a.pairs[p] = t.half_mul(a.pairs[p], by);
                }
            }
        }
    }
    ZSE_DEVICE static std::uint32_t of_row(std::uint32_t pair, unsigned row) {
        return row == 0 ? (pair & 0xffffu) | pair << 16 : (pair & 0xffff0000u) | pair >> 16;
    }
};

}  // namespace cuda
}  // namespace kernels
}  // namespace zse::inline v1
