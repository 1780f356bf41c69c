// SPDX-License-Identifier: Apache-2.0
// Matrix products for one instruction set. See linear.hpp.
namespace zse::inline v1 {
namespace kernels {
namespace ZSE_ISA {

// A row's sum is one lane, fed block by block in order of columns: sum += scale_w * scale_x * (sum of products of
// codes), where the inner sum is exact. So one token alone and the same token among many have equal bits, and so
// have all instruction sets with a fused multiply-add.
//
// Loops over register tiles carry an unroll pragma: without it -O2 keeps the accumulators in memory.

/// How the codes of a codec enter integer products.
template <class Codec>
struct Coded {
    static constexpr weights::FormatId id = Codec::format.id;
    static constexpr bool has_table = id == weights::FormatId::nf4;
    static constexpr bool has_minimum = id == weights::FormatId::q4_1;
    static constexpr bool nibbles = has_table || has_minimum || id == weights::FormatId::q4_0;
    using Sum = std::conditional_t<nibbles && !has_table, Sum4, Sum8>;
    using Factors = kernels::ZSE_ISA::Factors<Sum, Codec::format.group, nibbles>;
    /// What a code is more than what it stands for.
    static constexpr std::int32_t offset = id == weights::FormatId::q4_0 ? 8 : 0;
    static constexpr const std::int8_t* table = has_table ? weights::nf4_codes.data() : nullptr;

    static_assert(Factors::columns == CodedActivations::block);
};

/// How far ahead weights are asked for, in bytes of each stream: covers the latency of memory at one core's bandwidth, and
/// reaches into the next group of rows, which its thread reads next. (100 ns at 40 GB/s are 4 KB.)
inline constexpr std::size_t prefetch_ahead = 4096;

/// The register tile of sums: groups, vectors of rows, tokens.
template <std::size_t Groups, std::size_t V, std::size_t T>
ZSE_INLINE void clear(Vec (&sums)[Groups][V][T]) {
#pragma GCC unroll 2
    for (std::size_t g = 0; g < Groups; ++g) {
#pragma GCC unroll 4
        for (std::size_t v = 0; v < V; ++v) {
#pragma GCC unroll 8
            for (std::size_t t = 0; t < T; ++t) sums[g][v][t] = zero();
        }
    }
}
template <std::size_t Groups, std::size_t V, std::size_t T>
ZSE_INLINE void store_sums(const Vec (&sums)[Groups][V][T], const LinearTile& tile, std::size_t first_group,
                           std::size_t first, std::size_t slot) {
#pragma GCC unroll 2
    for (std::size_t g = 0; g < Groups; ++g) {
#pragma GCC unroll 4
        for (std::size_t v = 0; v < V; ++v) {
#pragma GCC unroll 8
            for (std::size_t t = 0; t < T; ++t) {
                store(tile.y + ((slot + t) * 2 + first_group + g) * 16 + (first + v) * lanes, sums[g][v][t]);
            }
        }
    }
}

/// Groups by V vectors of rows from vector `first`, by T tokens from token `slot` of a tile.
template <class Codec, std::size_t Groups, std::size_t V, std::size_t T>
ZSE_INLINE void multiply_coded(const LinearTile& tile, std::size_t first_group, std::size_t first,
                               std::size_t slot) {
    using C = Coded<Codec>;
    using Sum = typename C::Sum;
    using Factors = typename C::Factors;
    constexpr std::size_t block_bytes = 16 * Codec::format.group_bytes();
    const weights::PackedLayout layout{Codec::format, tile.columns};
    const std::size_t x_blocks = CodedActivations::blocks(tile.columns);
    const std::size_t x_stride = tile.tokens * CodedActivations::token_bytes;
    const auto* x = static_cast<const std::byte*>(tile.x);

    Vec sums[Groups][V][T];
    clear(sums);
    for (std::size_t block = 0, x_block = 0; x_block < x_blocks; ++block) {
        const auto place = layout.place(block);
        Vec scales[Groups][V];
        Vec minima[Groups][V];
#pragma GCC unroll 2
        for (std::size_t g = 0; g < Groups; ++g) {
            const std::byte* rows = tile.groups[first_group + g];
            if constexpr (T < CodedActivations::tile_tokens) {  // longer tiles are bound by arithmetic
#pragma GCC unroll 16
                for (std::size_t line = 0; line < block_bytes; line += 64) {
                    __builtin_prefetch(rows + block * block_bytes + prefetch_ahead + line);
                }
            }
#pragma GCC unroll 4
            for (std::size_t v = 0; v < V; ++v) {
                scales[g][v] = load_f16(rows + place.scales + (first + v) * lanes * 2);
                if constexpr (C::has_table) scales[g][v] = mul(scales[g][v], broadcast(1.0f / 127.0f));
                if constexpr (C::has_minimum) {
                    minima[g][v] = load_f16(rows + place.minima + (first + v) * lanes * 2);
                }
            }
        }
        for (std::size_t part = 0; part < Factors::parts && x_block < x_blocks; ++part, ++x_block, x += x_stride) {
            const auto* codes = reinterpret_cast<const std::int8_t*>(x) + slot * CodedActivations::block;
            const std::byte* after = x + tile.tokens * CodedActivations::block;
            if constexpr (C::has_minimum) {  // 15 to 20 % faster; the others lose 3 % by it
                codes = opaque(codes);
                after = opaque(after);
            }
            const auto* x_scales = reinterpret_cast<const float*>(after) + slot;
            const auto* x_sums = reinterpret_cast<const std::int32_t*>(after + tile.tokens * 4) + slot;
            const auto* x_scaled = reinterpret_cast<const float*>(after + tile.tokens * 8) + slot;
#pragma GCC unroll 2
            for (std::size_t g = 0; g < Groups; ++g) {
#pragma GCC unroll 4
                for (std::size_t v = 0; v < V; ++v) {
                    const std::byte* rows = tile.groups[first_group + g] + place.codes + (first + v) * lanes * 4;
                    typename Sum::Weights w[Factors::steps];
                    Factors::unpack(rows, 64, part, w, C::table);
                    Sum products[T];
#pragma GCC unroll 8
                    for (std::size_t t = 0; t < T; ++t) {
                        products[t].begin(C::offset == 0 ? 0 : -C::offset * x_sums[t], x_sums[t]);
                    }
#pragma GCC unroll 8
                    for (std::size_t s = 0; s < Factors::steps; ++s) {
#pragma GCC unroll 8
                        for (std::size_t t = 0; t < T; ++t) {
                            products[t].step(w[s], four_bytes(codes + t * CodedActivations::block + s * 4));
                        }
                    }
#pragma GCC unroll 8
                    for (std::size_t t = 0; t < T; ++t) {
                        Vec& sum = sums[g][v][t];
                        const Vec scale = mul(scales[g][v], broadcast(x_scales[t]));
                        sum = fma(to_float(products[t].total()), scale, sum);
                        if constexpr (C::has_minimum) sum = fma(minima[g][v], broadcast(x_scaled[t]), sum);
                    }
                }
            }
        }
    }
    store_sums(sums, tile, first_group, first, slot);
}

template <class Codec>
ZSE_INLINE Vec load_weights(const std::byte* at) {
    if constexpr (Codec::format.id == weights::FormatId::f32) {
        return load(reinterpret_cast<const float*>(at));
    } else if constexpr (Codec::format.id == weights::FormatId::f16) {
        return load_f16(at);
    } else {
        return load_bf16(at);
    }
}

/// The same for weights without scales: one rounding a column.
template <class Codec, std::size_t Groups, std::size_t V, std::size_t T>
ZSE_INLINE void multiply_dense(const LinearTile& tile, std::size_t first_group, std::size_t first,
                               std::size_t slot) {
    constexpr std::size_t size = Codec::format.group_bytes();
    const float* x = static_cast<const float*>(tile.x) + slot * tile.columns;
    Vec sums[Groups][V][T];
    clear(sums);
    for (std::size_t k = 0; k < tile.columns; ++k) {
#pragma GCC unroll 2
        for (std::size_t g = 0; g < Groups; ++g) {
            const std::byte* column = tile.groups[first_group + g] + k * 16 * size;
            if constexpr (T < CodedActivations::tile_tokens) __builtin_prefetch(column + prefetch_ahead);
#pragma GCC unroll 4
            for (std::size_t v = 0; v < V; ++v) {
                const Vec w = load_weights<Codec>(column + (first + v) * lanes * size);
#pragma GCC unroll 8
                for (std::size_t t = 0; t < T; ++t) {
                    sums[g][v][t] = fma(w, broadcast(x[t * tile.columns + k]), sums[g][v][t]);
                }
            }
        }
    }
    store_sums(sums, tile, first_group, first, slot);
}

template <class Codec, std::size_t Groups, std::size_t V, std::size_t T>
ZSE_INLINE void multiply_tile(const LinearTile& tile, std::size_t first_group, std::size_t first,
                              std::size_t slot) {
    if constexpr (Codec::format.group == 1) {
        multiply_dense<Codec, Groups, V, T>(tile, first_group, first, slot);
    } else {
        multiply_coded<Codec, Groups, V, T>(tile, first_group, first, slot);
    }
}

/// T tokens from `slot`, all rows: as many vectors at once as the registers hold (per vector and token a float
/// and an integer sum).
template <class Codec, std::size_t Groups, std::size_t T>
[[gnu::noinline]] void multiply_tokens(const LinearTile& tile, std::size_t first_group, std::size_t slot) {
    constexpr std::size_t most = registers * 3 / 8 / (2 * Groups * T);
    constexpr std::size_t v = most >= row_vectors ? row_vectors : (most >= 2 ? 2 : 1);
    for (std::size_t first = 0; first < row_vectors; first += v) {
        multiply_tile<Codec, Groups, v, T>(tile, first_group, first, slot);
    }
}

/// The widest tile of tokens: its sums take at most half of the registers.
inline constexpr std::size_t most_tokens = registers / 4;

template <class Codec, std::size_t T>
ZSE_INLINE void multiply_both(const LinearTile& tile, std::size_t groups, std::size_t slot) {
    // Two far groups at once are two streams from memory, which one core needs to use its bandwidth.
    if constexpr (2 * T <= most_tokens) {
        if (groups == 2) return multiply_tokens<Codec, 2, T>(tile, 0, slot);
    }
    for (std::size_t g = 0; g < groups; ++g) multiply_tokens<Codec, 1, T>(tile, g, slot);
}

/// The linear kernel of a codec.
template <class Codec>
void multiply(const LinearTile& tile) noexcept {
    const std::size_t groups = tile.groups[1] != nullptr ? 2 : 1;
    std::size_t slot = 0;
    if constexpr (most_tokens >= 8) {
        if (tile.tokens == 8) return multiply_both<Codec, 8>(tile, groups, 0);
    }
    for (; slot + 4 <= tile.tokens; slot += 4) multiply_both<Codec, 4>(tile, groups, slot);
    for (; slot + 2 <= tile.tokens; slot += 2) multiply_both<Codec, 2>(tile, groups, slot);
    if (slot < tile.tokens) multiply_both<Codec, 1>(tile, groups, slot);
}

/// What is bound at open for matrices of this codec.
template <class Codec>
inline constexpr MatrixKernels matrix_kernels{&multiply<Codec>, &decode_packed_row<Codec>};

}  // namespace ZSE_ISA
}  // namespace kernels
}  // namespace zse::inline v1
